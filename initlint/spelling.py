"""Did you mean: the known name nearest to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence to append to a message ('; did you mean "seed"?'), or nothing where no known name is near."""
    from difflib import get_close_matches

    nearest = get_close_matches(name, sorted(known), n=1)
    return f'; did you mean "{nearest[0]}"?' if nearest else ""
