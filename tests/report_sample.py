"""A small report with everything in it, on a generated video: for the tests of the page and for looking at it."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from uptal.report import Column, Curve, HeatmapGrid, Measured, Report, Table, VideoPanel
from uptal.types import Detections, Segment, Timebase

FPS = 20
DURATION = 12.0
HOSTILE = "</script><script>window.stolen = 1</script><img src=x onerror=window.stolen=1>"
"""A label that does harm on a page that does not escape it."""
TRUTH = (Segment(1.5, 4.0, "wave"), Segment(7.0, 9.5, "turn"))
BASE = Timebase(fps=float(FPS), stride=4.0, window=8.0)
NUM_CLIPS = 59


def write_clip(
    path: Path, *, size: tuple[int, int] = (320, 180), seconds: float = DURATION, codec: str = "libx264"
) -> Path:
    """A disc that swings slowly, and fast during the truth; brightness rises with time so that frames tell when."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(round(seconds * FPS)):
            image = np.empty((height, width, 3), np.uint8)
            image[:] = (y / height * 60 + 40 + 90 * index / (seconds * FPS))[..., None] * np.array([0.8, 0.95, 1.1])
            image[_disc(x / width, y / width, index / FPS)] = (245, 190, 80)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))
    return path


def _disc(x: np.ndarray, y: np.ndarray, time: float) -> np.ndarray:
    busy = any(one.start <= time < one.end for one in TRUTH)
    centre = 0.5 + 0.35 * np.sin(time * (9.0 if busy else 1.5))
    return (x - centre) ** 2 + (y - 0.28) ** 2 < 0.004


def similarity(sharpness: float, truth: tuple[Segment, ...] = TRUTH, seed: int = 0) -> np.ndarray:
    """Cosines of made-up clip features: action and background lie `sharpness` apart, with slow drift and noise."""
    rng = np.random.default_rng(seed)
    centres = np.array([BASE.centre(float(index)) for index in range(NUM_CLIPS)])
    inside = np.array([any(one.start <= time < one.end for one in truth) for time in centres], dtype=float)
    drift = np.cumsum(rng.normal(size=(NUM_CLIPS, 6)), axis=0) / 12
    features = np.concatenate([sharpness * inside[:, None], drift, np.ones((NUM_CLIPS, 1))], axis=1)
    features += rng.normal(size=features.shape) * 0.08
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features @ features.T


def predictions(count: int = 24, seed: int = 1) -> Detections:
    """The truth with small errors and high scores, then rivals with lower ones."""
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0, DURATION - 2, count)
    segments = np.stack([starts, starts + rng.uniform(0.5, 3, count)], axis=1)
    segments[0], segments[1] = (1.4, 4.2), (7.2, 9.4)
    scores = np.sort(rng.uniform(0.05, 0.6, count))[::-1].copy()
    scores[:2] = 0.93, 0.81
    labels = ("wave", "turn", *rng.choice(["wave", "turn", "jump"], count - 2).tolist())
    return Detections(segments, scores, labels)


def panel(video: Path, **changes) -> VideoPanel:
    """A panel with everything on it."""
    values = {
        "id": video.stem,
        "video_path": video,
        "duration": DURATION,
        "truth": TRUTH,
        "predictions": predictions(),
        "similarity": similarity(1.6),
        "timebase": BASE,
        "note": "Score: BMN proposal times the class score of the video.",
    }
    return VideoPanel(**(values | changes))


def comparison() -> Table:
    """Four ways to make features, one clear winner in the first column and none in the second."""
    return Table(
        title="Detection on the built-in corpus",
        columns=(
            "pre-training",
            Column("average mAP", "higher"),
            Column("AUC", "higher"),
            Column("pairs", digits=0),
            Column("seconds", digits=0),
        ),
        rows=(
            ("random initialisation", Measured(12.3, 1.1), Measured(41.2, 0.9), 0, 0.0),
            ("MoCo-v2 on video", Measured(18.9, 1.4), Measured(47.0, 1.2), 20480, 61.2),
            ("PAL", Measured(25.1, 1.0), Measured(48.9, 1.1), 20480, 92.4),
            ("supervised classification (TAC)", Measured(17.2, 0.8), Measured(46.1, 1.0), None, 44.8),
        ),
        note="Same localizer, same corpus, five seeds.",
    )


def curves() -> list[Curve]:
    """A loss and an accuracy over 2000 steps."""
    steps = np.arange(2000)
    noise = np.random.default_rng(2).normal(size=2000)
    loss = {
        "PAL": (steps, 4.5 * np.exp(-steps / 500) + 2.1 + noise * 0.12),
        "MoCo-v2": (steps, 3.9 * np.exp(-steps / 320) + 2.6 + noise * 0.1),
        "chance, log(K + 1)": ([0, 1999], [6.93, 6.93]),
    }
    accuracy = {
        "PAL": (steps, np.clip(0.8 * (1 - np.exp(-steps / 600)) + noise * 0.01, 0, 1)),
        "MoCo-v2": (steps, 0.6 * (1 - np.exp(-steps / 300))),
    }
    return [
        Curve(title="Loss", x_label="step", y_label="InfoNCE loss", series=loss, note="Every step of both."),
        Curve(title="Accuracy", x_label="step", y_label="share of keys found", series=accuracy),
    ]


def figure3() -> HeatmapGrid:
    """Three encoders and three versions of a video."""
    original, shorter, longer = (Segment(4.0, 7.0),), (Segment(2.0, 3.5),), (Segment(5.5, 11.5),)
    columns = (original, shorter, longer)
    return HeatmapGrid(
        title="Figure 3: do features follow the action?",
        row_names=("random", "MoCo-v2", "PAL"),
        column_names=("original", "2× down-sampled, moved back", "2× up-sampled, moved on"),
        maps=[[similarity(sharp, truth, 5) for truth in columns] for sharp in (0.15, 0.6, 2.0)],
        truth=columns,
        timebase=BASE,
        note="Cosine similarity of all pairs of clips of one test video; green marks where the action lies.",
    )


def sample_report(video: Path, *more: VideoPanel) -> Report:
    """A page with one of each section."""
    return Report(
        title="Detections in swing.mp4",
        summary=("24 segments were found, 2 are annotated.", "Features: PAL, slim encoder, one clip every 0.2 s."),
        sections=(panel(video), *more, comparison(), *curves(), figure3()),
        facts={"seed": 0, "versions": {"uptal": "0.1.0", "torch": "2.13.0"}, "command": "uptal detect RUN swing.mp4"},
    )
