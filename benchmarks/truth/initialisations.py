"""Initialisations: what a healthy twin is turned into. Each is mechanical, and the same for all families.

An initialisation gives the addresses of what it planted; none where it does not apply. Those that go to ``every``
family are joined by a quarter of the others, as if at random, so that all strengths of a fault meet all kinds of
families.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from zlib import crc32

import torch
from torch import Tensor, nn

from .families import RELU, Family, biases, draw, fan_in, hidden, is_table, maps, matching, norm_gains, pieces
from .planting import adapted, copied_units, forget_bias, one_matrix, orthogonal_recurrence, zero_queries

Planted = tuple[str, ...]
Plant = Callable[[nn.Module, Family], Planted]


SHARE = 4
"""One in so many of the initialisations that do not go to every family."""


class Intent(StrEnum):
    HEALTHY = "healthy"
    IDIOM = "idiom"
    FAULT = "fault"


@dataclass(frozen=True)
class Initialisation:
    name: str
    intent: Intent
    plant: Plant
    every: bool = False

    def apply(self, module: nn.Module, family: Family) -> Planted:
        """Change the twin in place."""
        with torch.no_grad():
            return self.plant(module, family)


# -- where -----------------------------------------------------------------------------------------------------------

Where = Callable[[nn.Module, Family], list[str]]


def middle(module: nn.Module, family: Family) -> list[str]:
    names = hidden(module, family)
    return [names[len(names) // 2]]


def first(module: nn.Module, family: Family) -> list[str]:
    return hidden(module, family)[:1]


def everything(module: nn.Module, family: Family) -> list[str]:
    return maps(module)


def heads(module: nn.Module, family: Family) -> list[str]:
    return matching(module, family.heads)


def ends(module: nn.Module, family: Family) -> list[str]:
    return matching(module, family.ends)


def branch(module: nn.Module, family: Family) -> list[str]:
    return matching(module, family.branch)


def branch_gains(module: nn.Module, family: Family) -> list[str]:
    return matching(module, family.gains)


def all_gains(module: nn.Module, family: Family) -> list[str]:
    return norm_gains(module)


def hidden_biases(module: nn.Module, family: Family) -> list[str]:
    return biases(module, hidden(module, family))


def head_biases(module: nn.Module, family: Family) -> list[str]:
    classifies = family.task in ("flat", "image", "rows", "echo")
    return biases(module, heads(module, family)) if classifies else []


def tables(module: nn.Module, family: Family) -> list[str]:
    return [name for name, _ in module.named_parameters() if is_table(module, name)]


def modulations(module: nn.Module, family: Family) -> list[str]:
    names = [name for name in maps(module) if "modulation" in name]
    return names + biases(module, names)


# -- what ------------------------------------------------------------------------------------------------------------


def to(where: Where, change: Callable[[Tensor], object]) -> Plant:
    """Change every tensor there as a whole."""

    def plant(module: nn.Module, family: Family) -> Planted:
        names = where(module, family)
        for name in names:
            change(module.get_parameter(name))
        return tuple(names)

    return plant


def of_pieces(where: Where, change: Callable[[Tensor], object]) -> Plant:
    """Change every tensor there gate by gate, expert by expert."""

    def plant(module: nn.Module, family: Family) -> Planted:
        names = where(module, family)
        for name in names:
            for piece in pieces(module, name):
                change(piece)
        return tuple(names)

    return plant


def scheme(drawn: Callable[[Tensor], object]) -> Plant:
    """Draw all maps anew, and no bias."""
    return lambda module, family: draw(module, family, drawn)


def fill(value: float) -> Callable[[Tensor], object]:
    return lambda tensor: tensor.fill_(value)


def times(factor: float) -> Callable[[Tensor], object]:
    return lambda tensor: tensor.mul_(factor)


def normal(gain: float, fan: Callable[[Tensor], float]) -> Callable[[Tensor], object]:
    return lambda piece: nn.init.normal_(piece, std=gain / math.sqrt(fan(piece)))


def constant(piece: Tensor) -> None:
    """The same size as He's draw, without its randomness."""
    piece.fill_(1 / math.sqrt(fan_in(piece)))


