"""The whole story on one page: corpus, four encoders, features, BMN on each, evaluation, Figure 3, detections.

Everything is the real thing at a small size: encoded videos, the paper's pretext task, the real localizer and the official
metrics. The numbers are whatever came out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uptal import video
from uptal.annotations import read_activitynet, read_labels, write_detections
from uptal.clips import extraction_frames
from uptal.encoders import load_encoder
from uptal.errors import ConfigError, VideoError
from uptal.features import FeatureStore, encode
from uptal.files import atomic_write
from uptal.metrics import detection_map, proposal_recall
from uptal.recipes import localize
from uptal.recipes import pretrain as recipes
from uptal.recipes.detecting import panel, visible
from uptal.recipes.extracting import extract_folder
from uptal.recipes.running import pretrain
from uptal.report import Column, Curve, HeatmapGrid, Report, Section, Table, VideoPanel, write_report
from uptal.run import RunFolder, environment
from uptal.similarity import down_sample_and_move_backward, self_similarity, up_sample_and_move_forward
from uptal.synthetic import CorpusConfig, synthesize
from uptal.train import choose_device
from uptal.types import Segment, Timebase, Video

INTERVAL = 8
"""Frames from one clip to the next: the corpus's actions are short."""


@dataclass(frozen=True)
class Method:
    """One encoder of the comparison."""

    key: str
    title: str
    recipe: Callable[[], recipes.PretrainConfig]


METHODS = (
    Method("random", "Random initialisation", recipes.demo_random),
    Method("moco", "MoCo-v2 (row #0)", recipes.demo_moco),
    Method("pal", "PAL (ours to reproduce)", recipes.demo),
    Method("tac", "TAC (supervised, labels)", recipes.demo_tac),
)


def demo(out: Path, *, full: bool = False, seed: int = 0, device: str = "auto") -> dict[str, Any]:
    """Runs the story into `out`; finished parts are kept, so an interrupted demo goes on where it was.

    Args:
        out: Folder for everything: corpus, runs, features, results.json, report.html.
        full: The full-size BMN, four times the videos and eight times the steps; hours on a CPU.
        seed: Seed of encoders and heads; the corpus has its own.
        device: `auto`, `cpu`, `cuda`.
    """
    clock = time.perf_counter()
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
    report = Report(title="uptal demo: does pre-training help to localise?", summary=summary, sections=sections, facts=facts)
    for message in write_report(out / "report.html", report):
        print(message)
    print(f"[{60 * minutes:4.0f} s] done\n\n{finding(results)}\n\nNumbers: {out / 'results.json'}\nPage:    {out / 'report.html'}")
    return results


BUDGET = (
    "Minutes on a laptop are thousands of training pairs; the paper used some 48 million. At this size contrastive methods "
    "have hardly begun to learn, PAL later than MoCo, because a paste puts another video into every positive pair. Read the "
    "table as a check that every part works, not as a verdict on the method. One seed: differences of a few points are noise."
)


def make_corpus(folder: Path, full: bool) -> Path:
    """The demo's own corpus; its seed is used by no other experiment."""
    scale = 4 if full else 1
    config = CorpusConfig(num_trimmed=200 * scale, num_untrimmed=80 * scale, seed=2022)
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
    record = scores | {"pairs": pairs, "clips": clips, "seconds": round(outcome.seconds, 1), "steps": outcome.steps, "seed": seed}
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
    precision = detection_map(truth, detections, unknown_labels="false-positive").to_json()  # a class may lack test videos
    recall = proposal_recall(truth, proposals).to_json()
    return {"average_mAP": precision["average_mAP"], "mAP": precision["mAP"], "AUC": recall["AUC"], "AR": recall["AR"]}


def budget(cfg: recipes.PretrainConfig, steps: int) -> tuple[int, int]:
    """Positive pairs compared and clips encoded by a run."""
    timeline = cfg.data.timeline
    samples = steps * cfg.optim.batch
    return (samples if cfg.method == "pal" else 0), samples * timeline.views * timeline.clips


