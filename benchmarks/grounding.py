"""Video grounding: does LGI use the video (margin), and where does its time go (speed)?

    python benchmarks/grounding.py margin [--out FILE]            three seeds on sentences of the built-in corpus
    python benchmarks/grounding.py margin --encoder tac           the same with features that an encoder sees
    python benchmarks/grounding.py margin --demo demo             the same with what a finished demo has left
    python benchmarks/grounding.py margin --text FOLDER           the same with words of a sentence encoder
    python benchmarks/grounding.py speed [--out FILE]             real widths on 2,000 made-up queries

`margin`: the same small LGI with the videos' own features, and with those of other videos, which leave it nothing but
the sentence and where intervals usually lie. By default the features are told, not seen: one-hot class of each clip
under Gaussian noise. So the numbers say whether the head can ground, not how good an encoder is. With `--encoder` the
corpus is drawn, as easy to see as the demo's, and features come from the demo's encoder of that name (tac: trained with
labels on trimmed videos; random: not trained), one encoder for all seeds of the head. That takes minutes. `--demo`
takes features (default: tac) and sentences from the folder of `make demo`: fewer, and of one class a video.

`speed`: CPU seconds of whole training steps and of whole evaluation, each beside the same batches' convolutions or
forward pass alone, in turns in one run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from uptal.annotations import read_labels
from uptal.features import Features, FeatureStore
from uptal.files import atomic_write
from uptal.localizers.lgi import LGI
from uptal.localizers.lgi_task import GroundingData, GroundingTask, QueryBatcher
from uptal.localizers.queries import Vocabulary
from uptal.localizers.text import VocabularyText
from uptal.recipes import lgi as recipes
from uptal.recipes.demo import demo_corpus
from uptal.recipes.demo_page import METHODS
from uptal.recipes.extracting import ExtractConfig, extract_folder
from uptal.recipes.grounding import train_grounder
from uptal.recipes.questions import answer
from uptal.recipes.running import pretrain
from uptal.run import environment
from uptal.synthetic import CorpusConfig, annotate, synthesize
from uptal.synthetic.sentences import write_queries
from uptal.types import Query, Timebase

SEEDS = (0, 1, 2)
CORPUS = CorpusConfig(
    num_untrimmed=240,
    num_classes=6,
    classes_per_video=3,
    untrimmed_frames=256,
    instance_frames=(24, 70),
    seed=77,
)
INTERVAL = 8
SCREENPLAY = (
    "num_untrimmed", "num_classes", "classes_per_video", "untrimmed_frames", "instance_frames", "seed",
)  # fmt: skip
"""What decides sentences; the rest of a corpus is how it looks."""
NOBODY = {"encoder_digest": "told", "interval": INTERVAL, "decoder": "none", "preprocessing": {"frames": 8}}
"""A store that no encoder has made."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["margin", "speed"])
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    parser.add_argument("--encoder", choices=["tac", "random"], help="margin: features of the demo's encoder")
    parser.add_argument("--demo", type=Path, help="margin: folder of a finished demo")
    parser.add_argument("--text", type=Path, help="margin: folder of a sentence encoder (extra `text`)")
    parser.add_argument("--work", type=Path, help="margin: where corpus, features and runs stay; default: nowhere")
    parser.add_argument("--queries", type=int, default=2000, help="speed: queries that the epoch is made of")
    parser.add_argument("--steps", type=int, default=2, help="speed: steps that are measured")
    parser.add_argument("--batch", type=int, default=100, help="speed: queries a step")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    record = margin(parsed) if parsed.what == "margin" else speed(parsed.queries, parsed.steps, parsed.batch)
    record["environment"] = environment()
    print(json.dumps(record, indent=1))
    if parsed.out:
        with atomic_write(parsed.out) as file:
            json.dump(record, file, indent=1)


