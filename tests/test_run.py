"""What a run notes of the code it was made with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from uptal import run


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_package_below_somebody_elses_repository_has_no_commit_of_theirs(tmp_path: Path, monkeypatch):
    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    file = tmp_path / "site" / "run.py"
    file.parent.mkdir()
    shutil.copy(run.__file__, file)
    (tmp_path / "theirs.txt").write_text("x", encoding="utf-8")
    git("init", "-q")
    git("add", "theirs.txt")
    git("commit", "-qm", "theirs")
    monkeypatch.setattr(run, "__file__", str(file))
    assert run.commit() is None
    git("add", ".")
    git("commit", "-qm", "ours")
    assert run.commit() == git("rev-parse", "--short=12", "HEAD").strip()
