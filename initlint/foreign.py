"""Errors of code that is not ours: shown short and whole, with the user's own line, never as our traceback."""

from __future__ import annotations

import os
import re
import sys
import traceback
from pathlib import Path

from .target_names import shown

_QUOTE = 400
"""Characters of a foreign message that fit into one sentence."""

_STACK = "\nException raised from "
"""What PyTorch puts between a message and the stack of its C++ code."""

_NO_MEMORY = re.compile(r"allocate memory|out of memory|Storage size calculation overflowed", re.IGNORECASE)
"""How PyTorch, on whatever device, says that there is none left."""

_HERE = str(Path(__file__).parent) + os.sep


def described(error: BaseException) -> str:
    """ "ValueError: no such width (model.py:12)": type, message, and the user's line that it came from."""
    text = " ".join(str(_text(error)).partition(_STACK)[0].split())
    text = text if len(text) <= _QUOTE else f"{text[: _QUOTE - 3]}..."
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    place = _place(error)
    return f"{said} ({place})" if place else said


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether more memory was asked for than there is."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error))))


def is_own(error: BaseException) -> bool:
    """Whether it was raised by initlint's own reading of a run, rather than by the code that was run."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not frames[-1].filename.startswith(_HERE):
        return False
    return Path(frames[-1].filename).name != "eager.py"  # there the operators of the forward are called


def _text(error: BaseException) -> object:
    if isinstance(error, SyntaxError):
        return error.msg
    if isinstance(error, KeyError) and error.args:  # its text is the bare key
        return f"no such key: {error.args[0]!r}"
    return error


def _place(error: BaseException) -> str:
    """Where it happened: the last line of the user's own code, else the last line of any code but ours."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(Path(error.filename))}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    own = [frame for frame in frames if not _is_library(frame.filename)]
    last = (own or frames)[-1:]
    return f"{shown(Path(last[0].filename))}:{last[0].lineno}" if last else ""


def _is_machinery(filename: str) -> bool:
    return filename.startswith((_HERE, "<frozen")) and "<stdin>" not in filename


def _is_library(filename: str) -> bool:
    prefixes = {str(Path(prefix)) for prefix in (sys.prefix, sys.base_prefix)}
    installed = "site-packages" in filename or "dist-packages" in filename
    return installed or any(filename.startswith(str(Path(prefix) / "lib")) for prefix in prefixes)
