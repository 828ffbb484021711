"""At which scale does a plain network stop training? A calibration of the thresholds of the scale and signal rules.

    python benchmarks/calibrate_scale.py [--quick] [--write benchmarks/results/calibrate_scale.md]   # 11 minutes

The protocol was fixed before any outcome was seen:

Nets      plain MLPs 64 -> 64 -> ... -> 10, ``depth`` counting weight layers (head included), zero biases. Healthy
          weights are normal with std gain / sqrt(fan_in): relu sqrt(2) (He), gelu 1.53, tanh and sigmoid 1 (Xavier at
          equal fans), head 1.
Faults    ``all``: every layer times g (and ``default``: what torch.nn.Linear draws, biases included); ``one``: the
          middle layer times g; ``head``: the last layer times g.
Data      scikit-learn digits, each pixel centred, all divided by one standard deviation; 1437 training images, 360 test
          images.
Training  cross-entropy, batches of 32, 400 steps, no schedule, no weight decay, no gradient clipping; Adam, and SGD
          with momentum 0.9; two seeds. The learning rate is tuned on the healthy twin alone, on a grid, by its accuracy
          after 200 steps; where the healthy twin reaches 80 % with no rate, that of the next shallower depth is taken.
Labels    target = the healthy twin's test accuracy after 200 steps minus 5 points (0.90 where the healthy twin reaches
          less than 80 %). ``trains``: there after 200 steps; ``slow``: only after 400; ``fails``: not even then.
          Accuracies are means of the two seeds. ``better`` is the better of the two optimisers' verdicts.
Signal    at initialisation, on the training images: the std over images of a unit's pre-activation, root mean square
          over units, divided by the same number of the input: at the last hidden layer (``ratio``), the largest over
          hidden layers (``peak``); rms of the logits (``logits``); share of saturated pre-activations in the worst
          layer (``saturated``: tanh beyond 2.99, sigmoid beyond 5.99).

All variants of one depth are trained at once as a batched net, which leaves them independent of one another.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from side_by_side import (
    CLASSES,
    EARLY,
    GOOD_ENOUGH,
    MARK,
    ORDER,
    RATES,
    SEEDS,
    STEPS,
    Digits,
    Net,
    bands,
    best_rate,
    decades,
    digits,
    judge,
    seeds_mean,
    stack,
    target_of,
    train,
)
from torch import Tensor
from torch.nn import functional

WIDTH = 64
DEPTHS = (2, 3, 4, 6, 8, 12, 16, 20)
GAINS = {"relu": math.sqrt(2.0), "tanh": 1.0, "sigmoid": 1.0, "gelu": 1.53}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": functional.gelu,
}
SATURATED_BEYOND = {"tanh": 2.99, "sigmoid": 5.99}
ALL = (0.1, 0.2, 0.41, 0.7, 1.5, 2.0, 4.0, 10.0)
ONE = (0.001, 0.01, 0.03, 0.1, 0.3, 3.0, 10.0, 30.0, 100.0, 1000.0)
HEAD = (10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Fault:
    family: str
    factor: float

    @property
    def label(self) -> str:
        return "torch default" if self.family == "default" else f"{self.factor:g}"


HEALTHY = Fault("healthy", 1.0)
FAULTS = (
    HEALTHY,
    Fault("default", 0.41),
    *(Fault("all", g) for g in ALL),
    *(Fault("one", g) for g in ONE),
    *(Fault("head", g) for g in HEAD),
)


@dataclass(frozen=True)
class Start:
    """What is measured before training; the module's docstring defines it."""

    ratio: float
    peak: float
    logits: float
    saturated: float


@dataclass(frozen=True)
class Outcome:
    activation: str
    depth: int
    fault: Fault
    start: Start
    verdicts: dict[str, str]
    healthy: float
    """Accuracy of the healthy twin by its better optimiser, after EARLY steps."""

    @property
    def blamable(self) -> bool:
        """Whether the healthy twin trains, so that a failure is the fault's."""
        return self.healthy >= GOOD_ENOUGH

    @property
    def better(self) -> str:
        return min(self.verdicts.values(), key=ORDER.index)


