"""What encoders cost is counted, and gives the FLOPs column of the paper's Table 1 where that is right."""

from __future__ import annotations

import json
from functools import cache

import pytest

from uptal.cli import main
from uptal.encoders import available
from uptal.encoders.published import TABLE_1, Row

COUNTED = {
    "XDC, R(2+1)D-18": (324.151, 325.158),
    "VideoMoCo, R(2+1)D-18": (81.038, 81.290),
    "RSPNet, R(2+1)D-18": (40.519, 40.645),
    "TSP, R(2+1)D-34": (76.178, 76.378),
    "TSM-Res50": (32.704, 32.88),
    "LoFi, TSM-Res18": (14.510, 14.550),
    "CoCLR, S3D": (11.741, 11.799),
    "PAL, I3D": (3.567, 3.573),
}
"""Giga multiply-adds of the original networks, and with two operations for every output of a batch norm."""


count = Row.count


@cache
def counted(method: str) -> tuple[int, int]:
    """What `Row.count` gives for a row of the table, computed once for all tests."""
    return count(next(row for row in TABLE_1 if row.row == method))


def classifier(row: Row) -> int:
    """Multiply-adds of the 400-way classifier that the originals were counted with where they have one."""
    times = {"r2plus1d": 512, "tsm": row.frames * (512 if row.options.get("depth") == 18 else 2048)}
    return 400 * times.get(row.architecture, 0)


@pytest.mark.parametrize("row", TABLE_1, ids=lambda row: row.row)
def test_the_networks_of_table_1_cost_what_the_originals_cost(row):
    macs, with_norms = ((number + classifier(row)) / 1e9 for number in counted(row.row))
    expected, expected_with_norms = COUNTED[row.row]
    assert round(macs, 3) == expected
    assert with_norms == pytest.approx(expected_with_norms, abs=0.0051)  # two digits are known of some


def test_table_1_prints_four_times_what_the_network_of_coclr_costs():
    row = next(row for row in TABLE_1 if row.architecture == "s3d")
    assert round(4 * counted(row.row)[1] / 1e9, 1) == row.paper


@pytest.mark.parametrize("row", [r for r in TABLE_1 if r.architecture in ("r2plus1d", "i3d")], ids=lambda r: r.row)
def test_rows_that_are_said_to_agree_do(row):
    assert round(counted(row.row)[1] / 1e9, 1) == row.paper


def test_the_command_lists_every_encoder_as_json(capsys):
    assert main(["encoders", "--json", "--no-table1"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {each["name"] for each in listed["encoders"]} == set(available())
    i3d = next(each for each in listed["encoders"] if each["title"] == "I3D")
    assert (i3d["width"], i3d["parameters"], i3d["macs"]) == (1024, 12_287_264, 3_491_275_264)
    assert (i3d["native"]["frames"], i3d["native"]["size"], i3d["native"]["colour"]) == (8, 112, "RGB")
    assert listed["table1"] == []


def test_the_command_prints_both_tables(capsys, monkeypatch):
    monkeypatch.setattr(Row, "count", lambda row: counted(row.row))
    assert main(["encoders", "--encoder", "slim"]) == 0
    text = capsys.readouterr().out
    assert "0.904 M" in text
    assert "11.799" in text
