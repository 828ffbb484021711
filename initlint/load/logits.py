"""Which factor of an attention's logits counts along which of their axes, from the product to the sum over values.

Queries are told from keys by nothing else: the axis that a softmax normalises and that the sum over values then runs
along is the keys'. Whether they were the first factor, and whether the logits were transposed, does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .dataflow import SOFTMAXES
from .graph import LINK, Graph, Node
from .sizes import BROADCASTING, KEEPING, Sizes, terms_of
from .softmaxes import axis_of

NEITHER = -1
"""Stands for the number of a factor where an axis belongs to none, to both, or it is not known to which."""
Axes = tuple[int, ...]

_KEPT = KEEPING | BROADCASTING | {LINK, "Concat", "Expand", "Pad", "Slice", "Split", "Tile"}
_RESHAPED = frozenset({"Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, slots=True)
class Weighting:
    """Logits of the product ``product``, or what a softmax made of them."""

    product: int
    axes: Axes
    """By axis: the number of the factor; axes in front of these belong to neither."""
    normalised: bool = False
    keys: int = NEITHER
    """The factor along whose axis a softmax ran."""

    def through(self, node: Node, graph: Graph, before: Sizes | None, after: Sizes | None) -> Weighting:
        """What ``node`` makes of it, which has sizes ``before`` and ``after``."""
        if node.op in SOFTMAXES:
            axis = axis_of(node, graph)
            keys = NEITHER if axis is None else self.owner(axis, before)
            return replace(self, normalised=True, keys=keys if not self.normalised or keys == self.keys else NEITHER)
        if node.op in _KEPT or (node.op.startswith("Reduce") and node.integer("keepdims", 1)):
            drops = node.integer("drops", 0)
            return replace(self, axes=()) if drops else self
        if node.op == "Transpose":
            return replace(self, axes=_permuted(self.axes, node.integers("perm")))
        if node.op in _RESHAPED and before is not None and after is not None:
            return replace(self, axes=_reshaped(self.axes, before, after))
        return replace(self, axes=())

    def owner(self, axis: int, sizes: Sizes | None) -> int:
        """The factor along ``axis``, which counts from the end if negative."""
        if axis >= 0:
            if sizes is None:
                return NEITHER
            axis -= len(sizes)
        return self.axes[axis] if -len(self.axes) <= axis < 0 else NEITHER


def _permuted(axes: Axes, order: Sequence[int]) -> Axes:
    if sorted(order) != list(range(len(order))) or len(order) < len(axes):
        return ()
    whole = (NEITHER,) * (len(order) - len(axes)) + axes
    return tuple(whole[axis] for axis in order)


def _reshaped(axes: Axes, before: Sizes, after: Sizes) -> Axes:
    """From the last axis on as long as sizes agree; those of size 1 come and go.

    Where axes are merged, two sizes that are not known are not taken for one.
    """
    merges = len(after) < len(before)
    owners = ((NEITHER,) * (len(before) - len(axes)) + axes)[-len(before) :] if before else ()
    pending = [(size, owner) for size, owner in zip(before, owners, strict=True) if size != 1]
    found: list[int] = []
    for size in reversed(after):
        if size == 1:
            found.append(NEITHER)
        elif pending and size == pending[-1][0] and (size or not merges):
            found.append(pending.pop()[1])
        else:
            break
    return tuple(reversed(found))


def of_product(node: Node) -> Axes:
    """Of a product of two factors: rows of the first by columns of the second, unless an equation says otherwise."""
    if node.op != "Einsum":
        return (0, 1)
    terms, output = terms_of(node)
    return tuple(NEITHER if len(terms) != 2 else _only(letter, terms) for letter in output)


def summed(node: Node, slot: int) -> int | None:
    """The axis of input ``slot``, counted from the end, that a product of matrices sums over; None if not just one."""
    if node.op != "Einsum":
        turned = bool(node.integer("transB" if slot else "transA", 0))
        return -2 if turned != bool(slot) else -1
    terms, output = terms_of(node)
    if len(terms) != 2:
        return None
    gone = [letter for letter in terms[0] if letter in terms[1] and letter not in output]
    return terms[slot].index(gone[0]) - len(terms[slot]) if len(gone) == 1 else None


def _only(letter: str, terms: Sequence[str]) -> int:
    within = [number for number, term in enumerate(terms) if letter in term]
    return within[0] if len(within) == 1 else NEITHER