def draw(activation: str, depth: int, fault: Fault, seed: int) -> list[Tensor]:
    """Weights (in, out) and biases (1, out) in turn; twins of one seed differ by their fault alone."""
    generator = torch.Generator().manual_seed(1000 * seed + depth)
    tensors: list[Tensor] = []
    for layer in range(depth):
        is_head = layer == depth - 1
        units = CLASSES if is_head else WIDTH
        weight = torch.randn(WIDTH, units, generator=generator)
        weight *= (1.0 if is_head else GAINS[activation]) / math.sqrt(WIDTH)
        bias = torch.zeros(1, units)
        if fault.family == "default":
            bound = 1.0 / math.sqrt(WIDTH)
            weight = (torch.rand(WIDTH, units, generator=generator) * 2 - 1) * bound
            bias = (torch.rand(1, units, generator=generator) * 2 - 1) * bound
        hit = fault.family == "all"
        hit |= fault.family == "one" and layer == (depth - 1) // 2
        hit |= fault.family == "head" and is_head
        tensors += [weight * fault.factor if hit else weight, bias]
    return tensors


def forward(activation: str, parameters: list[Tensor], images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits (nets, images, classes) and every hidden pre-activation."""
    phi = FUNCTIONS[activation]
    state = images.expand(parameters[0].shape[0], -1, -1)
    hidden: list[Tensor] = []
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    for weight, bias in layers[:-1]:
        hidden.append(torch.baddbmm(bias, state, weight))
        state = phi(hidden[-1])
    return torch.baddbmm(layers[-1][1], state, layers[-1][0]), hidden


def net_of(activation: str) -> Net:
    return lambda parameters, images: forward(activation, parameters, images)[0]


def spread(values: Tensor) -> Tensor:
    """Std over images per unit, root mean square over units, of (..., images, units)."""
    return values.double().var(-2).mean(-1).sqrt()


def at_start(activation: str, parameters: list[Tensor], data: Digits) -> list[Start]:
    """The signal of each fault at initialisation, seeds averaged geometrically."""
    with torch.no_grad():
        logits, hidden = forward(activation, parameters, data.train)
        reference = spread(data.train)
        ratios = torch.stack([spread(z) / reference for z in hidden])
        outputs = logits.double().square().mean((-1, -2)).sqrt()
        beyond = SATURATED_BEYOND.get(activation, math.inf)
        saturated = torch.stack([(z.abs() > beyond).double().mean((-1, -2)) for z in hidden]).amax(0)

    columns = (
        seeds_mean(ratios[-1]),
        seeds_mean(ratios.amax(0)),
        seeds_mean(outputs),
        saturated.view(-1, SEEDS).mean(1),
    )
    return [Start(*(float(value) for value in row)) for row in zip(*columns, strict=True)]


def study(activation: str, depths: Iterable[int], data: Digits) -> Iterator[Outcome]:
    carried: dict[str, float] = {}
    net = net_of(activation)
    for depth in depths:
        twin = partial(draw, activation, depth, HEALTHY)
        nets = [draw(activation, depth, fault, seed) for fault in FAULTS for seed in range(SEEDS)]
        starts = at_start(activation, stack(nets), data)
        verdicts: list[dict[str, str]] = [{} for _ in FAULTS]
        healthy = 0.0
        for optimiser in RATES:
            rate, reached = best_rate(lambda _: net, twin, optimiser, data)
            if reached < GOOD_ENOUGH:
                rate = carried.get(optimiser, rate)
            carried[optimiser] = rate
            results = dict(train(net, stack(nets), optimiser, torch.full((len(nets),), rate), STEPS, data))
            early, late = (results[step].view(-1, SEEDS).mean(1) for step in (EARLY, STEPS))
            target = target_of(float(early[0]))
            for i in range(len(FAULTS)):
                verdicts[i][optimiser] = judge(float(early[i]), float(late[i]), target)
            healthy = max(healthy, float(early[0]))
            print(f"# {activation} depth {depth} {optimiser}: rate {rate:g}, healthy {float(early[0]):.3f}", flush=True)
        for fault, start, verdict in zip(FAULTS, starts, verdicts, strict=True):
            yield Outcome(activation, depth, fault, start, verdict, healthy)


def matrices(outcomes: list[Outcome]) -> Iterator[str]:
    """One table per activation and family: verdicts of Adam and SGD, and the signal ratio, depth by factor."""
    for activation in dict.fromkeys(o.activation for o in outcomes):
        yield f"\n## {activation}\n"
        mine = [o for o in outcomes if o.activation == activation]
        for families in (("healthy", "default", "all"), ("one",), ("head",)):
            rows = [o for o in mine if o.fault.family in families]
            columns = list(dict.fromkeys(o.fault for o in rows))
            columns.sort(key=lambda f: (f.family == "default", f.factor))
            title = {"one": "one middle layer", "head": "the head"}.get(families[0], "all layers")
            yield f"{title} times g (Adam, SGD; " + ("rms of the logits)" if families == ("head",) else "ratio)") + "\n"
            yield "| depth | " + " | ".join(f.label for f in columns) + " |"
            yield "|---" * (len(columns) + 1) + "|"
            for depth in dict.fromkeys(o.depth for o in rows):
                cells = {o.fault: o for o in rows if o.depth == depth}
                yield f"| {depth} | " + " | ".join(_cell(cells[f]) for f in columns) + " |"
            yield ""


def _cell(outcome: Outcome) -> str:
    marks = "".join(MARK[outcome.verdicts[optimiser]] for optimiser in RATES)
    value = outcome.start.logits if outcome.fault.family == "head" else outcome.start.ratio
    return f"`{marks}` {0 if value < 1e-100 else value:.0e}"


UNBOUNDED = ("relu", "gelu")
LOGIT_EDGES = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1e3, 1e4, 1e5, math.inf)
SHARE_EDGES = (0.0, 1e-9, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.01)


def summary(outcomes: list[Outcome]) -> Iterator[str]:
    """Verdicts by band of each measured value. Single faults count only where the healthy twin trains."""
    scaled = [o for o in outcomes if o.fault.family in ("healthy", "default", "all")]
    single = [o for o in outcomes if o.fault.family == "one" and o.blamable]
    for names in (UNBOUNDED, ("tanh",), ("sigmoid",)):
        title = ", ".join(names)
        yield f"\n## Ratio (signal at the last hidden layer over input), all layers scaled: {title}\n"
        yield from bands([o for o in scaled if o.activation in names], lambda o: o.start.ratio, decades(-9, 6), "ratio")
        yield f"## Ratio, one middle layer scaled: {title}\n"
        yield from bands([o for o in single if o.activation in names], lambda o: o.start.ratio, decades(-5, 4), "ratio")
        yield f"## Factor of the one middle layer: {title}\n"
        yield from bands([o for o in single if o.activation in names], lambda o: o.fault.factor, factors(), "factor")
        if names != UNBOUNDED:
            loud = [o for o in (*scaled, *single) if o.activation in names and o.fault.factor >= 1 and o.blamable]
            yield f"## Saturated share of the worst layer, layers scaled up: {title}\n"
            yield from bands(loud, lambda o: o.start.saturated, SHARE_EDGES, "share")
    yield "## rms of the logits: relu, gelu, layers scaled up\n"
    unbounded = [o for o in outcomes if o.activation in UNBOUNDED and o.blamable and o.fault.factor >= 1]
    yield from bands(unbounded, lambda o: o.start.logits, LOGIT_EDGES, "rms")
    yield "## rms of the logits: only the head scaled, all four\n"
    heads = [o for o in outcomes if o.fault.family in ("head", "healthy") and o.blamable]
    yield from bands(heads, lambda o: o.start.logits, LOGIT_EDGES, "rms")


def factors() -> tuple[float, ...]:
    """Bands that hold one factor of ONE each."""
    return (*(0.9 * factor for factor in ONE), math.inf)


def report(outcomes: list[Outcome]) -> str:
    lines = [
        "# Which scales train",
        "",
        "Written by `benchmarks/calibrate_scale.py`, whose docstring is the protocol.",
        "`+` trains, `~` slow, `-` fails; first mark Adam, second SGD with momentum.",
        *summary(outcomes),
        *matrices(outcomes),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="relu and tanh at depths 3 and 8 only")
    parser.add_argument("--write", type=Path, help="also write the tables to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = digits()
    activations = ("relu", "tanh") if arguments.quick else tuple(GAINS)
    depths = (3, 8) if arguments.quick else DEPTHS
    outcomes = [outcome for activation in activations for outcome in study(activation, depths, data)]
    text = report(outcomes)
    print(text)
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        arguments.write.write_text(text)


if __name__ == "__main__":
    main()
