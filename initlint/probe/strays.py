"""What learns outside of ``model.parameters()``: in plain lists, made by arithmetic, or built anew in every forward."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch

from ..load.from_torch import output_tensors
from .autograd_graph import leaves_behind


def strays(
    module: torch.nn.Module,
    known: Iterable[torch.Tensor],
    read: Iterable[torch.Tensor],
    watched: Collection[int],
    output: Any,
) -> tuple[str, ...]:
    """Leaves that autograd watched and that no module lists, by the attribute that holds them or what they became.

    ``known`` are parameters and inputs, ``read`` tensors that the forward read and no module registers, ``watched`` the
    identities of leaves that it read while autograd was on. A parameter that only the graph behind ``output`` knows was
    made in the forward, or is what arithmetic in the constructor began with.
    """
    wanted = {id(leaf): leaf for leaf in read if leaf.requires_grad and leaf.is_leaf and id(leaf) in watched}
    own = {id(tensor) for tensor in known}
    for leaf in leaves_behind(output_tensors(output)):
        if isinstance(leaf, torch.nn.Parameter) and id(leaf) not in own:
            wanted[id(leaf)] = leaf
    if not wanted:
        return ()
    held = dict(_held(module))
    names = {id(tensor): name for name, tensor in reversed(held.items())}
    for name, tensor in held.items():
        if tensor.grad_fn is not None:
            for leaf in leaves_behind([tensor]):
                names.setdefault(id(leaf), name)
    return tuple(sorted(names.get(key, f"unregistered {tuple(leaf.shape)}") for key, leaf in wanted.items()))


def _held(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that plain attributes of modules hold, in lists and dictionaries too, by name."""
    for prefix, owner in module.named_modules():
        for name, value in vars(owner).items():
            if not name.startswith("_"):
                yield from _collected(value, f"{prefix}.{name}".lstrip("."))


def _collected(value: Any, name: str, depth: int = 3) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, torch.nn.Module):
        for inner, parameter in value.named_parameters():
            yield f"{name}.{inner}", parameter
    elif depth and isinstance(value, dict):
        for key, each in value.items():
            yield from _collected(each, f"{name}.{key}", depth - 1)
    elif depth and isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _collected(each, f"{name}.{number}", depth - 1)
