"""What the demo costs: seconds, and the most memory that all its processes hold together (Linux).

    python benchmarks/demo.py [--out DIR]

Shared pages are counted once (PSS). The goals are 6 minutes and 4 GB on two cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the demo (default: one that is removed)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        begun, most = time.monotonic(), 0.0
        run = subprocess.Popen([sys.executable, "-m", "uptal", "demo", "--out", str(options.out or folder)])
        while run.poll() is None:
            most = max(most, sum(held(process) for process in family(run.pid)))
            time.sleep(0.5)
        seconds = time.monotonic() - begun
    print(f"demo: exit code {run.returncode}, {seconds:.0f} s, at most {most / 1e9:.2f} GB")
    raise SystemExit(run.returncode)


def family(root: int) -> list[int]:
    """A process and all that come of it."""
    found = [root]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            with suppress(OSError):  # it has ended meanwhile
                found.extend(int(child) for child in task.read_text().split())
    return found


def held(process: int) -> int:
    """Bytes that a process holds; of a page that n share, an n-th."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
