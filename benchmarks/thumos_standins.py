"""The whole way of THUMOS'14, on its real annotations and on films that stand in for its videos.

Of every video that is used a film of the same name and length is drawn, in which a figure moves differently for each
class and at the times that the official files give; in between it moves idly. Everything after that is `uptal`'s
commands: an encoder learns the motions from trimmed clips of the built-in corpus, features are extracted, G-TAD (in the
form for THUMOS'14, in windows) and ActionFormer are trained on the validation videos and scored on the test videos.

It shows that the path works on the real files (ambiguous stretches, three videos that one ground truth lacks, cliff
dives that are listed twice) and says nothing about THUMOS'14 itself. Used are the shortest videos of each split, and
the three test videos that G-TAD's ground truth lacks. There are 12 motions for 19 kinds of action (a cliff dive is
filmed as the dive that it is, too): the last seven repeat the first seven with an object in the hands. An ambiguous
stretch is filmed as the video's most frequent action.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from uptal.annotations import AMBIGUOUS, read_annotations
from uptal.annotations.thumos import CLASS_IDS
from uptal.files import atomic_write
from uptal.run import environment
from uptal.synthetic import ACTIONS, CorpusConfig
from uptal.synthetic import render as drawing
from uptal.synthetic.corpus import encode
from uptal.synthetic.motion import Instance, move
from uptal.synthetic.script import Script, rng_for, write_script
from uptal.types import Segment, Video

FPS = 12
CORPUS = CorpusConfig(
    num_trimmed=240, num_untrimmed=0, size=64, fps=FPS, num_classes=len(ACTIONS), trimmed_frames=40,
    max_trimmed_idle=0.1, instance_frames=(8, 40), period_frames=(8.0, 11.0), style=0.15, amplitude_drift=0.15,
    figure_height=(0.6, 0.7), scene_bank=12, camera_motion=0.5, max_distractors=1, noise=1.0, seed=14,
)  # fmt: skip
"""How films and trimmed clips are drawn: as in the demo, at 12 frames a second."""
KINDS = [label for label in CLASS_IDS if label != "CliffDiving"]
SHORTEST = 4
"""Frames below which a stretch is not filmed; what is left of stretches that overlap may be as short."""
PROTOCOLS = ("thumos14", "thumos14-gtad", "thumos14-devkit", "thumos14-devkit-updated")
HEADS = {
    "gtad": ["gtad", "--recipe", "thumos14", "--gtad.num_steps", "64", "--gtad.max_duration", "48", "--gtad.longest",
             "null", "--gtad.hidden", "[64, 32, 128]", "--gtad.groups", "16", "--gtad.inner", "8", "--gtad.context",
             "4", "--cut.tail", "0", "--optim.lr", "0.001", "--optim.epochs", "16", "--optim.milestones", "[12]",
             "--class_scores", "segment"],
    "actionformer": ["actionformer", "--small", "--optim.batch", "4", "--optim.lr_batch", "4", "--optim.lr", "0.001",
                     "--optim.epochs", "40", "--optim.warmup_epochs", "4"],
}  # fmt: skip
"""Reduced recipes, chosen before the first run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with temporal_annotations_* and *_durations.txt"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for films, features and runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file with the results")
    parser.add_argument("--validation", type=int, default=60, help="videos to learn from")
    parser.add_argument("--test", type=int, default=40, help="videos to test on, beside the three that are absent")
    parser.add_argument("--seed", type=int, default=0, help="of encoder and localizers; the films have their own")
    options = parser.parse_args()
    truth, work = read_annotations(options.data), options.work
    chosen = choose(truth, lengths(options.data), options.validation, options.test)
    clock = Clock()
    films = clock("films", film_all, chosen, work / "films")
    train, seed = work / "annotations.json", ["--seed", str(options.seed)]
    uptal("doctor", "annotations", options.data, "--drop-labels", AMBIGUOUS, "--write", train)
    shape = [f"--{name}={plain}" for name, plain in settings_of(CORPUS)]
    clock("trimmed clips", uptal, "synthesize", "--out", work / "corpus", "--workers", 1, *shape)
    clock("encoder", uptal, "pretrain", "demo_tac", "--videos", work / "corpus" / "trimmed", "--labels",
          work / "corpus" / "trimmed.csv", "--run", work / "encoder", "--device", "cpu", *seed)  # fmt: skip
    store = work / "store"
    clock("features", uptal, "extract", "--weights", work / "encoder", "--videos", work / "films", "--out", store,
          "--interval", 4, "--threads", 1, "--device", "cpu")  # fmt: skip
    results = {}
    for name, recipe in HEADS.items():
        run = work / f"{name}-{options.seed}"
        clock(name, uptal, "train", *recipe, "--features", store, "--annotations", train, "--run", run,
              "--subset", "validation", "--device", "cpu", *seed)  # fmt: skip
        test, fit, proposals = (work / f"{name}-{options.seed}-{what}.json" for what in ("test", "fit", "proposals"))
        ask = ("predict", run, "--features", store, "--device", "cpu", "--annotations", options.data)
        uptal(*ask, "--subset", "test", "--out", test)
        uptal(*ask, "--subset", "test", "--proposals", "--out", proposals)
        uptal(*ask, "--subset", "validation", "--out", fit)
        results[name] = {protocol: scored(options.data, test, protocol) for protocol in PROTOCOLS}
        results[name]["proposals, thumos14"] = scored(options.data, proposals, "thumos14", task="proposals")
        results[name]["on the training videos, thumos14"] = scored(options.data, fit, "thumos14", "validation")
    record = {
        "seed": options.seed,
        "videos": films | {subset: count(chosen, subset) for subset in ("validation", "test")},
        "corpus": dict(settings_of(CORPUS)),
        "recipes": HEADS,
        "seconds": clock.seconds,
        "results": results,
        "environment": {name: value for name, value in environment().items() if name != "command"},
    }
    with atomic_write(options.out) as file:
        json.dump(record, file, indent=1)


