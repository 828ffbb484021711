"""Words for files that cannot be read; what is quoted from a file is cut short."""

from __future__ import annotations

from ..errors import FailureKind, TargetError

POINTER = b"version https://git-lfs"


def refuse_pointer(start: bytes, name: str) -> None:
    """Raises TargetError where a file, by its first bytes, only points to what Git LFS keeps elsewhere."""
    if start.startswith(POINTER):
        raise TargetError(FailureKind.UNREADABLE, f"{name} is a Git LFS pointer, not the model; run `git lfs pull`.")


def damaged(what: str) -> TargetError:
    """The error for a file that contradicts itself."""
    return TargetError(FailureKind.UNREADABLE, f"{what}; the file is damaged, export or copy it again.")


def brief(value: object) -> str:
    """A name or shape as Python would write it, control characters escaped, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def first_line(error: Exception) -> str:
    """What a library says in its first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
