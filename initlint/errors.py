"""The one exception family; a message says what is wrong, where, and what to do."""

from __future__ import annotations

from enum import StrEnum


class FailureKind(StrEnum):
    """Why a target could not be checked; decides the exit status (contract: README, "Exit status")."""

    USAGE = "usage"
    MISSING = "missing"
    IMPORT = "import"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"
    CRASHED = "crashed"
    LIMIT = "limit"

    @property
    def exit_status(self) -> int:
        if self in (FailureKind.USAGE, FailureKind.MISSING, FailureKind.IMPORT):
            return 2
        if self in (FailureKind.UNREADABLE, FailureKind.UNSUPPORTED):
            return 3
        return 4


class InitlintError(Exception):
    """Base of everything initlint raises on purpose."""


class UsageError(InitlintError):
    """Wrong settings, an unknown rule, a broken rule pack: stops the whole run with exit status 2."""


class TargetError(InitlintError):
    """One target could not be checked; the others still are."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class FindingsError(InitlintError, AssertionError):
    """Raised by ``Report.raise_for_findings``: the report is its message."""
