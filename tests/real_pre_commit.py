"""Runs pre-commit itself, on a snapshot of this repository and in scratch repositories."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONFIGURATION = ".pre-commit-config.yaml"


def environment(home: Path) -> dict[str, str]:
    """This process's environment with an identity and a pre-commit cache of its own, in which nothing of a git command
    that may be under way or of the user's settings counts."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PRE_COMMIT"))}
    person = {f"GIT_{role}_{field}": "tests" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}
    return {
        **inherited,
        **person,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PRE_COMMIT_HOME": str(home),
        "PRE_COMMIT_COLOR": "never",
        "COLUMNS": "80",
    }


@dataclass(frozen=True)
class Ran:
    status: int
    output: str
    """Standard output and standard error as they came."""


@dataclass(frozen=True)
class Scratch:
    """A git repository in ``folder`` that is made for a test."""

    folder: Path
    home: Path
    """Where pre-commit keeps the environments of hooks."""

    def run(self, *command: str) -> Ran:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment(self.home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode())

    def succeed(self, *command: str) -> str:
        ran = self.run(*command)
        assert ran.status == 0, ran.output
        return ran.output

    def commit(self, message: str = "a change") -> Ran:
        """What somebody does who commits everything; pre-commit stands in between."""
        self.succeed("git", "add", "--all")
        return self.run("git", "commit", "--quiet", "--message", message)

    @property
    def commits(self) -> int:
        return int(self.succeed("git", "rev-list", "--all", "--count"))


def scratch(folder: Path, home: Path, configuration: str) -> Scratch:
    """A new repository that has ``configuration`` and pre-commit installed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Scratch(folder, home)
    made.succeed("git", "init", "--quiet")
    (folder / CONFIGURATION).write_text(configuration, encoding="utf-8")
    made.succeed("pre-commit", "install")
    return made


def tracked() -> list[Path]:
    """The files of this repository that git knows."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in filter(None, listed.split("\0")) if (ROOT / name).is_file()]


def snapshot(folder: Path) -> None:
    """A repository in ``folder`` whose one commit holds the tracked files as they are now."""
    for path in tracked():
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    made = Scratch(folder, folder / "unused")
    made.succeed("git", "init", "--quiet")
    made.succeed("git", "add", "--all", "--force")
    made.succeed("git", "commit", "--quiet", "--message", "snapshot")


def size(folder: Path) -> int:
    """Bytes that ``folder`` takes on the disk, as `du` counts them; a link is not what it leads to."""
    return 512 * sum(path.lstat().st_blocks for path in folder.rglob("*"))
