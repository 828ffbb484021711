"""What a module and those inside it have registered: asked once for a run, since each question walks the whole tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Registered:
    """Parameters and buffers by their first qualified names, each once."""

    parameters: Mapping[str, torch.nn.Parameter]
    buffers: Mapping[str, torch.Tensor]
    aliases: Mapping[str, tuple[str, ...]]
    """Every qualified name of a parameter, by its first one."""
    names: Mapping[int, str]
    """The first qualified name of a module, by its identity."""

    @classmethod
    def of(cls, module: torch.nn.Module) -> Registered:
        inside = named_modules(module)
        parameters: dict[str, torch.nn.Parameter] = {}
        by_identity: dict[int, list[str]] = {}
        for name, parameter in _parameters(module, inside):
            names = by_identity.setdefault(id(parameter), [])
            if not names:
                parameters[name] = parameter
            names.append(name)
        aliases = {names[0]: tuple(names) for names in by_identity.values()}
        return cls(parameters, _buffers(module, inside), aliases, {id(each): name for name, each in reversed(inside)})


_Named = Sequence[tuple[str, torch.nn.Module]]


def _parameters(root: torch.nn.Module, inside: _Named) -> Iterable[tuple[str, torch.nn.Parameter]]:
    """``root.named_parameters(remove_duplicate=False)``, of which some wrappers have one of their own."""
    if type(root).named_parameters is not torch.nn.Module.named_parameters:
        return root.named_parameters(remove_duplicate=False)
    held = ((prefix, name, each) for prefix, owner in inside for name, each in owner._parameters.items())
    return [(f"{prefix}.{name}" if prefix else name, each) for prefix, name, each in held if each is not None]


def _buffers(root: torch.nn.Module, inside: _Named) -> dict[str, torch.Tensor]:
    """``root.named_buffers()``, of which some wrappers have one of their own."""
    if type(root).named_buffers is not torch.nn.Module.named_buffers:
        return dict(root.named_buffers())
    held = ((prefix, name, each) for prefix, owner in inside for name, each in owner._buffers.items())
    known: dict[int, tuple[str, torch.Tensor]] = {}
    for prefix, name, each in held:
        if each is not None:
            known.setdefault(id(each), (f"{prefix}.{name}" if prefix else name, each))
    return dict(known.values())


def named_modules(root: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """``root`` and what is inside it by every name that it has, in the order of ``root.named_modules()``.

    That one is a generator within a generator for each level, through all of which each module passes; and where a
    module holds one that it is inside of, it has no end.
    """
    found: list[tuple[str, torch.nn.Module]] = []
    above: set[int] = set()

    def walk(path: str, module: torch.nn.Module) -> None:
        found.append((path, module))
        above.add(id(module))
        prefix = f"{path}." if path else ""
        for name, each in module._modules.items():
            if each is not None and id(each) not in above:
                walk(prefix + name, each)
        above.discard(id(module))

    walk("", root)
    return found


def modules_of(root: torch.nn.Module) -> list[torch.nn.Module]:
    """``root`` and what is inside it, each once, in the order of ``root.modules()``, which makes up all their names."""
    found: dict[int, torch.nn.Module] = {}
    pending = [root]
    while pending:
        module = pending.pop()
        if id(module) not in found:
            found[id(module)] = module
            if inside := module._modules:
                pending += [each for _, each in inside.items() if each is not None][::-1]
    return list(found.values())


def tensors_of(modules: Iterable[torch.nn.Module]) -> tuple[list[torch.nn.Parameter], list[torch.Tensor]]:
    """(parameters, buffers) that ``modules`` hold themselves, each once; names are not made up for them."""
    parameters: dict[int, torch.nn.Parameter] = {}
    buffers: dict[int, torch.Tensor] = {}
    for each in modules:
        if own := each._parameters:
            for _, parameter in own.items():  # what scripted modules have there knows no values()
                if parameter is not None:
                    parameters.setdefault(id(parameter), parameter)
        if held := each._buffers:
            for _, buffer in held.items():
                if buffer is not None:
                    buffers.setdefault(id(buffer), buffer)
    return list(parameters.values()), list(buffers.values())