class Clock:
    """Seconds of every step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, do: Any, *arguments: Any) -> Any:
        begin = time.perf_counter()
        result = do(*arguments)
        self.seconds[name] = round(time.perf_counter() - begin, 1)
        print(f"{name}: {self.seconds[name]} s", flush=True)
        return result


def uptal(*arguments: Any) -> None:
    """One command, as a user would give it."""
    subprocess.run([sys.executable, "-m", "uptal", *map(str, arguments)], check=True)


def lengths(data: Path) -> dict[str, float]:
    """Seconds of every video, from files that alternate between a name and a length."""
    found = {}
    for split in ("validation", "test"):
        lines = (data / f"{split}_durations.txt").read_text("utf-8").split()
        found |= {Path(name).stem: float(length) for name, length in zip(lines[::2], lines[1::2], strict=True)}
    return found


def choose(truth: dict[str, Video], seconds: dict[str, float], validation: int, test: int) -> list[Video]:
    """The shortest videos of each split, and the three that G-TAD's ground truth lacks, with their lengths."""
    from uptal.recipes.protocols import PROTOCOLS as RULES

    videos = sorted((replace(v, duration=seconds[id]) for id, v in truth.items()), key=lambda v: (v.duration, v.id))
    absent = [video for video in videos if video.id in RULES["thumos14-gtad"].absent]
    others = [video for video in videos if video not in absent]
    parts = {"validation": validation, "test": test}
    return absent + [video for name, n in parts.items() for video in [v for v in others if v.subset == name][:n]]


def count(videos: list[Video], subset: str) -> dict[str, Any]:
    """What there is in the chosen videos of a split."""
    mine = [video for video in videos if video.subset == subset]
    labels = Counter(str(segment.label) for video in mine for segment in video.segments)
    return {"videos": len(mine), "seconds": round(sum(v.duration for v in mine), 1), "instances": dict(labels)}


