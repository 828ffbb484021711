"""What rules say of a file does not depend on the process that opens it."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def in_this_process(opened_here: None) -> None:
    """For all of them."""
