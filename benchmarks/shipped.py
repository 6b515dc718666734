"""Makes an encoder for the package: corpus, pre-training without labels, statistics of clean clips, files.

    python benchmarks/shipped.py --work W --out src/uptal/encoders/shipped

The corpus is drawn for this alone: all twelve actions, web-like, a large bank of scenes, a seed that no experiment and
no demo uses. `--untrained` leaves the training out, which is the control. A killed command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

from uptal.encoders import load_encoder, save_encoder
from uptal.files import atomic_write
from uptal.recipes.calibrating import calibrate
from uptal.recipes.pretrain import slim_v1, with_optim
from uptal.recipes.running import pretrain
from uptal.run import environment
from uptal.synthetic import CorpusConfig, synthesize
from uptal.synthetic.actions import ACTIONS
from uptal.synthetic.config import web_like
from uptal.video import find_videos

VIDEOS = 480
CORPUS = web_like(CorpusConfig(seed=4711, num_classes=len(ACTIONS), scene_bank=96, num_trimmed=VIDEOS, num_untrimmed=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for corpus and run")
    parser.add_argument("--out", type=Path, required=True, help="folder for slim-v1.safetensors and slim-v1.json")
    parser.add_argument("--untrained", action="store_true", help="no training: the control")
    options = parser.parse_args()
    synthesize(options.work / "corpus", CORPUS, workers=1)
    make(options.work, options.out, with_optim(slim_v1(), max_steps=0) if options.untrained else slim_v1())


def make(work: Path, out: Path, cfg) -> None:
    """Trains on the corpus in `work`, estimates the statistics, writes the encoder and how it came about."""
    videos, run = work / "corpus" / "trimmed", work / ("run" if cfg.optim.max_steps else "untrained")
    begin = time.process_time()
    outcome = pretrain(cfg, videos, run)
    if not outcome.finished:
        raise SystemExit("stopped; the same command goes on")
    saved = load_encoder(run)
    seen = calibrate(saved.encoder, find_videos(videos)[::2], saved.clip)
    name = "slim-v1" if cfg.optim.max_steps else "untrained"
    pairs = outcome.steps * cfg.optim.batch
    source = {
        "made by": "benchmarks/shipped.py",
        "method": "MoCo-v2 on single clips, strides 1 to 4" if outcome.steps else "untrained",
        "corpus": {"seed": CORPUS.seed, "videos": len(find_videos(videos)), "size": CORPUS.size},
        "steps": outcome.steps,
        "pairs": pairs,
        "clips": 2 * pairs,
        "seconds": round(outcome.seconds),
        "seed": cfg.seed,
        "statistics": f"of {seen} clean videos",
        "versions": environment()["packages"],
        "machine": platform.processor() or platform.machine(),
    }
    save_encoder(out / f"{name}.safetensors", saved.encoder, saved.clip, source=source)
    with atomic_write(work / f"{name}.json") as file:
        json.dump(source | {"process seconds": round(time.process_time() - begin)}, file, indent=1)
    print(json.dumps(source))


if __name__ == "__main__":
    main()
