"""What a refactoring must leave alone: the draws of an epoch and the losses of twenty steps, written down.

Draws are arithmetic on NumPy's generator and compared exactly. Losses go through the machine's own convolutions, so
other processors round differently: 1e-4 is for that; on one machine and version they are equal to the last bit. A
change that is meant to change numbers records new ones (`python tests/test_guard.py`) and says so in CHANGELOG.md.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from batches import Tiny, make_batch
from uptal.augment import AugmentConfig
from uptal.clips import RegionConfig, TimelineConfig
from uptal.distributed import World
from uptal.pretext.contrast import ContrastConfig
from uptal.pretext.data import DataConfig
from uptal.pretext.loader import Loader
from uptal.pretext.pal import PAL, HeadConfig
from uptal.pretext.synthesis import PasteConfig
from uptal.video import find_videos
from videos import write

TIMELINE = TimelineConfig(clips=4, frames=4, region=RegionConfig(max_clips=3))
PASTES = {name: PasteConfig(source=name) for name in ("diff", "same", "none")}
EXACT = ("clips", "region", "start", "length", "lender", "ids")

DRAWS = {"diff": "a43c48a0ec143f4f", "same": "bbb3884185dc9cd4", "none": "ad5b158428619c3d"}
LOSSES = [
    0.0, 2.0711729526519775, 2.5729098320007324, 2.8136579990386963, 2.9686076641082764, 2.9873812198638916,
    3.0648605823516846, 3.011730432510376, 2.628004312515259, 2.749847650527954, 2.4833624362945557, 2.422412157058716,
    2.5272300243377686, 2.416858196258545, 2.424727439880371, 2.1651217937469482, 2.211594581604004, 2.1956751346588135,
    2.356898784637451, 2.3535332679748535,
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return fill(tmp_path_factory.mktemp("videos"))


@pytest.mark.parametrize("paste", PASTES)
def test_the_draws_of_three_epochs_are_those_written_down(paste, folder):
    assert digest(folder, PASTES[paste]) == DRAWS[paste]


def test_the_losses_of_twenty_steps_are_those_written_down():
    assert losses() == pytest.approx(LOSSES, rel=1e-4)


def fill(folder: Path) -> Path:
    """Nine videos of 9 to 73 frames; their pictures do not matter here."""
    for index in range(9):
        write(folder / f"v{index}.mp4", frames=9 + 8 * index, size=(64, 32))
    return folder


def digest(folder: Path, paste: PasteConfig) -> str:
    """All whole numbers of the batches of three epochs and the validation, in one word."""
    data = DataConfig(timeline=TIMELINE, resize=16, workers=0, val_videos=3)
    loader = Loader(find_videos(folder), data, paste, AugmentConfig(size=8), batch=3, seed=7, world=World(0, 1, 0))
    word = hashlib.sha256()
    for batches in (*map(loader.batches, range(3)), loader.validation_batches()):
        for batch in batches:
            word.update(repr((batch.names, batch.position)).encode())
            for name in EXACT:
                value = getattr(batch, name)
                word.update(b"none" if value is None else value.numpy().astype(np.int64).tobytes())
            word.update(np.round(batch.blend.numpy(), 5).tobytes() + batch.augment.flip.numpy().tobytes())
    return word.hexdigest()[:16]


def losses() -> list[float]:
    torch.manual_seed(0)
    head = HeadConfig(hidden=16, width=8, ft_width=8, ft_last_relu=False)
    task = PAL(Tiny(), Tiny.width, head, ContrastConfig(queue=25, momentum=0.9))
    optimiser = torch.optim.Adam(task.online.parameters(), 0.003)
    found = []
    for step in range(20):
        optimiser.zero_grad()
        loss = task.loss(replace(make_batch(step, 6), ids=torch.arange(6) + 6 * (step % 3)))["loss"]
        loss.backward()
        optimiser.step()
        task.after_step()
        found.append(float(loss.detach()))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        print({name: digest(fill(Path(place)), paste) for name, paste in PASTES.items()})
    print(losses())
