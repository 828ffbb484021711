"""Changes of an initialisation that are drawn by chance: where, what and how much of it.

Nothing of them is a list of known bugs: each is a place (one tensor, all of a kind, a random half), a change (of scale,
of the mean, of the shape of the distribution, of single rows, columns, entries) and a strength on a logarithmic scale
from what nobody would notice to what nothing survives. What it does to training is for training to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from random import Random

import torch
from torch import Tensor, nn

from .families import Family, biases, fan_in, is_table, maps, norm_gains, pieces
from .initialisations import Initialisation, Intent, Planted

Change = Callable[[Tensor], object]


# -- where -----------------------------------------------------------------------------------------------------------


def some_place(random: Random, module: nn.Module) -> tuple[str, list[str]]:
    """What it is called, and names of parameters; none where there is no such place."""
    every = [name for name, _ in module.named_parameters()]
    mapped, gains = maps(module), norm_gains(module)
    tables = [name for name in every if is_table(module, name)]
    of_maps = biases(module, mapped)
    kind = random.choices(
        ("a map", "some maps", "all maps", "alike", "the first", "the head", "a bias", "all biases", "some biases",
         "a gain", "all gains", "norm biases", "tables", "anything", "two"),
        (8, 4, 5, 4, 1, 2, 2, 3, 2, 1, 2, 1, 2, 3, 2),
    )[0]  # fmt: skip
    if kind == "a map":
        return kind, [random.choice(mapped)]
    if kind == "some maps":
        return kind, random.sample(mapped, max(1, len(mapped) // 2))
    if kind == "two":
        return kind, random.sample(mapped, min(2, len(mapped)))
    if kind == "alike":  # all that have the name of one in their modules
        last = random.choice(mapped).rpartition(".")[0].rpartition(".")[2]
        return kind, [name for name in mapped if f".{last}." in f".{name}"]
    choices: dict[str, list[str]] = {
        "all maps": mapped,
        "the first": mapped[:1],
        "the head": ["head.weight"],
        "a bias": random.sample(of_maps, min(1, len(of_maps))),
        "some biases": random.sample(of_maps, (len(of_maps) + 1) // 2),
        "all biases": of_maps,
        "a gain": random.sample(gains, min(1, len(gains))),
        "all gains": gains,
        "norm biases": [name.replace("weight", "bias") for name in gains if name.replace("weight", "bias") in every],
        "tables": tables,
        "anything": [random.choice(every)],
    }
    return kind, choices[kind]


# -- what ------------------------------------------------------------------------------------------------------------


def strength(random: Random, low: float, high: float) -> float:
    """Between two powers of ten, to two digits."""
    return float(f"{10 ** random.uniform(low, high):.2g}")


def rows_of(share: float, change: Change) -> Change:
    """Change a random share of the units alone, one at least."""

    def changed(piece: Tensor) -> None:
        count = max(1, round(share * len(piece)))
        for row in torch.randperm(len(piece))[:count].tolist():
            change(piece[row])

    return changed


def columns_of(share: float, change: Change) -> Change:
    return lambda piece: rows_of(share, change)(piece.transpose(0, 1))


def entries(share: float, value: float) -> Change:
    return lambda piece: piece.masked_fill_(torch.rand_like(piece) < share, value)


def some_entries(share: float, factor: float) -> Change:
    return lambda piece: piece.mul_(torch.where(torch.rand_like(piece) < share, factor, 1.0))


def one_for_all(piece: Tensor) -> None:
    piece.copy_(piece[:1].clone().expand_as(piece))


def copies(share: float) -> Change:
    """So many rows are copies of the first."""
    return lambda piece: piece[: max(2, round(share * len(piece)))].copy_(piece[:1].clone())


def moved(stds: float) -> Change:
    return lambda piece: piece.add_(stds * piece.std())


def low_rank(rank: int) -> Change:
    def change(piece: Tensor) -> None:
        flat = piece.flatten(1)
        drawn = torch.randn(len(flat), rank) @ torch.randn(rank, flat.shape[1]) / rank**0.5
        piece.copy_((drawn * flat.std()).view_as(piece))

    return change


def student(freedom: float) -> Change:
    drawn = torch.distributions.StudentT(freedom)
    return lambda piece: piece.copy_(drawn.sample(piece.shape) * piece.std())


def lognormal_rows(sigma: float) -> Change:
    return lambda piece: piece.mul_(torch.exp(sigma * torch.randn(len(piece), *[1] * (piece.ndim - 1))))


def noise(std: float) -> Change:
    return lambda piece: piece.add_(std * torch.randn(piece.shape))


def quantised(levels: int) -> Change:
    """Rounded to so many steps of the largest: what integer weights become."""
    return lambda piece: piece.copy_((piece / piece.abs().max() * levels).round() * piece.abs().max() / levels)


def fan_of(power: float) -> Change:
    """A standard deviation of the fan-in to a wrong power."""
    return lambda piece: nn.init.normal_(piece, std=fan_in(piece) ** -power)


def fill(value: float) -> Change:
    return lambda piece: piece.fill_(value)


def times(factor: float) -> Change:
    return lambda piece: piece.mul_(factor)


def a_map_change(random: Random) -> tuple[str, Change]:
    share = random.choice((0.1, 0.25, 0.5, 0.75, 0.9, 1.0))
    up, down = strength(random, 0.3, 3), strength(random, -4, -0.3)
    changes: list[tuple[float, str, Change]] = [
        (4, f"times {up:g}", times(up)),
        (4, f"times {down:g}", times(down)),
        (2, "zeros", fill(0.0)),
        (2, f"zeros in {share:.0%} of the rows", rows_of(share, fill(0.0))),
        (1, f"zeros in {share:.0%} of the columns", columns_of(share, fill(0.0))),
        (2, f"zeros in {share:.0%} of the entries", entries(share, 0.0)),
        (2, f"{share:.0%} of the rows copies", copies(share)),
        (1, "one row for all", one_for_all),
        (1, f"constant {down:g}", fill(down)),
        (1, "constant 1", fill(1.0)),
        (2, f"moved by {up / 10:g} stds", moved(up / 10)),
        (1, "absolute", Tensor.abs_),
        (1, "negated", times(-1.0)),
        (1, f"uniform(0, {down:g})", partial(nn.init.uniform_, b=down)),
        (1, f"uniform(-{up / 10:g}, {up / 10:g})", partial(nn.init.uniform_, a=-up / 10, b=up / 10)),
        (1, f"normal of std {down:g}", partial(nn.init.normal_, std=down)),
        (1, f"normal of std {up / 10:g}", partial(nn.init.normal_, std=up / 10)),
        (1, f"fan to the power {share * 2:g}", fan_of(share * 2)),
        (1, f"rank {int(10 * share)}", low_rank(int(10 * share))),
        (1, f"student of {1 + share:g}", student(1 + share)),
        (1, f"rows by exp({3 * share:g} normal)", lognormal_rows(3 * share)),
        (1, f"{share:.0%} of the rows times {up:g}", rows_of(share, times(up))),
        (1, f"{share:.0%} of the columns times {up:g}", columns_of(share, times(up))),
        (1, f"{share / 10:.1%} of the entries times {up:g}", some_entries(share / 10, up)),
        (0.5, f"rounded to {int(8 * share) + 1} steps", quantised(int(8 * share) + 1)),
        (0.5, f"one unit of {up:g}", lambda piece: piece[len(piece) // 2].fill_(up)),
        (0.3, "one NaN", lambda piece: piece.view(-1)[piece.numel() // 2].fill_(math.nan)),
        (0.3, "one inf", lambda piece: piece.view(-1)[piece.numel() // 3].fill_(math.inf)),
    ]
    weights, names, functions = zip(*changes, strict=True)
    chosen = random.choices(range(len(changes)), weights)[0]
    return names[chosen], functions[chosen]


def a_vector_change(random: Random, is_gain: bool) -> tuple[str, Change]:
    share = random.choice((0.1, 0.25, 0.5, 0.75, 0.9))
    size, sign = strength(random, -1, 2.3), random.choice((-1.0, 1.0))
    factor = strength(random, -4, 3)
    changes: list[tuple[float, str, Change]] = [
        (3, f"{sign * size:g} everywhere", fill(sign * size)),
        (2, f"plus normal of std {size:g}", noise(size)),
        (2, f"{sign * size:g} in {share:.0%}", entries(share, sign * size)),
        (4 if is_gain else 0, f"times {factor:g}", times(factor)),
        (2 if is_gain else 0, f"zeros in {share:.0%}", entries(share, 0.0)),
        (2 if is_gain else 0, "zeros", fill(0.0)),
        (1 if is_gain else 0, "negated", times(-1.0)),
    ]
    weights, names, functions = zip(*changes, strict=True)
    chosen = random.choices(range(len(changes)), weights)[0]
    return names[chosen], functions[chosen]


def drawn_fault(number: int, module: nn.Module) -> Initialisation | None:
    """For a net of this architecture; None where the place that is drawn is none of its."""
    random = Random(number)
    place, names = some_place(random, module)
    if not names:
        return None
    flat = module.get_parameter(names[0]).ndim < 2
    is_gain = names[0] in norm_gains(module) or names[0].endswith("scale")
    what, change = a_vector_change(random, is_gain) if flat else a_map_change(random)

    def plant(net: nn.Module, family: Family) -> Planted:
        for name in names:
            for piece in pieces(net, name):
                change(piece)
        return tuple(names)

    named = names[0] if len(names) == 1 else f"{place} ({len(names)})"
    return Initialisation(f"{number}: {what} in {named}", Intent.FAULT, plant)
