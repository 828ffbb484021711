"""What is written, held against files that hold what was written before."""

from __future__ import annotations

import os
from pathlib import Path


def as_expected(name: str, shown: str) -> None:
    """``shown`` is what tests/expected/NAME holds; UPDATE_EXPECTED=1 in the environment writes the file instead."""
    path = Path(__file__).parent / "expected" / name
    if os.environ.get("UPDATE_EXPECTED"):
        path.write_text(shown, encoding="utf-8")
    assert shown == path.read_text(encoding="utf-8")