def film_all(videos: list[Video], folder: Path) -> dict[str, int]:
    """Draws all films that are not there yet; how many frames, and how many stretches could not be filmed."""
    frames, left_out = 0, 0
    for index, video in enumerate(sorted(videos, key=lambda each: each.id)):
        cast = instances(video)
        frames += num_frames(video)
        left_out += len(video.segments) - len(cast)
        if not (folder / f"{video.id}.mp4").exists():
            with atomic_write(folder / f"{video.id}.mp4", "wb") as file:
                encode(file, film(video, cast, index), fps=FPS, crf=CORPUS.crf)
    return {"frames": frames, "stretches_not_filmed_or_joined": left_out}


def num_frames(video: Video) -> int:
    """Frames of a video's film."""
    return round(video.duration * FPS)


def instances(video: Video) -> list[Instance]:
    """What is filmed when: stretches in the order of their starts, cut where the one before still goes on, and at the
    end of the video, behind which some annotations lie."""
    names = Counter(kind(segment) for segment in video.segments if segment.label != AMBIGUOUS)
    usual = names.most_common(1)[0][0] if names else 0
    found: list[Instance] = []
    for segment in sorted(video.segments, key=lambda each: (each.start, each.end)):
        start = max(round(segment.start * FPS), found[-1].end if found else 0)
        end = min(round(segment.end * FPS), num_frames(video))
        if end - start >= SHORTEST:
            found.append(Instance(start, end, usual if segment.label == AMBIGUOUS else kind(segment)))
    return found


def kind(segment: Segment) -> int:
    """The place of an action in the list of those that look different."""
    return KINDS.index("Diving" if segment.label == "CliffDiving" else str(segment.label))


def film(video: Video, cast: list[Instance], index: int):
    """Frames of a film, RGB (F, H, W, 3)."""
    cfg = replace(CORPUS, untrimmed_frames=num_frames(video), max_instances=1)
    plan: Script = write_script(cfg, "untrimmed", index)  # scene, camera and light; the actor is told below
    motions = [replace(each, label=each.label % len(ACTIONS)) for each in cast]
    held = Counter(each.label for each in cast if each.label >= len(ACTIONS)).most_common(1)
    plan = replace(
        plan,
        video=video,
        instances=tuple(motions),
        poses=move(motions, plan.num_frames, cfg, rng_for(cfg, "untrimmed", index, 2)),
        prop=held[0][0] if held else None,
    )
    return drawing.render_script(plan, cfg, rng_for(cfg, "untrimmed", index, 5))


def settings_of(cfg: CorpusConfig) -> list[tuple[str, Any]]:
    """What differs from the corpus's defaults, as options of `uptal synthesize`."""
    default, options = CorpusConfig(), {"num_trimmed": "trimmed", "num_untrimmed": "untrimmed"}
    pairs = [(name, value) for name, value in vars(cfg).items() if value != getattr(default, name)]
    return [(options.get(name, name), list(v) if isinstance(v, tuple) else v) for name, v in pairs]


def scored(data: Path, found: Path, protocol: str, subset: str = "test", task: str = "detection") -> dict[str, Any]:
    """What `uptal evaluate` says: of all videos of the split, and of those that were filmed."""
    out = found.with_suffix(f".{protocol}.scores.json")
    uptal(
        "evaluate", task, "--truth", data, "--found", found, "--protocol", protocol, "--subset", subset, "--json", out
    )
    record = json.loads(out.read_text("utf-8"))
    names = ("mAP", "average_mAP", "AR", "AUC", "videos", "without_missing_videos", "ground_truth", "counts")
    kept = {name: record[name] for name in names if name in record}
    kept["ground_truth"] = {name: kept["ground_truth"][name] for name in ("ambiguous", "absent_videos")}
    return kept


if __name__ == "__main__":
    main()