def comparison(results: dict[str, Any]) -> Table:
    """The table of the four encoders, budgets in every row."""
    columns = [
        "Encoder",
        Column("average mAP", "higher"),
        Column("mAP@0.5", "higher"),
        Column("AR@1", "higher"),
        Column("AR@10", "higher"),
        Column("AUC", "higher"),
        Column("pairs", digits=0),
        Column("clips", digits=0),
        Column("seconds", digits=0),
    ]
    rows = [
        [
            method.title,
            100 * row["average_mAP"],
            100 * row["mAP"]["0.50"],
            100 * row["AR"]["1"],
            100 * row["AR"]["10"],
            100 * row["AUC"],
            row["pairs"],
            row["clips"],
            row["seconds"],
        ]
        for method in METHODS
        for row in [results[method.key]]
    ]
    note = (
        "Frozen features, the same reduced BMN on each, official ActivityNet metrics in per cent, one seed. Pairs: positive "
        "pairs seen in pre-training; clips: clips encoded; seconds: pre-training time."
    )
    return Table(title="Which features localise?", columns=columns, rows=rows, note=note)


def finding(results: dict[str, Any]) -> str:
    """What was found, in two sentences, favourable or not."""
    pal, others = results["pal"], {m.key: results[m.key] for m in METHODS if m.key != "pal"}
    order = sorted(METHODS, key=lambda m: -results[m.key]["AUC"])
    ranking = " > ".join(f"{m.key} {100 * results[m.key]['AUC']:.1f}" for m in order)
    beaten = [key for key, row in others.items() if pal["AUC"] > row["AUC"]]
    verdict = f"PAL is above {' and '.join(beaten)}" if beaten else "PAL is below every other encoder"
    return f"Proposal AUC: {ranking}. {verdict} after {pal['pairs']:,} pairs and {pal['seconds']:.0f} s of pre-training."


def loss_curves(out: Path) -> Curve:
    """Training loss of every run that trained."""
    series = {}
    for method in METHODS:
        lines = [line for line in RunFolder(out / "runs" / method.key).read_log() if "loss" in line]
        if lines:
            series[method.title] = ([line["step"] for line in lines], [line["loss"] for line in lines])
    note = "Losses of different methods have different floors and cannot be compared with each other."
    return Curve(title="Pre-training", x_label="step", y_label="loss", series=series, note=note)


def figure_three(corpus: Path, truth: dict[str, Video], out: Path, seed: int, device: str) -> HeatmapGrid:
    """The paper's Figure 3 for one test video: similarity maps of the original and of two edits, for every encoder."""
    chosen = most_central(truth)
    path = corpus / "untrimmed" / f"{chosen.id}.mp4"
    info = video.probe(path)
    segment = chosen.segments[0]
    action = (round(segment.start * info.fps), min(info.num_frames, round(segment.end * info.fps)))
    rng = np.random.default_rng([seed, 3])
    edits = [down_sample_and_move_backward(info.num_frames, action, rng), up_sample_and_move_forward(info.num_frames, action, rng)]
    versions = [(np.arange(info.num_frames), action), *((edit.frames, edit.action) for edit in edits)]
    maps = [[similarity_of(out / "runs" / m.key, path, frames, device) for frames, _ in versions] for m in METHODS]
    clip = load_encoder(out / "runs" / "pal").clip
    return HeatmapGrid(
        title="Do features follow an action that moves and changes speed?",
        row_names=[m.title for m in METHODS],
        column_names=["Original", "Action 2x faster, earlier", "Action 2x slower, later"],
        maps=maps,
        truth=[[Segment(start / info.fps, end / info.fps, segment.label)] for _, (start, end) in versions],
        timebase=Timebase(fps=info.fps, stride=float(INTERVAL), window=float(clip.frames * clip.stride)),
        note=f"Figure 3 of the paper for the test video {chosen.id}: cosine similarity of every pair of clips, features "
        "centred per video; bars mark the action. A feature that follows the action shows one bright square on the bar.",
    )


def most_central(truth: dict[str, Video]) -> Video:
    """The video with one instance that leaves most room on both sides."""
    def room(v: Video) -> float:
        return min(v.segments[0].start, v.duration - v.segments[0].end) + 0.5 * v.segments[0].duration

    single = [v for v in truth.values() if len(v.segments) == 1] or [v for v in truth.values() if v.segments]
    return max(single, key=room)


