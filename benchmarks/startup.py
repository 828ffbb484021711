"""How long the command line takes to say anything, against the bare start of click.

    python benchmarks/startup.py [--rounds N]

Prints the median of each command over alternating runs and its ratio to ``python -c "import click"``. The exit
status is 1 if a ratio is above its bar.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

BASE = [sys.executable, "-c", "import click"]
COMMANDS = {
    "initlint --help": ([sys.executable, "-m", "initlint", "--help"], 3.0),
    "initlint rules": ([sys.executable, "-m", "initlint", "rules"], 5.0),
}


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    runs: dict[str, list[float]] = {"import click": [], **{name: [] for name in COMMANDS}}
    for command in (BASE, *(command for command, _ in COMMANDS.values())):
        seconds(command)  # compiles and warms the disk cache
    for _ in range(rounds):
        runs["import click"].append(seconds(BASE))
        for name, (command, _) in COMMANDS.items():
            runs[name].append(seconds(command))
    base = statistics.median(runs["import click"])
    print(f"{'import click':16} {base * 1e3:6.0f} ms")
    kept = True
    for name, (_, bar) in COMMANDS.items():
        median = statistics.median(runs[name])
        ratio = median / base
        kept &= ratio <= bar
        print(f"{name:16} {median * 1e3:6.0f} ms  {ratio:4.2f}x  (at most {bar:g}x)")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
