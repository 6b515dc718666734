"""How soon uptal answers: `import uptal` (below 0.3 s is the goal) and `uptal --help` (below 1 s), each in a process of
its own.

    python benchmarks/start.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

REPEATS = 7
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import uptal": ["-c", "import uptal"],
    "uptal --help": ["-m", "uptal", "--help"],
    "uptal pretrain --help": ["-m", "uptal", "pretrain", "--help"],
}


def main() -> None:
    for name, words in COMMANDS.items():
        seconds = []
        for _ in range(REPEATS + 1):
            begun = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - begun)
        print(f"{name:24s} median {statistics.median(seconds[1:]):.2f} s, best {min(seconds[1:]):.2f} s")


if __name__ == "__main__":
    main()
