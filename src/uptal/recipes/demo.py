"""The whole story on one page: corpus, encoders and a control, features, BMN on each, evaluation, Figure 3, detections.

Everything is the real thing at a small size: encoded videos, the paper's pretext task, the real localizer, the official
metrics. The numbers are whatever came out.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from uptal.annotations import read_activitynet, read_labels
from uptal.device import choose_device
from uptal.encoders import load_encoder
from uptal.errors import ConfigError
from uptal.files import atomic_write, read_note
from uptal.recipes import pretrain as recipes
from uptal.recipes.demo_external import KEY, SHIPPED, external_row, shipped_row
from uptal.recipes.demo_grounding import sentence
from uptal.recipes.demo_page import (
    BUDGET,
    INTERVAL,
    METHODS,
    SECOND,
    Method,
    comparison,
    detection_panels,
    figure_three,
    finding,
    label_free,
    loss_curves,
    other_localizer,
)
from uptal.recipes.demo_scores import Stage, budget, score
from uptal.recipes.extracting import ExtractConfig, extract_folder
from uptal.recipes.running import pretrain
from uptal.report import Report, write_report
from uptal.run import environment
from uptal.synthetic import CorpusConfig, synthesize

EXTRACTION = ExtractConfig(interval=INTERVAL, batch=64)
"""How every encoder sees the untrimmed videos, its own clip size aside."""


def demo(
    out: Path, *, full: bool = False, seed: int = 0, device: str = "auto", weights: Path | None = None
) -> dict[str, Any]:
    """Runs the story into `out`; finished parts are kept, so an interrupted demo goes on where it was.

    Args:
        out: Folder for everything: corpus, runs, features, results.json, report.html.
        full: The full-size BMN, four times the videos and eight times the steps; hours on a CPU.
        seed: Seed of encoders and heads; the corpus has its own.
        device: `auto`, `cpu`, `cuda`.
        weights: An encoder from elsewhere that gets an extra row; it may be added to a finished demo.

    Raises:
        ConfigError: No such device, or the folder holds another demo. CheckpointError: `weights` is no encoder.
    """
    clock = time.perf_counter()
    choose_device(device)
    if weights is not None:
        load_encoder(weights)  # what cannot be used is better told now than in five minutes
    claim(out, {"seed": seed, "full": full, "uptal": environment()["packages"]["uptal"]})
    corpus = make_corpus(out / "corpus", full)
    truth = {id: v for id, v in read_activitynet(corpus / "annotations.json").items() if v.subset == "validation"}
    stage = Stage(out=out, corpus=corpus, truth=truth, full=full, seed=seed, device=device)
    results: dict[str, Any] = {}
    for method in METHODS:
        print(f"[{time.perf_counter() - clock:4.0f} s] {method.title}", flush=True)
        results[method.key] = run_method(method, stage)
    print(f"[{time.perf_counter() - clock:4.0f} s] a second localizer", flush=True)
    second_opinion(results, stage)
    print(f"[{time.perf_counter() - clock:4.0f} s] the encoder that comes with uptal", flush=True)
    results[SHIPPED] = shipped_row(stage, EXTRACTION)
    if weights is not None:
        print(f"[{time.perf_counter() - clock:4.0f} s] {weights}", flush=True)
        results[KEY] = external_row(weights, stage, EXTRACTION)
    with atomic_write(out / "results.json") as file:
        json.dump(results, file, indent=1)
    print(f"[{time.perf_counter() - clock:4.0f} s] a sentence", flush=True)
    sections = [
        comparison(results),
        other_localizer(results),
        loss_curves(out, results),
        *figure_three(corpus, truth, out, seed, device),
        *detection_panels(corpus, truth, out, results),
        *label_free(corpus, truth, out),
        *sentence(corpus, out / "features" / "tac", out / "grounding" / "tac", seed=seed, device=device),
    ]
    minutes = (time.perf_counter() - clock) / 60
    facts = environment() | {"seed": seed, "full": full, "minutes": round(minutes, 1)}
    summary = [finding(results), BUDGET]
    report = Report(
        title="uptal demo: does pre-training help to localise?", summary=summary, sections=sections, facts=facts
    )
    for message in write_report(out / "report.html", report):
        print(message)
    print(f"[{60 * minutes:4.0f} s] done\n\n{finding(results)}\n")
    print(f"Numbers: {out / 'results.json'}\nPage:    {out / 'report.html'}")
    return results


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Notes what the folder is for; finished parts of a demo with other settings must not end up in this one's table.

    Raises:
        ConfigError: The folder holds a demo with other settings.
    """
    note = out / "demo.json"
    if note.exists():
        before = read_note(note)
        if before != settings:
            raise ConfigError(
                f"{out} holds a demo made with {before}, not {settings}. Choose another --out or remove it."
            )
    with atomic_write(note) as file:
        json.dump(settings, file)


