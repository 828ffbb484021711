"""Identities that outlive a run: which finding of today is which of yesterday.

A finding is the same as long as the same rule speaks of the same address in the same target. Severity, message and
measured numbers take no part: they change with every seed, and a finding that gets louder is still that finding.

Who compares chooses the name of the target: reports use the path relative to the repository or current folder
(``relative``). A baseline holds no fingerprints: its entries are for people to read, and it knows files that moved.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import PurePath

_DIGITS = 32
"""Hexadecimal digits, 128 bits: two of a million findings coincide with a probability of 1e-27."""


def fingerprint(target: str, rule: str, address: str, occurrence: int = 0) -> str:
    """The identity of a finding as 32 hexadecimal digits, the same on every platform and in every version.

    ``target``, ``rule`` and ``address`` count sign by sign ("" is the address of the whole model); lone surrogates are
    allowed. ``occurrence`` numbers findings that agree in all three, from 0: reports of one target given twice.
    """
    parts: list[str | int] = [target, rule, address]
    if occurrence:
        parts.append(occurrence)
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))  # ASCII: surrogates have no UTF-8
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:_DIGITS]


def relative(target: str, folder: str) -> str:
    """``target`` as seen from ``folder``, with forward slashes: the same on every machine that has the same tree.

    Nothing is looked up on the disk. What lies elsewhere goes through ``..``; on another drive it stays absolute. A
    Python target that is no path (``pkg.mod:attr``) stays as it is.
    """
    try:
        seen = os.path.relpath(os.path.join(folder, target), folder) if folder else os.path.normpath(target)
    except ValueError:  # another drive
        seen = target
    return PurePath(seen).as_posix()
