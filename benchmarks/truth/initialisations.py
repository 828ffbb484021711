"""Initialisations: what a healthy twin is turned into. Each is mechanical, and the same for all families.

An initialisation gives the addresses of what it planted; none where it does not apply. Those that go to ``every``
family are joined by a quarter of the others, as if at random, so that all strengths of a fault meet all kinds of
families. Of the second split's pairs there are fewer, as all would be too many to train.
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

from .changes import (
    every_second_zero,
    fan_out,
    half_loud,
    heavy_tailed,
    identity,
    one_row,
    outliers,
    root_taken_twice,
    truncated,
    variance_as_std,
)
from .families import RELU, Family, biases, draw, fan_in, hidden, is_stack, is_table, maps, matching, norm_gains, pieces
from .planting import (
    adapted,
    copied_units,
    doubling,
    forget_bias,
    one_matrix,
    orthogonal_recurrence,
    recurrences,
    zero_queries,
    zeros_in_two,
)
from .split import REPORTED_FAMILIES, REPORTED_INITIALISATIONS

Planted = tuple[str, ...]
Plant = Callable[[nn.Module, Family], Planted]


SHARE = 4
"""One in so many of the initialisations that do not go to every family."""
THIN = 12
"""One in so many families for those of the second split that do not go to every family."""


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
    classifies = family.task in ("flat", "image", "rows", "echo", "tokens", "binary")
    return biases(module, heads(module, family)) if classifies else []


def all_head_biases(module: nn.Module, family: Family) -> list[str]:
    return biases(module, heads(module, family))


def middle_biases(module: nn.Module, family: Family) -> list[str]:
    return biases(module, middle(module, family))


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


def orthogonal(piece: Tensor, gain: float = RELU) -> None:
    drawn = torch.empty(piece.shape)  # a view cannot be drawn in place
    piece.copy_(nn.init.orthogonal_(drawn, gain=gain))


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
        if is_stack(module, name):
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


def bert(module: nn.Module, family: Family) -> Planted:
    """Devlin et al. 2019: one size for all maps and tables."""
    names = tables(module, family)
    if not names:
        return ()
    for name in names:
        nn.init.trunc_normal_(module.get_parameter(name), std=0.02)
    return (*draw(module, family, partial(nn.init.trunc_normal_, std=0.02)), *names)


def deepnet(module: nn.Module, family: Family) -> Planted:
    """Wang et al. 2022, for encoders: ends of branches by the fourth root of eight times the number of blocks."""
    names = ends(module, family)
    for name in names:
        module.get_parameter(name).mul_((4 * len(names)) ** -0.25)  # two branches a block
    return tuple(names)


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
    # of the second split: healthy and idioms
    Initialisation("truncated normal", Intent.HEALTHY, scheme(truncated)),
    Initialisation("He of fan-out", Intent.HEALTHY, scheme(normal(RELU, fan_out))),
    Initialisation("orthogonal of gain 1", Intent.HEALTHY, scheme(partial(orthogonal, gain=1.0))),
    Initialisation("Xavier normal", Intent.HEALTHY, scheme(nn.init.xavier_normal_)),
    Initialisation("BERT", Intent.IDIOM, bert, every=True),
    Initialisation("DeepNet", Intent.IDIOM, deepnet),
    Initialisation("head x0.01", Intent.IDIOM, to(heads, times(0.01))),
    Initialisation("branch gains 1e-4", Intent.IDIOM, to(branch_gains, fill(1e-4)), every=True),
    Initialisation("identity recurrence", Intent.IDIOM, of_pieces(recurrences, identity), every=True),
    Initialisation("identity where square", Intent.IDIOM, of_pieces(hidden, identity)),
    # of the second split: faults
    Initialisation("uniform(-1, 1) in all", Intent.FAULT, to(everything, partial(nn.init.uniform_, a=-1.0))),
    Initialisation("uniform(0, 0.1) in all", Intent.FAULT, to(everything, partial(nn.init.uniform_, b=0.1))),
    Initialisation("std 0.1 in all", Intent.FAULT, to(everything, partial(nn.init.normal_, std=0.1))),
    Initialisation("N(1, 1) in one", Intent.FAULT, to(middle, partial(nn.init.normal_, mean=1.0))),
    Initialisation("Cauchy in all", Intent.FAULT, of_pieces(everything, heavy_tailed)),
    Initialisation("1 % outliers in all", Intent.FAULT, to(everything, outliers)),
    Initialisation("variance as std", Intent.FAULT, of_pieces(everything, variance_as_std)),
    Initialisation("root taken twice", Intent.FAULT, of_pieces(everything, root_taken_twice)),
    Initialisation("twice the map before", Intent.FAULT, doubling),
    Initialisation("x1000 in one", Intent.FAULT, to(middle, times(1000))),
    Initialisation("x1e-8 in one", Intent.FAULT, to(middle, times(1e-8))),
    Initialisation("half of one x100", Intent.FAULT, of_pieces(middle, half_loud)),
    Initialisation("recurrence x3", Intent.FAULT, to(recurrences, times(3.0)), every=True),
    Initialisation("one sign in one", Intent.FAULT, to(middle, Tensor.abs_)),
    Initialisation("one sign in all", Intent.FAULT, to(everything, Tensor.abs_)),
    Initialisation("zeros in two", Intent.FAULT, zeros_in_two),
    Initialisation("every second unit zero", Intent.FAULT, of_pieces(hidden, every_second_zero)),
    Initialisation("one row for all in one", Intent.FAULT, of_pieces(middle, one_row)),
    Initialisation("one row for all in all", Intent.FAULT, of_pieces(everything, one_row)),
    Initialisation("tables of zeros", Intent.FAULT, to(tables, fill(0.0)), every=True),
    Initialisation("tables x100", Intent.FAULT, to(tables, times(100)), every=True),
    Initialisation("gains x0.01", Intent.FAULT, to(all_gains, fill(0.01))),
    Initialisation("gains x100", Intent.FAULT, to(all_gains, fill(100.0))),
    Initialisation("gains -1", Intent.FAULT, to(all_gains, fill(-1.0))),
    Initialisation("biases of std 5", Intent.FAULT, to(hidden_biases, partial(nn.init.normal_, std=5.0))),
    Initialisation("bias -3 in one", Intent.FAULT, to(middle_biases, fill(-3.0))),
    Initialisation("bias +100 in one", Intent.FAULT, to(middle_biases, fill(100.0))),
    Initialisation("one head bias of 100", Intent.FAULT, to(all_head_biases, one_entry(100.0))),
    Initialisation("one inf", Intent.FAULT, to(middle, one_entry(math.inf))),
)


def chosen(family: Family) -> Iterator[Initialisation]:
    """What a family is put to, whether it applies or not: by the names alone, so that more can be added."""
    for each in INITIALISATIONS:
        if crc32(f"{family.name}, {each.name}".encode()) % _share(family, each) == 0:
            yield each


def _share(family: Family, each: Initialisation) -> int:
    """An initialisation goes to one in so many families."""
    if each.name in REPORTED_INITIALISATIONS:
        return 1 if each.every else THIN
    share = 1 if each.every else SHARE
    thinned = family.name in REPORTED_FAMILIES and each.name != "twin"
    return share * SHARE if thinned else share
