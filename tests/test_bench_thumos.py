"""Films that stand in for THUMOS'14's videos show what its annotations say, as far as a film can."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from uptal.types import Segment, Video

STANDINS = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "thumos_standins.py"))
FPS, KINDS = STANDINS["FPS"], STANDINS["KINDS"]


def video(*segments: tuple[float, float, str], duration: float = 10.0) -> Video:
    return Video(id="v", duration=duration, subset="test", segments=tuple(Segment(*each) for each in segments))


def cast(*segments: tuple[float, float, str]) -> list[tuple[float, float, str]]:
    return [(i.start / FPS, i.end / FPS, KINDS[i.label]) for i in STANDINS["instances"](video(*segments))]


def test_a_stretch_is_filmed_at_its_time():
    assert cast((5.0, 7.0, "Shotput"), (1.0, 3.0, "Diving")) == [(1.0, 3.0, "Diving"), (5.0, 7.0, "Shotput")]


def test_a_cliff_dive_is_one_dive_though_listed_twice():
    assert cast((1.0, 3.0, "Diving"), (1.0, 3.0, "CliffDiving")) == [(1.0, 3.0, "Diving")]


def test_overlaps_and_what_lies_behind_the_end_are_cut():
    filmed = cast((1.0, 4.0, "Diving"), (3.0, 5.0, "Shotput"), (9.0, 12.0, "Diving"), (14.0, 15.0, "Diving"))
    assert filmed == [(1.0, 4.0, "Diving"), (4.0, 5.0, "Shotput"), (9.0, 10.0, "Diving")]


def test_an_ambiguous_stretch_looks_like_the_usual_action():
    assert cast((1.0, 2.0, "Shotput"), (3.0, 4.0, "Ambiguous")) == [(1.0, 2.0, "Shotput"), (3.0, 4.0, "Shotput")]


@pytest.mark.parametrize("label", ["BaseballPitch", "VolleyballSpiking"])
def test_a_film_is_as_long_as_its_video(label):
    shown = video((0.5, 1.5, label), duration=3.0)
    assert STANDINS["film"](shown, STANDINS["instances"](shown), 0).shape == (3 * FPS, 64, 64, 3)
