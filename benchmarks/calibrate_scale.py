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
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

WIDTH, CLASSES, BATCH, STEPS, EARLY, SEEDS = 64, 10, 32, 400, 200, 2
DEPTHS = (2, 3, 4, 6, 8, 12, 16, 20)
GAINS = {"relu": math.sqrt(2.0), "tanh": 1.0, "sigmoid": 1.0, "gelu": 1.53}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": functional.gelu,
}
SATURATED_BEYOND = {"tanh": 2.99, "sigmoid": 5.99}
RATES = {
    "adam": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "sgd": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
}
ALL = (0.1, 0.2, 0.41, 0.7, 1.5, 2.0, 4.0, 10.0)
ONE = (0.001, 0.01, 0.03, 0.1, 0.3, 3.0, 10.0, 30.0, 100.0, 1000.0)
HEAD = (10.0, 100.0, 1000.0)
GOOD_ENOUGH = 0.8
FALLBACK_TARGET = 0.9
MARGIN = 0.05
ORDER = ("trains", "slow", "fails")


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


@dataclass(frozen=True)
class Digits:
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def digits() -> Digits:
    raw = load_digits()
    images = torch.tensor(raw.data, dtype=torch.float32)
    labels = torch.tensor(raw.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], labels[order]
    split = 1437
    centred = images - images[:split].mean(0)
    scaled = centred / centred[:split].std()
    return Digits(scaled[:split], labels[:split], scaled[split:], labels[split:])


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


def stack(nets: Iterable[list[Tensor]]) -> list[Tensor]:
    return [torch.stack(column).requires_grad_() for column in zip(*nets, strict=True)]


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


def accuracy(activation: str, parameters: list[Tensor], data: Digits) -> Tensor:
    with torch.no_grad():
        logits, _ = forward(activation, parameters, data.test)
    # argmax of NaN logits is class 0 or so: a tenth, like chance
    return (logits.argmax(-1) == data.test_labels).float().mean(-1)


def train(
    activation: str, parameters: list[Tensor], optimiser: str, rates: Tensor, steps: int, data: Digits
) -> Iterator[tuple[int, Tensor]]:
    """Train every net of the batch with its own rate; yields (step, accuracies) at EARLY and at the end."""
    rate = rates[:, None, None]
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    buffers = [torch.zeros_like(p) for p in parameters]
    generator = torch.Generator().manual_seed(7)
    for step in range(1, steps + 1):
        picked = torch.randint(len(data.train), (BATCH,), generator=generator)
        logits, _ = forward(activation, parameters, data.train[picked])
        targets = data.train_labels[picked].expand(logits.shape[0], -1)
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / BATCH
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for p, g, m, v, buffer in zip(parameters, gradients, first, second, buffers, strict=True):
                if optimiser == "sgd":
                    p.sub_(torch.mul(m.mul_(0.9).add_(g), rate, out=buffer))
                    continue
                m.lerp_(g, 0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                scale = math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                torch.sqrt(v, out=buffer).add_(1e-8)
                p.sub_(torch.div(m, buffer, out=buffer).mul_(rate), alpha=scale)
        if step in (EARLY, steps):
            yield step, accuracy(activation, parameters, data)


def best_rate(activation: str, depth: int, optimiser: str, data: Digits) -> tuple[float, float]:
    """(rate, accuracy after EARLY steps) of the healthy twin's best rate."""
    grid = RATES[optimiser]
    nets = stack(draw(activation, depth, HEALTHY, seed) for _ in grid for seed in range(SEEDS))
    rates = torch.tensor([rate for rate in grid for _ in range(SEEDS)])
    *_, (_, reached) = train(activation, nets, optimiser, rates, EARLY, data)
    means = reached.view(len(grid), SEEDS).mean(1)
    best = int(means.argmax())
    return grid[best], float(means[best])


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

    def seeds_mean(values: Tensor) -> Tensor:
        return values.clamp_min(1e-300).log().view(-1, SEEDS).mean(1).exp()

    columns = (
        seeds_mean(ratios[-1]),
        seeds_mean(ratios.amax(0)),
        seeds_mean(outputs),
        saturated.view(-1, SEEDS).mean(1),
    )
    return [Start(*(float(value) for value in row)) for row in zip(*columns, strict=True)]


def judge(early: float, late: float, target: float) -> str:
    if early >= target:
        return "trains"
    return "slow" if late >= target else "fails"


def study(activation: str, depths: Iterable[int], data: Digits) -> Iterator[Outcome]:
    carried: dict[str, float] = {}
    for depth in depths:
        nets = [draw(activation, depth, fault, seed) for fault in FAULTS for seed in range(SEEDS)]
        starts = at_start(activation, stack(nets), data)
        verdicts: list[dict[str, str]] = [{} for _ in FAULTS]
        healthy = 0.0
        for optimiser in RATES:
            rate, reached = best_rate(activation, depth, optimiser, data)
            if reached < GOOD_ENOUGH:
                rate = carried.get(optimiser, rate)
            carried[optimiser] = rate
            results = dict(train(activation, stack(nets), optimiser, torch.full((len(nets),), rate), STEPS, data))
            early, late = (results[step].view(-1, SEEDS).mean(1) for step in (EARLY, STEPS))
            target = float(early[0]) - MARGIN if float(early[0]) >= GOOD_ENOUGH else FALLBACK_TARGET
            for i in range(len(FAULTS)):
                verdicts[i][optimiser] = judge(float(early[i]), float(late[i]), target)
            healthy = max(healthy, float(early[0]))
            print(f"# {activation} depth {depth} {optimiser}: rate {rate:g}, healthy {float(early[0]):.3f}", flush=True)
        for fault, start, verdict in zip(FAULTS, starts, verdicts, strict=True):
            yield Outcome(activation, depth, fault, start, verdict, healthy)


MARK = {"trains": "+", "slow": "~", "fails": "-"}


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


def bands(
    outcomes: list[Outcome], value: Callable[[Outcome], float], edges: tuple[float, ...], name: str
) -> Iterator[str]:
    """How many nets train, are slow or fail, by bands of a measured value."""
    yield f"| {name} | nets | better: trains | slow | fails | Adam fails | SGD fails |"
    yield "|---|---|---|---|---|---|---|"
    for low, high in itertools.pairwise(edges):
        inside = [o for o in outcomes if low <= value(o) < high]
        if inside:
            counts = Counter(o.better for o in inside)
            failing = [sum(o.verdicts[optimiser] == "fails" for o in inside) for optimiser in RATES]
            numbers = [len(inside), *(counts[label] for label in ORDER), *failing]
            yield f"| {low:g} .. {high:g} | " + " | ".join(str(n) for n in numbers) + " |"
    yield ""


def decades(low: int, high: int) -> tuple[float, ...]:
    return (0.0, *(10.0**k for k in range(low, high + 1)), math.inf)


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
