"""What a module and those inside it have registered: asked once for a run, since each question walks the whole tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Registered:
    """Parameters and buffers by their first qualified names, each once."""

    parameters: Mapping[str, torch.nn.Parameter]
    buffers: Mapping[str, torch.Tensor]
    aliases: Mapping[str, tuple[str, ...]]
    """Every qualified name of a parameter, by its first one."""

    @classmethod
    def of(cls, module: torch.nn.Module) -> Registered:
        parameters: dict[str, torch.nn.Parameter] = {}
        buffers: dict[int, tuple[str, torch.Tensor]] = {}
        by_identity: dict[int, list[str]] = {}
        for path, each in named_modules(module):
            prefix = f"{path}." if path else ""
            for name, parameter in each._parameters.items():
                if parameter is not None:
                    names = by_identity.setdefault(id(parameter), [])
                    if not names:
                        parameters[prefix + name] = parameter
                    names.append(prefix + name)
            for name, buffer in each._buffers.items():
                if buffer is not None:
                    buffers.setdefault(id(buffer), (prefix + name, buffer))
        aliases = {names[0]: tuple(names) for names in by_identity.values()}
        return cls(parameters, dict(buffers.values()), aliases)


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
            inside = [each for _, each in module._modules.items() if each is not None]
            pending.extend(reversed(inside))
    return list(found.values())


def tensors_of(modules: Iterable[torch.nn.Module]) -> tuple[list[torch.nn.Parameter], list[torch.Tensor]]:
    """(parameters, buffers) that ``modules`` hold themselves, each once; names are not made up for them."""
    parameters: dict[int, torch.nn.Parameter] = {}
    buffers: dict[int, torch.Tensor] = {}
    for each in modules:
        for _, parameter in each._parameters.items():  # what scripted modules have there knows no values()
            if parameter is not None:
                parameters.setdefault(id(parameter), parameter)
        for _, buffer in each._buffers.items():
            if buffer is not None:
                buffers.setdefault(id(buffer), buffer)
    return list(parameters.values()), list(buffers.values())
