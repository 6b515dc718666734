"""The label-free part of the demo on one's own videos: features, segments, similarity maps, a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from uptal import video
from uptal.encoders import DEFAULT
from uptal.errors import ConfigError, VideoError
from uptal.features import FeatureStore
from uptal.recipes import pretrain as recipes
from uptal.recipes.demo_page import INTERVAL
from uptal.recipes.detecting import panel, visible
from uptal.recipes.extracting import ExtractConfig, extract_folder
from uptal.recipes.running import pretrain
from uptal.recipes.segmenting import in_seconds
from uptal.report import Report, Section, write_report
from uptal.run import environment
from uptal.similarity import SegmentConfig
from uptal.synthetic import CorpusConfig, synthesize

SHOWN = 8
"""Videos on the page; all are embedded in it."""


def demo_videos(out: Path, videos: Path, *, steps: int | None = None, seed: int = 0, device: str = "auto") -> Path:
    """The label-free part on one's own videos: features, segments, similarity maps, a page.

    Args:
        out: Folder for everything.
        videos: Folder of the videos.
        steps: Length of a PAL pre-training on them; None takes the encoder that comes with the package. Fewer than
            three videos cannot be pasted onto each other; then the encoder is trained on the built-in corpus.
        seed: Seed of the training.
        device: `auto`, `cpu`, `cuda`.
    """
    paths = video.find_videos(videos)
    readable = [path for path in paths if _readable(path)]
    if not readable:
        raise ConfigError(
            f"None of the {len(paths)} videos in {videos} can be read; `uptal doctor data --videos {videos}` says why."
        )
    weights, trained = Path(DEFAULT), f"The encoder is {DEFAULT}, which comes with uptal: drawn videos, no labels."
    if steps is not None:
        weights, trained = out / "run", _train(out, videos, len(readable), steps, seed, device)
    how = ExtractConfig(interval=INTERVAL, batch=64, max_bad=1.0, device=device)
    extract_folder(weights, videos, out / "features", how)
    store = FeatureStore(out / "features")
    page = out / "report.html"
    report = Report(
        title="Your videos, as an encoder trained without labels sees them",
        summary=[_own_words(trained, len(readable), len(paths))],
        sections=_panels(store, readable[:SHOWN]),
        facts=environment() | {"seed": seed, "encoder": store.encoder_digest[:16], "features": store.digest()[:16]},
    )
    for message in write_report(page, report):
        print(message)
    print(f"{len(store.ids)} videos have features in {out / 'features'}\nPage: {page}")
    return page


def _panels(store: FeatureStore, paths: Sequence[Path]) -> list[Section]:
    panels: list[Section] = []
    for path in paths:
        if path.stem in store:
            read = store.read(path.stem)
            found = in_seconds(read, SegmentConfig())
            panels.append(panel(path, read, found, None, visible(found, None)))
    return panels


def _own_words(trained: str, readable: int, total: int) -> str:
    return (
        f"{readable} of {total} videos could be read. {trained} Bright squares along the diagonal are stretches whose "
        "clips resemble each other; their corners are where something changes. The segments are such stretches, with "
        "letters in the place of names; nothing here knows what an action is."
        + (f" The page shows the first {SHOWN} videos." if readable > SHOWN else "")
        + " With annotations, uptal train bmn turns the same features into a detector."
    )


def _train(out: Path, videos: Path, readable: int, steps: int, seed: int, device: str) -> str:
    """A short PAL pre-training into `out/run`; returns what was done, in a sentence."""
    cfg = replace(recipes.demo(), seed=seed, device=device)
    own = readable >= 3
    source = videos
    if not own:
        source = out / "corpus" / "trimmed"
        synthesize(out / "corpus", CorpusConfig(num_trimmed=60, num_untrimmed=0, seed=2022))
    batch = min(cfg.optim.batch, readable) if own else cfg.optim.batch
    data = replace(cfg.data, max_bad=1.0)
    cfg = replace(cfg, data=data, optim=replace(cfg.optim, batch=batch, lr_batch=batch, max_steps=steps))
    outcome = pretrain(cfg, source, out / "run")
    if not outcome.finished:
        raise KeyboardInterrupt
    trained = (
        f"on these {readable} videos" if own else "on the built-in corpus, since pasting needs at least three videos,"
    )
    pairs = outcome.steps * batch
    return f"The encoder was trained with PAL {trained} for {pairs:,} pairs: a taste, not a model."


def _readable(path: Path) -> bool:
    try:
        video.probe(path)
    except VideoError:
        return False
    return True
