"""Initialisations that need more than one tensor, or another module: adapters, copies, gates."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from training import parts_of

from .families import Family, biases, hidden, maps, pieces


class Adapted(nn.Module):
    """LoRA (Hu et al. 2022) on a frozen linear map."""

    def __init__(self, base: nn.Linear, zero_down: bool, rank: int = 4) -> None:
        super().__init__()
        self.base = base
        base.weight.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)
        if zero_down:
            nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def adapted(module: nn.Module, family: Family, zero_down: bool) -> tuple[str, ...]:
    """An adapter on the middle one of the hidden linear maps."""
    owners = [name.rpartition(".")[0] for name in hidden(module, family)]
    linear = [name for name in owners if name and _is_called(module, name)]
    if not linear:
        return ()
    name = linear[len(linear) // 2]
    base = module.get_submodule(name)
    assert isinstance(base, nn.Linear)
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, Adapted(base, zero_down))
    return (f"{name}.down.weight", f"{name}.up.weight") if zero_down else (f"{name}.up.weight",)


def _is_called(module: nn.Module, name: str) -> bool:
    """Whether it is a linear map of its own; torch's attention reads the weight of its last one without a call."""
    parent = module.get_submodule(name.rpartition(".")[0])
    return isinstance(module.get_submodule(name), nn.Linear) and not isinstance(parent, nn.MultiheadAttention)


def copied_units(module: nn.Module, family: Family, readout: bool) -> tuple[str, ...]:
    """The second half of a layer's units are copies of the first; so is what reads them, if ``readout``."""
    names, inner = maps(module), hidden(module, family)
    name = inner[len(inner) // 2]
    planted = [name]
    if readout:
        after = names[names.index(name) + 1]
        if not family.plain or module.get_parameter(after).shape[1] != len(module.get_parameter(name)):
            return ()
        _copy_half(module.get_parameter(after).transpose(0, 1))
        planted.append(after)
    for piece in pieces(module, name):
        _copy_half(piece)
    for bias in biases(module, [name]):
        for part in module.get_parameter(bias).chunk(len(parts_of(module, name)) or 1):
            _copy_half(part)
    return tuple(planted)


def _copy_half(units: Tensor) -> None:
    half = len(units) // 2
    units[half : 2 * half] = units[:half].clone()


def one_matrix(module: nn.Module, family: Family) -> tuple[str, ...]:
    """All weights of a shape are copies of the first one: a shared initializer with a fixed seed."""
    first: dict[tuple[int, ...], Tensor] = {}
    planted = []
    for name in maps(module):
        weight = module.get_parameter(name)
        if tuple(weight.shape) in first:
            weight.copy_(first[tuple(weight.shape)])
            planted.append(name)
        else:
            first[tuple(weight.shape)] = weight
    return tuple(planted)


def forget_bias(module: nn.Module, family: Family) -> tuple[str, ...]:
    """Jozefowicz et al. 2015: an LSTM forgets little at first."""
    planted = []
    for name, parameter in module.named_parameters():
        owner = module.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, nn.LSTM) and "bias_ih" in name:
            parameter.chunk(4)[1].fill_(1.0)
            planted.append(name)
    return tuple(planted)


def recurrences(module: nn.Module, family: Family) -> list[str]:
    return [name for name in maps(module) if "weight_hh" in name or "recurrent" in name]


def orthogonal_recurrence(module: nn.Module, family: Family) -> tuple[str, ...]:
    """Orthogonal gate by gate, as in Keras."""
    planted = recurrences(module, family)
    for name in planted:
        for gate in pieces(module, name):
            gate.copy_(nn.init.orthogonal_(torch.empty(gate.shape)))
    return tuple(planted)


def doubling(module: nn.Module, family: Family) -> tuple[str, ...]:
    """Each hidden map at twice the scale of the one before it."""
    names = hidden(module, family)[1:]
    for number, name in enumerate(names, 1):
        module.get_parameter(name).mul_(2.0**number)
    return tuple(names)


def zeros_in_two(module: nn.Module, family: Family) -> tuple[str, ...]:
    """Two hidden maps by chance, others for another seed."""
    names = hidden(module, family)
    if len(names) < 3:
        return ()
    planted = [names[number] for number in torch.randperm(len(names))[:2].tolist()]
    for name in planted:
        module.get_parameter(name).zero_()
    return tuple(planted)


def zero_queries(module: nn.Module, family: Family) -> tuple[str, ...]:
    """muP (Yang et al. 2022): zero queries, packed or not, and their biases."""
    planted = []
    for name, parameter in module.named_parameters():
        if ".query." in name:
            parameter.zero_()
            planted.append(name)
        elif ".qkv." in name:
            parameter.chunk(3)[0].zero_()
            planted.append(name)
    return tuple(planted)
