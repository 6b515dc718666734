"""Files are there whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uptal.errors import UptalError
from uptal.files import atomic_write, digest


def test_the_file_appears_with_its_content_and_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    with atomic_write(path) as file:
        file.write("grün\r\n")
        assert not path.exists()
    assert path.read_bytes() == "grün\r\n".encode()
    with atomic_write(path, "wb") as file:
        file.write(b"\0\1")
    assert path.read_bytes() == b"\0\1"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_inside_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_write(path) as file:
        file.write("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one_and_what_it_points_to_is_replaced(tmp_path):
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to("target.txt")
    with atomic_write(link) as file:
        file.write("new")
    assert link.is_symlink() and target.read_text() == "new"
    (tmp_path / "dangling").symlink_to("later.txt")
    with atomic_write(tmp_path / "dangling") as file:
        file.write("there")
    assert (tmp_path / "later.txt").read_text() == "there" and (tmp_path / "dangling").is_symlink()


def test_a_pipe_is_written_into_and_stays_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    with atomic_write(pipe) as file:
        file.write("through")
    assert reader.communicate(timeout=20)[0] == b"through"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_behind_links_is_written_into(tmp_path):
    read, write = os.pipe()
    (tmp_path / "out").symlink_to(f"/proc/self/fd/{write}")
    for path in (Path(f"/proc/self/fd/{write}"), tmp_path / "out"):
        with atomic_write(path) as file:
            file.write("through")
        assert os.read(read, 100) == b"through"
    os.close(read)
    os.close(write)


def test_a_link_to_itself_and_a_name_too_long_are_told_in_words(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / ("x" * 300)):
        with pytest.raises(UptalError, match="cannot be written"), atomic_write(path):
            pass


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        full = pytest.raises(UptalError, match=r"file\.bin: cannot be written \(File too large\)")
        with full, atomic_write(path, "wb") as file:
            file.write(bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_where_a_folder_should_be_is_an_error_with_the_path(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "inside", tmp_path):
        with pytest.raises(UptalError, match="cannot be written"), atomic_write(path):
            pass


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"), atomic_write(tmp_path / "file"):
        (tmp_path / "absent").read_bytes()


def test_permissions_are_those_of_an_ordinary_file_and_survive(tmp_path):
    path, ordinary = tmp_path / "file", tmp_path / "ordinary"
    ordinary.write_text("")
    with atomic_write(path):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)
    path.chmod(0o640)
    with atomic_write(path):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_appending_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'a'"), atomic_write(tmp_path / "file", "a"):
        pass


@pytest.mark.reliability
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "file.bin"
    script = f"""
import itertools
from uptal.files import atomic_write
for count in itertools.count():
    with atomic_write({str(path)!r}, "wb") as file:
        for _ in range(200):
            file.write(bytes([count % 256]) * 10_000)
"""
    for trial in range(8):
        writer = subprocess.Popen([sys.executable, "-c", script])
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.013 * trial)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        content = path.read_bytes()
        assert len(content) == 2_000_000 and len(set(content)) == 1
        path.unlink()


def test_digests_tell_contents_apart(tmp_path):
    first, same, other = tmp_path / "first", tmp_path / "same", tmp_path / "other"
    first.write_bytes(b"abc"), same.write_bytes(b"abc"), other.write_bytes(b"abd")
    assert digest(first) == digest(same) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(other) != digest(first)
    with pytest.raises(UptalError, match="cannot be read"):
        digest(Path(tmp_path / "absent"))