def margin(options: argparse.Namespace) -> dict[str, Any]:
    """R@1 and mIoU on validation sentences with own and with shuffled features."""
    rows: dict[str, list[dict[str, float]]] = {"own features": [], "features of another video": []}
    with tempfile.TemporaryDirectory() as folder:
        place = options.work or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        if options.demo:
            shutil.copyfile(options.demo / "corpus" / "queries.csv", place / "queries.csv")
        else:
            write_queries(place / "queries.csv", CORPUS)
        lines = (place / "queries.csv").read_text("utf-8").splitlines(keepends=True)
        (place / "test.csv").write_text("".join([lines[0], *(x for x in lines if x.endswith("validation\n"))]), "utf-8")
        if options.demo:
            about = shown(place, options.demo, options.encoder or "tac")
        else:
            about = seen(place, options.encoder) if options.encoder else told(place)
        for seed in SEEDS:
            for name, store in zip(rows, ("own", "other"), strict=True):
                run = place / f"{store}{seed}"
                cfg = settings(seed, options.text, epochs=70 if options.demo else 25)
                train_grounder(cfg, place / store, place / "queries.csv", run, test=place / "test.csv")
                scores = json.loads((run / "selection.json").read_text("utf-8"))["test"]
                picked = {"mIoU": scores["selected"]["mIoU"], "last mIoU": scores["last"]["mIoU"]}
                picked |= {f"R@1, {at}": value for at, value in scores["selected"]["R@1"].items()}
                picked |= {f"R@5, {at}": value for at, value in scores["selected"]["R@5"].items()}
                rows[name].append({"seed": seed, **picked})
                print(name, rows[name][-1], flush=True)
    means = {
        name: {key: float(np.mean([r[key] for r in some])) for key in some[0] if key != "seed"}
        for name, some in rows.items()
    }
    gaps = [a["R@1, 0.5"] - b["R@1, 0.5"] for a, b in zip(*rows.values(), strict=True)]
    return {
        "features": about,
        "words": "scratch" if options.text is None else f"sentence encoder {options.text.resolve().parent.name}",
        "queries": len(lines) - 1,
        "runs": rows,
        "means": means,
        "R@1 at 0.5, lead of each seed": gaps,
        "R@1 at 0.5, smallest lead": min(gaps),
    }


def settings(seed: int, text: Path | None, epochs: int) -> recipes.LGISettings:
    """The small recipe with larger and fewer steps: about 280, of the demo's sentences as of the others."""
    cfg = recipes.small()
    words = cfg.text if text is None else replace(cfg.text, kind="encoder", encoder=str(text))
    optim = replace(cfg.optim, lr=2e-3, batch=40, lr_batch=40, epochs=epochs)
    return replace(cfg, seed=seed, optim=optim, text=words)