def demo_corpus() -> CorpusConfig:
    """The demo's own corpus, of a seed that no experiment uses and easier than theirs: short videos, few scenes, a calm
    camera, four classes. These four move as much and nearly where the others do, so that frame differences hardly tell
    them apart (docs/decisions/0013-corpus-gate.md)."""
    return CorpusConfig(
        num_classes=4,
        actions=("arm_wave", "clap", "squat_spring", "lean"),
        num_trimmed=560,
        trimmed_frames=64,
        max_trimmed_idle=0.1,
        num_untrimmed=150,
        untrimmed_frames=160,
        instance_frames=(28, 64),
        period_frames=(16.0, 22.0),
        amplitude_drift=0.15,
        style=0.3,
        figure_height=(0.5, 0.66),
        scene_bank=12,
        camera_motion=1.0,
        max_distractors=2,
        noise=1.0,
        seed=2022,
    )


def make_corpus(folder: Path, full: bool) -> Path:
    """Writes the corpus; four times the videos when `full`."""
    config, scale = demo_corpus(), 4 if full else 1
    numbers = {"num_trimmed": scale * config.num_trimmed, "num_untrimmed": scale * config.num_untrimmed}
    synthesize(folder, replace(config, **numbers))
    return folder


def run_method(method: Method, stage: Stage) -> dict[str, Any]:
    """Pre-trains, extracts, trains BMN and evaluates one encoder."""
    result = stage.out / "results" / f"{method.key}.json"
    if result.exists():
        return read_note(result)
    cfg = replace(method.recipe(), seed=stage.seed, device=stage.device)
    if stage.full and cfg.optim.max_steps:
        cfg = recipes.with_optim(cfg, max_steps=8 * cfg.optim.max_steps)
    labels = read_labels(stage.corpus / "trimmed.csv") if cfg.method == "supervised" else None
    run, store = stage.out / "runs" / method.key, stage.out / "features" / method.key
    outcome = pretrain(cfg, stage.corpus / "trimmed", run, labels)
    if not outcome.finished:
        raise KeyboardInterrupt
    extract_folder(run, stage.corpus / "untrimmed", store, replace(EXTRACTION, device=stage.device))
    pairs, clips = budget(cfg, outcome.steps)
    spent = {"pairs": pairs, "clips": clips, "seconds": round(outcome.seconds, 1), "steps": outcome.steps}
    return _keep(result, score("bmn", method.key, stage) | spent | {"seed": stage.seed})


def second_opinion(results: dict[str, Any], stage: Stage) -> None:
    """Adds the scores of another localizer to the two encoders that BMN does best with."""
    for key in sorted(results, key=lambda key: -results[key]["average_mAP"])[:2]:
        if SECOND not in results[key]:
            scores = score(SECOND, key, stage)
            results[key] = _keep(stage.out / "results" / f"{key}.json", results[key] | {SECOND: scores})


def _keep(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    with atomic_write(path) as file:
        json.dump(record, file, indent=1)
    return record
