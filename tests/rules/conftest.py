"""Rules are judged on files that are opened in this process."""

from __future__ import annotations

import pytest
from child_here import ChildHere

from initlint import session


@pytest.fixture(autouse=True)
def opened_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_Child", ChildHere)