def told(place: Path, noise: float = 0.4) -> str:
    """Stores of features that tell the class of each clip, the videos' own and of others; returns what they are."""
    store = FeatureStore.create(place / "own", {**NOBODY, "width": 16})
    base = Timebase(fps=float(CORPUS.fps), stride=8.0, window=8.0)
    for index in range(CORPUS.num_untrimmed):
        video = annotate(CORPUS, "untrimmed", index)
        values = noise * np.random.default_rng([5, index]).standard_normal((CORPUS.untrimmed_frames // 8, 16))
        for step in range(len(values)):
            for segment in video.segments:
                if segment.start <= base.centre(step) < segment.end:
                    values[step, CORPUS.labels.index(str(segment.label))] += 1
        store.write(Features(video.id, torch.from_numpy(values).float(), base, video.duration))
    swap(store, place / "other")
    return f"told: one-hot class of each clip plus noise of standard deviation {noise}"


def seen(place: Path, key: str) -> str:
    """The same with the features of one of the demo's encoders on the drawn corpus."""
    method = next(method for method in METHODS if method.key == key)
    corpus, run = place / "corpus", place / "encoder"
    kept = {name: getattr(CORPUS, name) for name in SCREENPLAY}
    synthesize(corpus, replace(demo_corpus(), **kept))
    if (corpus / "queries.csv").read_bytes() != (place / "queries.csv").read_bytes():
        raise SystemExit("The drawn corpus has other sentences than the one whose features are told.")
    cfg = method.recipe()
    labels = read_labels(corpus / "trimmed.csv") if cfg.method == "supervised" else None
    pretrain(cfg, corpus / "trimmed", run, labels)
    extract_folder(run, corpus / "untrimmed", place / "own", ExtractConfig(interval=INTERVAL, batch=64))
    swap(FeatureStore(place / "own"), place / "other")
    return f"seen: the demo's encoder {method.title}, seed 0, on the corpus drawn as the demo's is"


def shown(place: Path, demo: Path, key: str) -> str:
    """The same with features that a demo has extracted."""
    shutil.copytree(demo / "features" / key, place / "own")
    swap(FeatureStore(place / "own"), place / "other")
    return f"seen: encoder {key} of `make demo`, with the demo's sentences"


def swap(store: FeatureStore, path: Path) -> None:
    """A store in which every video has the features of another one."""
    other, ids = FeatureStore.create(path, {**NOBODY, "width": store.width}), store.ids
    for index, id in enumerate(ids):
        shown = store.read(ids[index - 17])
        other.write(replace(shown, id=id))


def speed(num_queries: int, steps: int, batch: int) -> dict[str, Any]:
    """Seconds of training steps and of evaluation at the published widths."""
    cfg = recipes.charades()
    rng = np.random.default_rng(0)
    features = {
        f"v{n}": Features(f"v{n}", torch.from_numpy(rng.standard_normal((int(length), 1024)).astype(np.float32)),
                          Timebase(fps=24.0, stride=8.0, window=8.0), float(length) / 3)
        for n, length in enumerate(rng.integers(60, 128, num_queries // 8))
    }  # fmt: skip
    words = [f"word{n}" for n in range(1107)]
    queries = [make_query(number, features, words, rng) for number in range(num_queries)]
    text = VocabularyText(Vocabulary.of(words), cfg.text.max_words)
    batcher = QueryBatcher(text, features.__getitem__, cfg.lgi.num_segments)
    torch.manual_seed(0)
    task = GroundingTask(LGI(replace(cfg.lgi, vocabulary=len(text.vocabulary))))
    data = GroundingData(batcher, queries, batch, 0)
    optimiser = torch.optim.Adam(task.parameters(), lr=4e-4)
    batches = data.batches(0)

    def train() -> None:
        found = task.loss(next(batches))
        optimiser.zero_grad(set_to_none=True)
        found["loss"].backward()
        optimiser.step()

    measured = in_turns({"step": train, "convolutions": lambda: convolve(task.model, batch, backward=True)}, steps)
    model = task.model.eval()
    part = queries[: batch // 2]
    ready = list(batcher.batches(part, batch))

    @torch.inference_mode()
    def forward() -> None:
        for one in ready:
            model(one.words, one.known, one.features, one.valid)

    evaluated = in_turns({"evaluation": lambda: answer(model, batcher, part), "forward": forward}, steps)
    per_query = measured["step"] / batch
    return {
        "queries": num_queries,
        "batch": batch,
        "training queries a CPU second": 1 / per_query,
        "evaluation queries a CPU second": len(part) / evaluated["evaluation"],
        "epoch of these queries, extrapolated from the measured steps, CPU seconds": per_query * num_queries,
        "epoch of Charades-STA (12,400 queries), extrapolated, CPU hours": per_query * 12400 / 3600,
        "share of a training step outside the convolutions": 1 - measured["convolutions"] / measured["step"],
        "evaluation over forward": evaluated["evaluation"] / evaluated["forward"],
    }


def make_query(number: int, features: dict[str, Features], words: list[str], rng: np.random.Generator) -> Query:
    """Ten random words about a random stretch of a random video."""
    video = f"v{rng.integers(len(features))}"
    start, end = np.sort(rng.uniform(0, features[video].duration, 2))
    sentence = " ".join(rng.choice(words, 10))
    return Query(id=str(number), video=video, sentence=sentence, start=float(start), end=float(end))


def convolve(model: LGI, batch: int, *, backward: bool) -> None:
    """The six 15-wide convolutions of a step, and their gradients with regard to inputs and weights."""
    for block in model.vti_fn.local_fn:
        for place in (0, 3):
            weight = block.blocks[0][place].weight.detach().requires_grad_(backward)
            given = torch.zeros(batch, weight.shape[1], model.cfg.num_segments).normal_().requires_grad_(backward)
            out = F.conv1d(given, weight, padding=weight.shape[2] // 2)
            if backward:
                out.backward(torch.ones_like(out))


def in_turns(sides: dict[str, Callable[[], Any]], times: int) -> dict[str, float]:
    """Median CPU seconds of each side, run in turns after a first run that does not count."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(times + 1):
        for name, work in sides.items():
            begin = time.process_time()
            work()
            seconds = time.process_time() - begin
            print(f"{name}: {seconds:.2f} CPU s{'' if turn else ', not counted'}", file=sys.stderr, flush=True)
            if turn:
                spent[name].append(seconds)
    return {name: float(np.median(values)) for name, values in spent.items()}


if __name__ == "__main__":
    main()
