"""The tutorial on one's own videos, run as it stands in the docs: from a folder and a table to a number."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from uptal.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "own_data.md"


def blocks() -> list[tuple[str, str]]:
    """Language and content of the fenced blocks of the tutorial."""
    text = PAGE.read_text("utf-8")
    section = text.split("### From twenty videos to a number")[1].split("\n### ")[0]
    return re.findall(r"```(\w*)\n(.*?)```", section, re.DOTALL)


def test_the_tutorial_goes_from_a_folder_and_a_table_to_a_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = 0
    for language, content in blocks():
        if language == "python":
            exec(compile(content, str(PAGE), "exec"), {})
            continue
        for line in content.splitlines():
            words = shlex.split(line)
            assert words[0] == "uptal"
            assert main(words[1:]) == 0, line
            commands += 1
    assert commands == 6
    assert len({row.split(",")[0] for row in Path("labels.csv").read_text().splitlines()[1:]}) == 20
    result = json.loads(Path("map.json").read_text())
    assert result["videos"] == {"truth": 5, "found": 5, "missing": 0}
    assert 0 <= result["average_mAP"] <= 1