def orthogonal(piece: Tensor) -> None:
    drawn = torch.empty(piece.shape)  # a view cannot be drawn in place
    piece.copy_(nn.init.orthogonal_(drawn, gain=RELU))


def one_entry(value: float) -> Callable[[Tensor], object]:
    def change(tensor: Tensor) -> None:
        tensor.view(-1)[tensor.numel() // 2] = value

    return change


def sparse(share: float) -> Callable[[Tensor], object]:
    return lambda tensor: tensor.mul_(torch.rand_like(tensor) >= share)


def half_zero(piece: Tensor) -> None:
    piece[: len(piece) // 2] = 0.0


def shifted(piece: Tensor) -> None:
    piece.add_(piece.std())


def rank_one(piece: Tensor) -> None:
    flat = piece.flatten(1)
    piece.copy_((torch.randn(len(flat), 1) * torch.randn(1, flat.shape[1]) * flat.std()).view_as(piece))


def alternating(size: float) -> Callable[[Tensor], object]:
    return lambda tensor: tensor.copy_(size * (1 - 2 * (torch.arange(len(tensor)) % 2)))


def default(module: nn.Module, family: Family) -> Planted:
    for each in module.modules():
        if hasattr(each, "reset_parameters"):
            each.reset_parameters()
    for name in maps(module):
        if module.get_parameter(name).ndim == 3:
            for piece in pieces(module, name):
                nn.init.kaiming_uniform_(piece, a=math.sqrt(5))
    return tuple(maps(module))


def gpt2(module: nn.Module, family: Family) -> Planted:
    names = ends(module, family)
    if not names:
        return ()
    draw(module, family, lambda piece: nn.init.normal_(piece, std=0.02))
    for name in names:
        module.get_parameter(name).div_(math.sqrt(len(names)))
    return tuple(maps(module))


def both(one: Plant, other: Plant) -> Plant:
    """Both, where both apply."""

    def plant(module: nn.Module, family: Family) -> Planted:
        planted = one(module, family)
        rest = other(module, family)
        return (*planted, *rest) if planted and rest else ()

    return plant


def _scales() -> Iterator[Initialisation]:
    for factor in (100, 10, 0.1, 0.01, 0.001):
        yield Initialisation(f"x{factor} in one", Intent.FAULT, to(middle, times(factor)))
        yield Initialisation(f"x{factor} in all", Intent.FAULT, to(everything, times(factor)), factor in (100, 0.01))


INITIALISATIONS = (
    Initialisation("twin", Intent.HEALTHY, lambda module, family: tuple(maps(module)), every=True),
    Initialisation("torch default", Intent.HEALTHY, default, every=True),
    Initialisation("He normal", Intent.HEALTHY, scheme(normal(RELU, fan_in))),
    Initialisation("He uniform", Intent.HEALTHY, scheme(partial(nn.init.kaiming_uniform_, nonlinearity="relu"))),
    Initialisation("Xavier uniform", Intent.HEALTHY, scheme(nn.init.xavier_uniform_)),
    Initialisation("LeCun normal", Intent.HEALTHY, scheme(normal(1.0, fan_in))),
    Initialisation("orthogonal", Intent.HEALTHY, scheme(orthogonal)),
    # idioms
    Initialisation("zero branch ends", Intent.IDIOM, to(ends, fill(0.0)), every=True),
    Initialisation("zero branch gains", Intent.IDIOM, to(branch_gains, fill(0.0)), every=True),
    Initialisation("branch ends x1e-4", Intent.IDIOM, to(ends, times(1e-4)), every=True),
    Initialisation("branch ends x0.35", Intent.IDIOM, to(ends, times(0.35)), every=True),
    Initialisation("zero head", Intent.IDIOM, to(heads, fill(0.0)), every=True),
    Initialisation("LoRA", Intent.IDIOM, partial(adapted, zero_down=False), every=True),
    Initialisation("forget bias 1", Intent.IDIOM, forget_bias, every=True),
    Initialisation("focal prior", Intent.IDIOM, to(head_biases, fill(-math.log(99)))),
    Initialisation("GPT-2", Intent.IDIOM, gpt2, every=True),
    Initialisation("adaLN zero", Intent.IDIOM, to(modulations, fill(0.0)), every=True),
    Initialisation("adaLN and head zero", Intent.IDIOM, both(to(modulations, fill(0.0)), to(heads, fill(0.0))), True),
    Initialisation("orthogonal recurrence", Intent.IDIOM, orthogonal_recurrence, every=True),
    Initialisation("bias 0.1", Intent.IDIOM, to(hidden_biases, fill(0.1))),
    Initialisation("zero queries", Intent.IDIOM, zero_queries, every=True),
    Initialisation("tables of std 0.02", Intent.IDIOM, to(tables, lambda t: nn.init.normal_(t, std=0.02)), every=True),
    # faults: zeros, constants, copies
    Initialisation("zeros in one", Intent.FAULT, to(middle, fill(0.0)), every=True),
    Initialisation("zeros in the first", Intent.FAULT, to(first, fill(0.0))),
    Initialisation("zeros in all", Intent.FAULT, to(everything, fill(0.0))),
    Initialisation("zeros in half of one", Intent.FAULT, of_pieces(middle, half_zero)),
    Initialisation("zero branch", Intent.FAULT, to(branch, fill(0.0)), every=True),
    Initialisation("zero LoRA pair", Intent.FAULT, partial(adapted, zero_down=True), every=True),
    Initialisation("zero gains", Intent.FAULT, to(all_gains, fill(0.0))),
    Initialisation("constant in one", Intent.FAULT, of_pieces(middle, constant)),
    Initialisation("constant in all", Intent.FAULT, of_pieces(everything, constant), every=True),
    Initialisation("half of the units copied", Intent.FAULT, partial(copied_units, readout=False)),
    Initialisation("units and readout copied", Intent.FAULT, partial(copied_units, readout=True), every=True),
    Initialisation("one matrix for all layers", Intent.FAULT, one_matrix),
    # faults: scales and shapes of the distribution
    *_scales(),
    Initialisation("x100 in the head", Intent.FAULT, to(heads, times(100))),
    Initialisation("std 1 in all", Intent.FAULT, to(everything, nn.init.normal_)),
    Initialisation("std 0.01 in all", Intent.FAULT, to(everything, lambda t: nn.init.normal_(t, std=0.01)), every=True),
    Initialisation("uniform(0, 1) in all", Intent.FAULT, to(everything, nn.init.uniform_), every=True),
    Initialisation("uniform(0, 1) in one", Intent.FAULT, to(middle, nn.init.uniform_)),
    Initialisation("mean of one std in all", Intent.FAULT, of_pieces(everything, shifted)),
    Initialisation("fan of the units alone", Intent.FAULT, of_pieces(everything, normal(RELU, len))),
    Initialisation("fan of the whole tensor", Intent.FAULT, of_pieces(everything, normal(RELU, Tensor.numel))),
    Initialisation("rank one in one", Intent.FAULT, of_pieces(middle, rank_one)),
    Initialisation("rank one in all", Intent.FAULT, of_pieces(everything, rank_one)),
    Initialisation("99 % zeros in one", Intent.FAULT, to(middle, sparse(0.99))),
    Initialisation("99 % zeros in all", Intent.FAULT, to(everything, sparse(0.99))),
    # faults: biases, garbage
    Initialisation("bias -1", Intent.FAULT, to(hidden_biases, fill(-1.0))),
    Initialisation("bias -5", Intent.FAULT, to(hidden_biases, fill(-5.0))),
    Initialisation("bias -20", Intent.FAULT, to(hidden_biases, fill(-20.0))),
    Initialisation("bias +5", Intent.FAULT, to(hidden_biases, fill(5.0))),
    Initialisation("bias +-20", Intent.FAULT, to(hidden_biases, alternating(20.0))),
    Initialisation("one NaN", Intent.FAULT, to(middle, one_entry(math.nan))),
    Initialisation("one 1e30", Intent.FAULT, to(middle, one_entry(1e30))),
)


def chosen(family: Family) -> Iterator[Initialisation]:
    """What a family is put to, whether it applies or not: by the names alone, so that more can be added."""
    for each in INITIALISATIONS:
        if each.every or crc32(f"{family.name}, {each.name}".encode()) % SHARE == 0:
            yield each
