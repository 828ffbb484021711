"""How numbers and names are written for people. Names come from models, which are not to be trusted."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that move the cursor, reorder or hide text: controls (ESC among them), format characters
(bidirectional overrides, zero-width signs), lone surrogates, line and paragraph separators."""

_LISTED = 3
"""How many items of a list are written out before "and N more"."""


def printable(text: str) -> str:
    r"""``text`` with everything invisible as a visible escape (``\x1b``, ``\u202e``): safe to send to a terminal."""
    if text.isprintable():
        return text
    return "".join(_escaped(sign) if unicodedata.category(sign) in _INVISIBLE else sign for sign in text)


def _escaped(sign: str) -> str:
    code = ord(sign)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def number(value: float) -> str:
    """Three significant digits; whole numbers in full, in groups of three digits."""
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return re.sub(r"e([+-])0*(\d)", lambda found: "e" + found[1].strip("+") + found[2], f"{value:.3g}")


def quantity(count: int) -> str:
    """A large count in short: 25.6 M."""
    for least, unit, name in ((10**9, 10**9, "B"), (10**6, 10**6, "M"), (10**4, 10**3, "k")):
        if count >= least:
            return f"{number(count / unit)} {name}"
    return f"{count:,}"


def plural(count: int, noun: str) -> str:
    """The count with its noun: 1 layer, 2 layers."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1g} s" if seconds < 0.1 else f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def evidence(value: object) -> str:
    """One value of a finding's data."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, (list, tuple)):
        return listing([str(item) for item in value])
    return printable(str(value))


def listing(items: Sequence[str], most: int = _LISTED) -> str:
    """The first few items, and how many more there are."""
    shown = ", ".join(printable(item) for item in items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most:,} more"


def shortened(text: str, width: int, ellipsis: str) -> str:
    """``text`` cut in the middle to ``width`` characters: both ends of a qualified name tell something."""
    if len(text) <= width:
        return text
    kept = max(width - len(ellipsis), 1)
    tail = (kept + 1) // 2
    return f"{text[: kept - tail]}{ellipsis}{text[len(text) - tail :]}"
