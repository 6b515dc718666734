"""The label-free part of the demo on one's own videos: pre-training, features, similarity maps, a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from uptal import video
from uptal.errors import ConfigError, VideoError
from uptal.features import FeatureStore
from uptal.recipes import pretrain as recipes
from uptal.recipes.demo_page import INTERVAL
from uptal.recipes.extracting import ExtractConfig, extract_folder
from uptal.recipes.running import pretrain
from uptal.report import Report, Section, VideoPanel, write_report
from uptal.run import environment
from uptal.similarity import self_similarity
from uptal.synthetic import CorpusConfig, synthesize

SHOWN = 8
"""Videos on the page; all are embedded in it."""


def demo_videos(out: Path, videos: Path, *, steps: int = 60, seed: int = 0, device: str = "auto") -> Path:
    """The label-free part on one's own videos: a short PAL pre-training on them, features, similarity maps, a page.

    Fewer than three videos cannot be pasted onto each other; then the encoder is trained on the built-in corpus.
    """
    paths = video.find_videos(videos)
    readable = [path for path in paths if _readable(path)]
    if not readable:
        raise ConfigError(
            f"None of the {len(paths)} videos in {videos} can be read; `uptal doctor data --videos {videos}` says why."
        )
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
    how = ExtractConfig(interval=INTERVAL, batch=64, max_bad=1.0, device=device)
    extract_folder(out / "run", videos, out / "features", how)
    store = FeatureStore(out / "features")
    page = out / "report.html"
    report = Report(
        title="Your videos, as an encoder trained without labels sees them",
        summary=[_own_words(own, len(readable), len(paths), outcome.steps * batch)],
        sections=_similarity_panels(store, readable[:SHOWN]),
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
    trained = (
        f"on these {readable} videos" if own else "on the built-in corpus, since pasting needs at least three videos,"
    )
    return (
        f"{readable} of {total} videos could be read. The encoder was trained with PAL {trained} for {pairs:,} pairs: "
        "a taste, not a model. Bright squares along the diagonal are stretches whose clips resemble each other; their "
        "corners are where something changes."
        + (f" The page shows the first {SHOWN} videos." if readable > SHOWN else "")
        + " With annotations, uptal train bmn turns the same features into a detector."
    )


def _readable(path: Path) -> bool:
    try:
        video.probe(path)
    except VideoError:
        return False
    return True
