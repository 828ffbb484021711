"""At which distribution of weights does a network stop training? A calibration of the rules that read weights alone.

    python benchmarks/calibrate_weights.py [--only GLOB] [--write benchmarks/results/calibrate_weights.md]   # 10 min

The protocol was fixed before any outcome was seen, but for recurrences over 32 steps, which were given up: as PyTorch
draws it, one with ReLU does not train there. Data, training, rates and labels are those of ``calibrate_scale.py``:
scikit-learn digits, 400 steps of Adam and of SGD, the rate tuned on the healthy twin alone, ``trains`` within 200
steps, ``slow`` within 400, else ``fails``.

Nets      MLPs of ``depth`` layers and a width of 64 (He for ReLU, Xavier for tanh; ``bn`` and ``ln`` have ReLU behind a
          batch or a layer norm); recurrences over the 8 rows of an image, 64 units, as PyTorch draws them, the last
          state read out.
Faults    in the middle layer (``one``) or in all layers but the head (``all``); in recurrences in the weights of the
          input (``input``), in the recurrent ones (``recurrent``), or in both (``all``)

shift     the mean is so many standard deviations off; the label is |mean| * sqrt(fan_in) / std, the singular value
          of the mean alone over the root mean square one of the rest times sqrt(units)
sided     uniform(0, 1)
radius    the recurrent weights are normal with std r / sqrt(units)
outlier   one weight is f standard deviations (``one``), or one in 500 is (``few``)
spread    the scales of units are 10^u, u uniform in +-d / 2: a spread over d decades, root mean square kept
rank      product of two normal matrices with r rows between them, variance kept
sparse    so many weights are zero, variance kept
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import torch
from side_by_side import (
    CLASSES,
    EARLY,
    GOOD_ENOUGH,
    MARK,
    RATES,
    SEEDS,
    STEPS,
    Digits,
    Net,
    best_rate,
    digits,
    judge,
    stack,
    target_of,
    train,
)
from torch import Generator, Tensor

PIXELS = 64
MEANS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
RADII = (0.03, 0.1, 0.3, 0.58, 1.0, 1.4, 2.0, 3.0, 5.0, 10.0, 30.0)
OUTLIERS = (10.0, 30.0, 100.0, 300.0, 1000.0)
DECADES = (1.0, 2.0, 4.0, 6.0)
RANKS = (1, 2, 4, 8, 16)
ZEROS = (0.5, 0.8, 0.9, 0.97, 0.99)

Change = Callable[[Tensor, Generator], Tensor]
"""A weight (in, out) and a source of randomness to the faulty weight."""


@dataclass(frozen=True)
class Fault:
    family: str
    value: float
    where: str

    def changed(self, weight: Tensor, generator: Generator) -> Tensor:
        return CHANGES[self.family](weight, self.value, generator)


def _shift(weight: Tensor, value: float, generator: Generator) -> Tensor:
    return weight + value * weight.std()


def _sided(weight: Tensor, value: float, generator: Generator) -> Tensor:
    return torch.rand(weight.shape, generator=generator)


def _radius(weight: Tensor, value: float, generator: Generator) -> Tensor:
    return torch.randn(weight.shape, generator=generator) * value / math.sqrt(weight.shape[0])


def _outlier(weight: Tensor, value: float, generator: Generator) -> Tensor:
    weight = weight.clone()
    weight.view(-1)[weight.numel() // 3] = value * weight.std()
    return weight


def _few(weight: Tensor, value: float, generator: Generator) -> Tensor:
    chosen = torch.rand(weight.shape, generator=generator) < 1 / 500
    signs = torch.randn(weight.shape, generator=generator).sign()
    return torch.where(chosen, signs * value * weight.std(), weight)


def _spread(weight: Tensor, value: float, generator: Generator) -> Tensor:
    scales = 10 ** (value * (torch.rand(weight.shape[1], generator=generator) - 0.5))
    return weight * scales / scales.square().mean().sqrt()


def _rank(weight: Tensor, value: float, generator: Generator) -> Tensor:
    inner = int(value)
    left = torch.randn(weight.shape[0], inner, generator=generator)
    product = left @ torch.randn(inner, weight.shape[1], generator=generator)
    return product * weight.std() / product.std()


def _sparse(weight: Tensor, value: float, generator: Generator) -> Tensor:
    kept = torch.rand(weight.shape, generator=generator) >= value
    return torch.where(kept, weight / math.sqrt(1 - value), torch.zeros(()))


CHANGES: dict[str, Callable[[Tensor, float, Generator], Tensor]] = {
    "shift": _shift,
    "sided": _sided,
    "radius": _radius,
    "outlier": _outlier,
    "few": _few,
    "spread": _spread,
    "rank": _rank,
    "sparse": _sparse,
}
HEALTHY = Fault("healthy", 0.0, "")
SHIFTS = tuple(Fault("shift", value, where) for where in ("one", "all") for value in MEANS)
SHIFTS += (Fault("sided", 1.0, "one"), Fault("sided", 1.0, "all"))
OTHERS = tuple(
    Fault(family, float(value), where)
    for family, values in (
        ("outlier", OUTLIERS),
        ("few", OUTLIERS),
        ("spread", DECADES),
        ("rank", RANKS),
        ("sparse", ZEROS),
    )
    for where in ("one", "all")
    for value in values
)
RECURRENT = (
    *(Fault("shift", value, "all") for value in MEANS),
    *(Fault("sided", 1.0, where) for where in ("input", "recurrent", "all")),
    *(Fault("radius", value, "recurrent") for value in RADII),
)


@dataclass(frozen=True)
class Subject:
    """A healthy architecture and what is broken in it."""

    name: str
    draw: Callable[[Fault, int], list[Tensor]]
    net: Net
    faults: tuple[Fault, ...]
    fan_in: int = PIXELS


# -- multi-layer perceptrons -----------------------------------------------------------------------------------------


def draw_mlp(activation: str, depth: int, width: int, fault: Fault, seed: int) -> list[Tensor]:
    generator = Generator().manual_seed(1000 * seed + depth)
    other = Generator().manual_seed(seed)
    tensors, fan_in = list[Tensor](), PIXELS
    gain = 1.0 if activation == "tanh" else math.sqrt(2.0)
    for layer in range(depth):
        head = layer == depth - 1
        weight = torch.randn(fan_in, CLASSES if head else width, generator=generator)
        weight *= (1.0 if head else gain) / math.sqrt(fan_in)
        if not head and (fault.where == "all" or (fault.where == "one" and layer == (depth - 1) // 2)):
            weight = fault.changed(weight, other)
        tensors += [weight, torch.zeros(1, weight.shape[1])]
        fan_in = width
    return tensors


def run_mlp(activation: str, norm: str, parameters: list[Tensor], images: Tensor) -> Tensor:
    state = images.expand(parameters[0].shape[0], -1, -1)
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    for weight, bias in layers[:-1]:
        state = torch.baddbmm(bias, state, weight)
        if norm:
            axis = 1 if norm == "bn" else 2
            state = state - state.mean(axis, keepdim=True)
            state = state * (state.square().mean(axis, keepdim=True) + 1e-5).rsqrt()
        state = torch.tanh(state) if activation == "tanh" else torch.relu(state)
    return torch.baddbmm(layers[-1][1], state, layers[-1][0])


# -- recurrences -----------------------------------------------------------------------------------------------------

UNITS, STEPS_IN_TIME = 64, 8
GATES = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}


def draw_recurrence(kind: str, fault: Fault, seed: int) -> list[Tensor]:
    """Input weights, recurrent weights, their biases, head, its bias: U(+-1 / sqrt(units)) as torch.nn.RNNBase."""
    generator = Generator().manual_seed(1000 * seed + STEPS_IN_TIME)
    other = Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return (torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(UNITS)

    width = UNITS * GATES[kind]
    drawn = [uniform(PIXELS // STEPS_IN_TIME, width), uniform(UNITS, width), uniform(1, width), uniform(1, width)]
    for number, where in enumerate(("input", "recurrent")):
        if fault.where in (where, "all"):
            drawn[number] = fault.changed(drawn[number], other)
    return [*drawn, uniform(UNITS, CLASSES), torch.zeros(1, CLASSES)]


def run_recurrence(kind: str, parameters: list[Tensor], images: Tensor) -> Tensor:
    inner, recurrent, bias, inner_bias, head, head_bias = parameters
    nets = inner.shape[0]
    rows = images.expand(nets, -1, -1).unflatten(-1, (STEPS_IN_TIME, -1))
    state = torch.zeros(nets, images.shape[-2], UNITS)
    memory = state
    for step in range(STEPS_IN_TIME):
        left = torch.baddbmm(bias, rows[:, :, step], inner)
        right = torch.baddbmm(inner_bias, state, recurrent)
        if kind == "lstm":
            i, f, g, o = (left + right).chunk(4, -1)
            memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
            state = o.sigmoid() * memory.tanh()
        elif kind == "gru":
            (r, z, n), (hr, hz, hn) = left.chunk(3, -1), right.chunk(3, -1)
            gate = (z + hz).sigmoid()
            state = (1 - gate) * torch.tanh(n + (r + hr).sigmoid() * hn) + gate * state
        else:
            state = torch.tanh(left + right) if kind == "tanh" else torch.relu(left + right)
    return torch.baddbmm(head_bias, state, head)


def _mlp(name: str, activation: str, depth: int, norm: str = "", width: int = 64, every: bool = True) -> Subject:
    faults = (*SHIFTS, *OTHERS) if every else SHIFTS
    draw = partial(draw_mlp, activation, depth, width)
    return Subject(name, draw, partial(run_mlp, activation, norm), faults, width)


def _recurrence(kind: str) -> Subject:
    return Subject(f"{kind} recurrence", partial(draw_recurrence, kind), partial(run_recurrence, kind), RECURRENT)


SUBJECTS = (
    _mlp("relu 4", "relu", 4),
    _mlp("relu 8", "relu", 8),
    _mlp("relu 4, width 256", "relu", 4, width=256, every=False),
    _mlp("tanh 4", "tanh", 4),
    _mlp("bn 4", "relu", 4, "bn"),
    _mlp("bn 8", "relu", 8, "bn", every=False),
    _mlp("ln 4", "relu", 4, "ln"),
    *(_recurrence(kind) for kind in GATES),
)


# -- the study -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    fault: Fault
    verdicts: dict[str, str]


def study(subject: Subject, data: Digits) -> Iterator[Outcome]:
    faults = (HEALTHY, *subject.faults)
    nets = [subject.draw(fault, seed) for fault in faults for seed in range(SEEDS)]
    verdicts: list[dict[str, str]] = [{} for _ in faults]
    for optimiser in RATES:
        rate, reached = best_rate(lambda _: subject.net, partial(subject.draw, HEALTHY), optimiser, data)
        results = dict(train(subject.net, stack(nets), optimiser, torch.full((len(nets),), rate), STEPS, data))
        early, late = (results[step].nan_to_num().view(-1, SEEDS).mean(1) for step in (EARLY, STEPS))
        good = float(early[0]) >= GOOD_ENOUGH
        target = target_of(float(early[0])) if good else float(late[0]) - 0.05  # slow learners: by their own end
        for i in range(len(faults)):
            at = float(early[i]) if good else float(late[i])
            verdicts[i][optimiser] = judge(at, float(late[i]), target)
        print(f"# {subject.name} {optimiser}: rate {rate:g}, healthy {reached:.3f} {float(late[0]):.3f}", flush=True)
    for fault, verdict in zip(faults, verdicts, strict=True):
        yield Outcome(fault, verdict)


def table(subject: Subject, outcomes: list[Outcome]) -> Iterator[str]:
    """One row per family and place: value and the marks of both optimisers."""
    yield f"## {subject.name}\n"
    for family, where in dict.fromkeys((o.fault.family, o.fault.where) for o in outcomes):
        mine = [o for o in outcomes if (o.fault.family, o.fault.where) == (family, where)]
        cells = (f"{_label(o.fault, subject.fan_in)} `{''.join(MARK[v] for v in o.verdicts.values())}`" for o in mine)
        yield f"- {family} {where}: " + ", ".join(cells)
    yield ""


def _label(fault: Fault, fan_in: int) -> str:
    return f"{fault.value * math.sqrt(fan_in):.2g}" if fault.family == "shift" else f"{fault.value:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of subjects")
    parser.add_argument("--write", type=Path, help="also write the tables to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = digits()
    lines = [
        "# Which distributions of weights train",
        "",
        "Written by `benchmarks/calibrate_weights.py`, whose docstring is the protocol.",
        "`+` trains, `~` slow, `-` fails; first mark Adam, second SGD with momentum.",
        "",
    ]
    for subject in SUBJECTS:
        if fnmatchcase(subject.name, arguments.only):
            rows = list(table(subject, list(study(subject, data))))
            print("\n".join(rows), flush=True)
            lines += rows
    if arguments.write:
        arguments.write.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
