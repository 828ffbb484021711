"""Walking the graph that autograd has built behind some tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch


def nodes_behind(tensors: Iterable[torch.Tensor]) -> Iterator[Any]:
    """Every node once; leaves are those without ``next_functions``, which hold the leaf as ``variable``."""
    pending = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(pending)
    while pending:
        node = pending.pop()
        yield node
        for each, _ in node.next_functions:
            if each is not None and each not in seen:
                seen.add(each)
                pending.append(each)


def leaves_behind(tensors: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """What autograd would add gradients up in."""
    for node in nodes_behind(tensors):
        if (leaf := getattr(node, "variable", None)) is not None and not node.next_functions:
            yield leaf
