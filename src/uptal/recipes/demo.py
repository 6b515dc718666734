"""The whole story on one page: corpus, four encoders, features, BMN on each, evaluation, Figure 3, detections.

Everything is the real thing at a small size: encoded videos, the paper's pretext task, the real localizer, the official
metrics. The numbers are whatever came out.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from uptal.annotations import read_activitynet, read_labels, write_detections
from uptal.errors import ConfigError
from uptal.features import FeatureStore
from uptal.files import atomic_write
from uptal.metrics import detection_map, proposal_recall
from uptal.recipes import localize
from uptal.recipes import pretrain as recipes
from uptal.recipes.demo_page import (
    BUDGET,
    INTERVAL,
    METHODS,
    Method,
    comparison,
    detection_panels,
    figure_three,
    finding,
    loss_curves,
)
from uptal.recipes.extracting import extract_folder
from uptal.recipes.running import pretrain
from uptal.report import Report, write_report
from uptal.run import environment
from uptal.synthetic import CorpusConfig, synthesize
from uptal.types import Video


def demo(out: Path, *, full: bool = False, seed: int = 0, device: str = "auto") -> dict[str, Any]:
    """Runs the story into `out`; finished parts are kept, so an interrupted demo goes on where it was.

    Args:
        out: Folder for everything: corpus, runs, features, results.json, report.html.
        full: The full-size BMN, four times the videos and eight times the steps; hours on a CPU.
        seed: Seed of encoders and heads; the corpus has its own.
        device: `auto`, `cpu`, `cuda`.
    """
    clock = time.perf_counter()
    claim(out, {"seed": seed, "full": full, "uptal": environment()["packages"]["uptal"]})
    corpus = make_corpus(out / "corpus", full)
    truth = {id: v for id, v in read_activitynet(corpus / "annotations.json").items() if v.subset == "validation"}
    results: dict[str, Any] = {}
    for method in METHODS:
        print(f"[{time.perf_counter() - clock:4.0f} s] {method.title}", flush=True)
        results[method.key] = run_method(method, corpus, truth, out, full, seed, device)
    with atomic_write(out / "results.json") as file:
        json.dump(results, file, indent=1)
    sections = [
        comparison(results),
        loss_curves(out),
        figure_three(corpus, truth, out, seed, device),
        *detection_panels(corpus, truth, out),
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
        before = json.loads(note.read_text("utf-8"))
        if before != settings:
            raise ConfigError(
                f"{out} holds a demo made with {before}, not {settings}. Choose another --out or remove it."
            )
    with atomic_write(note) as file:
        json.dump(settings, file)


def make_corpus(folder: Path, full: bool) -> Path:
    """The demo's own corpus; its seed is used by no other experiment."""
    scale = 4 if full else 1
    config = CorpusConfig(
        num_trimmed=320 * scale,
        trimmed_frames=64,
        num_untrimmed=160 * scale,
        untrimmed_frames=192,
        instance_frames=(24, 80),
        camera_motion=0.5,
        max_distractors=1,
        noise=1.0,
        seed=2022,
    )
    synthesize(folder, config)
    return folder


def run_method(
    method: Method, corpus: Path, truth: dict[str, Video], out: Path, full: bool, seed: int, device: str
) -> dict[str, Any]:
    """Pre-trains, extracts, trains the head, predicts and evaluates one encoder."""
    result = out / "results" / f"{method.key}.json"
    cfg = replace(method.recipe(), seed=seed, device=device)
    if full and cfg.optim.max_steps:
        cfg = recipes.with_optim(cfg, max_steps=8 * cfg.optim.max_steps)
    if result.exists():
        return json.loads(result.read_text("utf-8"))
    labels = read_labels(corpus / "trimmed.csv") if cfg.method == "supervised" else None
    outcome = pretrain(cfg, corpus / "trimmed", out / "runs" / method.key, labels)
    if not outcome.finished:
        raise KeyboardInterrupt
    store = out / "features" / method.key
    extract_folder(out / "runs" / method.key, corpus / "untrimmed", store, interval=INTERVAL, batch=64, device=device)
    head = localize.LocalizeConfig(seed=seed, device=device)
    run = out / "localizers" / method.key
    localize.train_bmn(head if full else localize.small(head), store, corpus / "annotations.json", run)
    scores = evaluate_run(run, store, truth, out / "found", method.key)
    pairs, clips = budget(cfg, outcome.steps)
    record = scores | {
        "pairs": pairs,
        "clips": clips,
        "seconds": round(outcome.seconds, 1),
        "steps": outcome.steps,
        "seed": seed,
    }
    with atomic_write(result) as file:
        json.dump(record, file, indent=1)
    return record


def evaluate_run(run: Path, store: Path, truth: dict[str, Video], found: Path, name: str) -> dict[str, Any]:
    """Detection mAP and proposal recall of one localizer on the validation videos; predictions are kept."""
    localizer = localize.load_localizer(run)
    features = localize.read_all(FeatureStore(store), list(truth))
    detections = localize.predict(localizer, features)
    proposals = localize.predict(localizer, features, proposals_only=True)
    write_detections(found / f"{name}_detections.json", detections)
    write_detections(found / f"{name}_proposals.json", proposals)
    # a class may lack test videos, and predictions of it are wrong wherever they are
    precision = detection_map(truth, detections, unknown_labels="false-positive").to_json()
    recall = proposal_recall(truth, proposals).to_json()
    return {"average_mAP": precision["average_mAP"], "mAP": precision["mAP"], "AUC": recall["AUC"], "AR": recall["AR"]}


def budget(cfg: recipes.PretrainConfig, steps: int) -> tuple[int, int]:
    """Positive pairs compared and clips encoded by a run."""
    timeline = cfg.data.timeline
    samples = steps * cfg.optim.batch
    return (samples if cfg.method == "pal" else 0), samples * timeline.views * timeline.clips
