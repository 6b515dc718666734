"""Puts finished copies into packs, in the order of their sources, while the others are still being made.

OUT/pack-00000.uptalpack, OUT/pack-00000.uptalpack.json, ...   see `uptal.video.packs`
OUT/.copies/<same path>.mp4                                     copies that are in no pack yet
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uptal.video.packs import SUFFIX, in_pack, index_of, members, write_pack

COPIES = ".copies"
FACTS = {"copy_sha256": "sha256", "frames": "frames", "seconds": "seconds", "height": "height", "width": "width"}
"""What a pack's index says of a video, by the manifest's name for it and its own."""


def packed(out: Path) -> dict[str, Path]:
    """Where each packed copy is, by its name."""
    places = [place for pack in _packs(out) for place in members(pack)]
    return {name[1]: place for place in places if (name := in_pack(place))}


def sweep(out: Path) -> None:
    """Takes away what a kill has left: drafts, packs without an index, and copies of what is packed."""
    unfinished = [pack for pack in out.glob(f"pack-*{SUFFIX}") if not index_of(pack).exists()]
    for file in [*unfinished, *out.glob(f".pack-*{SUFFIX}*.tmp")]:
        file.unlink()
    for name in packed(out):
        (out / COPIES / name).unlink(missing_ok=True)


class Packer:
    """Waits for copies and writes a pack as soon as the next ones in order fill it.

    Which videos share a pack depends on order and sizes alone, not on which copy was ready first.
    """

    def __init__(self, out: Path, names: Sequence[str], size: int, ready: Mapping[str, Mapping[str, Any]]):
        """Expects copies of these names, in this order, for packs of at least `size` bytes.

        `ready` are those that were made before and are in no pack yet, with their lines of the manifest.
        """
        before = _packs(out)
        self.out, self.size, self._next = out, size, 1 + _number(before[-1]) if before else 0
        self._coming, self._ready = deque(names), dict[str, Mapping[str, Any] | None](ready)
        self._pending: list[tuple[str, Path, Mapping[str, Any]]] = []
        self._bytes = 0

    def add(self, name: str, entry: Mapping[str, Any] | None) -> None:
        """A copy is ready, with its line of the manifest; None: there will be none."""
        self._ready[name] = entry
        while self._coming and self._coming[0] in self._ready:
            self._take(self._coming.popleft())

    def finish(self) -> None:
        """Writes what is left."""
        for name in self._coming:
            if name in self._ready:
                self._take(name)
        self._coming.clear()
        self._write()
        shutil.rmtree(self.out / COPIES, ignore_errors=True)  # its folders are empty now

    def _take(self, name: str) -> None:
        entry, file = self._ready.pop(name), self.out / COPIES / name
        if entry is None:
            return
        self._pending.append((name, file, {ours: entry[theirs] for theirs, ours in FACTS.items()}))
        self._bytes += entry["copy_bytes"]
        if self._bytes >= self.size:
            self._write()

    def _write(self) -> None:
        if self._pending:
            write_pack(self.out / f"pack-{self._next:05d}{SUFFIX}", self._pending)
            for _, file, _ in self._pending:
                file.unlink()
            self._pending, self._bytes, self._next = [], 0, self._next + 1


def _packs(out: Path) -> list[Path]:
    """Finished packs, in order."""
    return sorted(pack for pack in out.glob(f"pack-*{SUFFIX}") if index_of(pack).exists())


def _number(pack: Path) -> int:
    return int(pack.stem.removeprefix("pack-"))
