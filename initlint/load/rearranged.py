"""ATen operators that move entries or pick some, with the places that they move them to."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from .steps import Step


def reshape(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    """The shape as it comes out, for what has to know which axes were merged."""
    if not isinstance(a[1], list | tuple):  # another dtype
        return [Step("Reshape", a[:1])]
    sizes = [int(size) for size in a[1]]
    if -1 in sizes:
        known = prod(size for size in sizes if size >= 0)
        sizes[sizes.index(-1)] = a[0].numel() // max(known, 1)
    return [Step("Reshape", a[:1], {"shape": sizes})]


def permute(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    return [Step("Transpose", a[:1], {"perm": [int(axis) % a[0].ndim for axis in a[1]]})]


def transpose(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    axes = list(range(a[0].ndim))
    if axes:
        axes[a[1]], axes[a[2]] = axes[a[2]], axes[a[1]]
    return [Step("Transpose", a[:1], {"perm": axes})]


def split(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    axis = int(a[2] if len(a) > 2 else k.get("dim", 0)) % a[0].ndim
    whole, sizes = a[0].shape[axis], a[1]
    if isinstance(sizes, int):
        sizes = [min(sizes, whole - start) for start in range(0, whole, max(1, sizes))]
    return [Step("Split", a[:1], {"axis": axis, "split": [int(size) for size in sizes]})]


def unbind(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    axis = int(a[1] if len(a) > 1 else k.get("dim", 0)) % a[0].ndim
    return [Step("Split", a[:1], {"axis": axis, "split": [1] * a[0].shape[axis], "drops": 1})]


def cut(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    given = dict(zip(("self", "dim", "start", "end", "step"), a, strict=False)) | k
    axis = int(given.get("dim", 0)) % a[0].ndim
    size = int(a[0].shape[axis])
    start, end = given.get("start") or 0, given.get("end")
    ends = [size if end is None else min(int(end), size)]
    attributes = {"axes": [axis], "starts": [int(start)], "ends": ends, "steps": [int(given.get("step", 1))]}
    return [Step("Slice", a[:1], attributes)]


def select(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    """One entry of an axis, which is gone then."""
    axis = int(a[1]) % a[0].ndim
    start = int(a[2]) % int(a[0].shape[axis])
    return [Step("Slice", a[:1], {"axes": [axis], "starts": [start], "ends": [start + 1], "drops": 1})]


def join(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    """Also of a stack, whose axis is a new one."""
    return [Step("Concat", tuple(a[0]), {"axis": int(a[1] if len(a) > 1 else k.get("dim", 0))})]
