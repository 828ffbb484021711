"""Where a benchmark keeps its results: apart for each state of the code, for those of another one are not today's."""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def of_this_code(folder: Path) -> Path:
    """The folder in ``folder`` for results of initlint and its rules as they are now, made where it is missing."""
    digest = hashlib.sha256()
    for top in ("initlint", "rules"):
        for path in sorted((ROOT / top).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode())
            digest.update(path.read_bytes())
    found = folder / digest.hexdigest()[:12]
    found.mkdir(parents=True, exist_ok=True)
    return found