def similarity_of(run: Path, path: Path, frames: np.ndarray, device: str) -> np.ndarray:
    """Self-similarity of the clips of an edited video, given as a list of frames of the original."""
    saved = load_encoder(run)
    clip = saved.clip
    pictures = video.read(path, frames.tolist(), clip.resize)
    top, left = (pictures.shape[2] - clip.size) // 2, (pictures.shape[3] - clip.size) // 2
    pictures = pictures[:, :, top : top + clip.size, left : left + clip.size]
    clips = pictures[torch.from_numpy(extraction_frames(len(frames), clip.frames, clip.stride, INTERVAL))]
    target = choose_device(device)
    return self_similarity(encode(saved.encoder.to(target), clips, clip, target).numpy(), centre=True)


def detection_panels(corpus: Path, truth: dict[str, Video], out: Path) -> list[Section]:
    """Two test videos with what PAL's and TAC's features led to."""
    first = [most_central(truth), *sorted(truth.values(), key=lambda v: -len(v.segments))[:1]]
    panels: list[Section] = []
    for method in (m for m in METHODS if m.key in ("pal", "tac")):
        localizer = localize.load_localizer(out / "localizers" / method.key)
        store = FeatureStore(out / "features" / method.key)
        features = [store.read(v.id) for v in first]
        found = localize.predict(localizer, features)
        for v, read in zip(first, features, strict=True):
            made = panel(corpus / "untrimmed" / f"{v.id}.mp4", read, found[v.id], v, visible(found[v.id], None))
            panels.append(replace(made, id=f"{v.id} ({method.key})"))
    return panels


def demo_videos(out: Path, videos: Path, *, steps: int = 60, seed: int = 0, device: str = "auto") -> Path:
    """The label-free part on one's own videos: a short PAL pre-training on them, features, similarity maps, a page.

    Fewer than three videos cannot be pasted onto each other; then the encoder is trained on the built-in corpus.
    """
    paths = video.find_videos(videos)
    readable = [path for path in paths if _readable(path)]
    if not readable:
        raise ConfigError(f"None of the {len(paths)} videos in {videos} can be read; `uptal doctor data --videos {videos}` says why.")
    cfg = replace(recipes.demo(), seed=seed, device=device)
    own = len(readable) >= 3
    source = videos
    if not own:
        source = out / "corpus" / "trimmed"
        synthesize(out / "corpus", CorpusConfig(num_trimmed=60, num_untrimmed=0, seed=2022))
    batch = min(cfg.optim.batch, len(readable)) if own else cfg.optim.batch
    data = replace(cfg.data, max_bad=1.0)
    cfg = replace(cfg, data=data, optim=replace(cfg.optim, batch=batch, lr_batch=batch, max_steps=steps))
    outcome = pretrain(cfg, source, out / "run")
    if not outcome.finished:
        raise KeyboardInterrupt
    extract_folder(out / "run", videos, out / "features", interval=INTERVAL, batch=64, max_bad=1.0, device=device)
    store = FeatureStore(out / "features")
    page = out / "report.html"
    report = Report(
        title="Your videos, as an encoder trained without labels sees them",
        summary=[_own_words(own, len(readable), len(paths), outcome.steps * batch)],
        sections=_similarity_panels(store, readable[:8]),
        facts=environment() | {"seed": seed, "encoder": store.encoder_digest[:16], "features": store.digest()[:16]},
    )
    for message in write_report(page, report):
        print(message)
    print(f"{len(store.ids)} videos have features in {out / 'features'}\nPage: {page}")
    return page


def _similarity_panels(store: FeatureStore, paths: Sequence[Path]) -> list[Section]:
    panels: list[Section] = []
    for path in paths:
        if path.stem in store:
            read = store.read(path.stem)
            panels.append(
                VideoPanel(
                    id=path.stem,
                    video_path=path,
                    duration=read.duration,
                    similarity=self_similarity(read.values.numpy(), centre=True),
                    timebase=read.timebase,
                )
            )
    return panels


def _own_words(own: bool, readable: int, total: int, pairs: int) -> str:
    trained = f"on these {readable} videos" if own else "on the built-in corpus, since pasting needs at least three videos,"
    return (
        f"{readable} of {total} videos could be read. The encoder was trained with PAL {trained} for {pairs:,} pairs: a taste, "
        "not a model. Bright squares along the diagonal are stretches whose clips resemble each other; their corners are where "
        "something changes. With annotations, `uptal train bmn` turns the same features into a detector."
    )


def _readable(path: Path) -> bool:
    try:
        video.probe(path)
    except VideoError:
        return False
    return True
