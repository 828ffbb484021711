"""What the pre-commit hook for files costs: its environment, its first run, and later runs of the whole command.

    python benchmarks/hook.py [RUNS]

Installs a snapshot of the tracked files from the package index with pre-commit, which has to be installed. Prints the
load of the machine beside the times, which it changes: the processor's time of a run changes less.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from real_pre_commit import ROOT, Scratch, scratch, size, snapshot, tracked

MIB = 2**20


def timed(repository: Scratch, *command: str) -> tuple[float, float]:
    """Seconds by the clock and of processors."""
    before, started = processors(), time.perf_counter()
    repository.succeed(*command)
    return time.perf_counter() - started, processors() - before


def processors() -> float:
    """Seconds that finished child processes have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        folder, home = Path(name), Path(name) / "home"
        snapshot(folder / "initlint")
        revision = Scratch(folder / "initlint", home).succeed("git", "rev-parse", "HEAD").strip()
        hook = f"{{repo: '{folder / 'initlint'}', rev: {revision}, hooks: [{{id: initlint}}]}}"
        repository = scratch(folder / "repository", home, f"repos: [{hook}]\n")
        shutil.copy(ROOT / "examples" / "healthy_mlp.onnx", repository.folder / "model.onnx")
        repository.succeed("git", "add", "--all")

        print(f"tracked files  {sum(path.stat().st_size for path in tracked()) / MIB:6.1f} MiB  (bar: 15 MB)")
        print(f"installation   {timed(repository, 'pre-commit', 'install-hooks')[0]:6.1f} s")
        print(f"first commit   {timed(repository, 'git', 'commit', '--quiet', '--message', 'first')[0]:6.1f} s")
        print(f"environment    {size(home) / MIB:6.1f} MiB  (bar: 250 MiB)")
        for packages in home.glob("*/py_env*/lib/python*/site-packages"):
            largest = sorted(((size(path), path.name) for path in packages.iterdir() if path.is_dir()), reverse=True)
            print("  of which     ", ", ".join(f"{name} {bytes_ / MIB:.0f}" for bytes_, name in largest[:8]))
        for number in range(runs):
            clock, used = timed(repository, "pre-commit", "run", "--all-files")
            load = os.getloadavg()[0]
            print(
                f"run {number + 1:<2}         {clock:6.2f} s, {used:.2f} s of processors, load {load:.1f}  (bar: 3 s)"
            )


if __name__ == "__main__":
    main()
