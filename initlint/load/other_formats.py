"""What a file is that is no ONNX model, by its first bytes, and what can be done with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

HEAD = 4096
"""Bytes that are looked at."""

_EXPORT = "export the model to ONNX and name that file"
_TORCH = "rename it to .pt to have its weights checked, or name the Python that builds the model (pkg.mod:attr)"


def recognised(start: bytes) -> str:
    """ "a ZIP archive; unpack it" for a file that starts with ``start``; empty where nothing is recognised."""
    return next((said for looks_like, said in _FORMATS if looks_like(start)), "")


def _begins(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda start: start.startswith(magics)


def _is_safetensors(start: bytes) -> bool:
    """An eight-byte length, then a JSON object."""
    length = int.from_bytes(start[:8], "little")
    return len(start) > 9 and 2 <= length < 2**40 and start[8:10] in (b'{"', b"{}")


def _is_json(start: bytes) -> bool:
    text = start.lstrip()
    if not text.startswith((b"{", b"[")):
        return False
    try:
        json.loads(text)
    except ValueError as error:  # what goes on behind the first bytes fails at their end
        return getattr(error, "pos", 0) > len(text) // 2
    return True


def _is_text(start: bytes) -> bool:
    """No control characters but white space, and it reads as UTF-8 but for a character cut in two."""
    if not start or re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", start):
        return False
    return len(start.decode(errors="ignore").encode()) > len(start) - 4


_FORMATS: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (
        lambda start: start.startswith(b"PK\x03\x04") and b"data.pkl" in start,
        f"a file of PyTorch's torch.save; {_TORCH}",
    ),
    (lambda start: start.startswith(b"PK\x03\x04") and b".npy" in start[:300], f"a NumPy archive; {_EXPORT}"),
    (
        lambda start: start.startswith(b"PK\x03\x04") and (b"metadata.json" in start or b"config.json" in start),
        f"a Keras model; {_EXPORT} (tf2onnx, or model.export(..., format='onnx'))",
    ),
    (_begins(b"PK\x03\x04", b"PK\x05\x06"), "a ZIP archive; unpack it and name the model in it"),
    (_begins(b"\x1f\x8b"), "compressed by gzip; unpack it (gunzip) and name what comes out"),
    (
        _begins(b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf\x27\x1c", b"\x28\xb5\x2f\xfd"),
        "a compressed file; unpack it first",
    ),
    (lambda start: start[257:262] == b"ustar", "a tar archive; unpack it and name the model in it"),
    (_begins(b"\x89HDF\r\n\x1a\n"), f"an HDF5 file, as Keras writes it; {_EXPORT} (tf2onnx, or model.export)"),
    (_begins(b"GGUF"), "a GGUF file of llama.cpp, which holds trained weights; name the model that it was made from"),
    (lambda start: start[4:8] == b"ORTM", "in onnxruntime's ORT format; name the .onnx file that it was made from"),
    (lambda start: start[4:8] == b"TFL3", f"a TensorFlow Lite model; {_EXPORT} (tf2onnx --tflite)"),
    (_is_safetensors, "a safetensors file; rename it to .safetensors to have its weights checked"),
    (_begins(b"\x93NUMPY"), f"a NumPy array; {_EXPORT}"),
    (_begins(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF"), "a picture or document; name the model file"),
    (lambda start: start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05", f"a Python pickle; {_TORCH}"),
    (
        lambda start: bool(re.match(rb"\s*(<!doctype html|<html)", start, re.IGNORECASE)),
        "a web page, as failed downloads are; download the model again",
    ),
    (lambda start: start.lstrip().startswith(b"<?xml"), f"an XML file, as OpenVINO's are; {_EXPORT}"),
    (_is_json, "a JSON file; name the model file, and with a list of shards one of these"),
    (_is_text, "a text file; name the model file"),
)
