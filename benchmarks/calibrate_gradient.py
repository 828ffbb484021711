"""How unequal may the gradients of a network's layers start? A calibration of the gradient rules' thresholds.

    python benchmarks/calibrate_gradient.py [--quick] [--write benchmarks/results/calibrate_gradient.md]   # 20 minutes

The protocol was not fixed blindly: after a first partial run, whose outcomes were seen, depths were left out for time
and gains added. The rules' thresholds were first set from 8 of the 18 groups, then revised with all of them.

Chains    64 -> 64 -> ... -> 10, ``depth`` counting weight layers (head included), biases zero, weights normal with std
          gain / sqrt(fan_in), relu sqrt(2), tanh 1, sigmoid 4 (its slope is a quarter of tanh's), head 1.
          ``gain``: all hidden layers times g. ``bias``: all hidden biases b. ``one``: the middle layer times g.
          ``batch`` and ``layer``: a normalisation in front of every non-linearity, with gain g; the healthy twin has
          identity shortcuts around each layer besides.
          ``fans``: hidden widths alternate, wide and narrow; He's variance by fan_in (the twin) or fan_out.
Recurrent one recurrence of width 32 over the image cut into T equal pieces, then a head on its last state; the input
          weights have gain 1, the recurrent ones (per gate) are orthogonal, times g. LSTM with forget bias 1. ``relu``
          is a recurrence with ReLU and g times the identity.
Data      scikit-learn digits, each pixel centred, all divided by one standard deviation; 1437 training images, 360 test
          images. Batch normalisation uses the statistics of whatever batch it sees.
Training  cross-entropy, batches of 32, 400 steps, no schedule, no weight decay, no gradient clipping; Adam, and SGD
          with momentum 0.9; two seeds. The learning rate is tuned on the healthy twin alone, on a grid, by its accuracy
          after 200 steps; where the healthy twin reaches 80 % with no rate, that of the next shallower depth is taken.
Labels    target = the healthy twin's test accuracy after 200 steps minus 5 points (0.90 where the healthy twin reaches
          less than 80 %). ``trains``: there after 200 steps; ``slow``: only after 400; ``fails``: not even then.
          Accuracies are means of the two seeds. ``better`` is the better of the two optimisers' verdicts.
Measure   sensitivity of a layer = Frobenius norm of the gradient of its weights times the rms of its weights: how much
          the loss moves when the weights move by one per cent of their size in a random direction. The loss is random
          and linear, on 64 training images. ``growth`` is the largest sensitivity of a hidden layer over that of the
          head, ``decay`` the smallest. For chains without normalisation besides: ``worst``, the largest share of
          saturated values (tanh beyond 2.99, sigmoid beyond 5.99) of a hidden layer; ``slope``, the product over hidden
          layers of the root mean square slope of the non-linearity, its steepest slope being one; ``spread``, the
          product over hidden layers but the first of sqrt(fan_in) rms(W) times the rms slope in front, times the std
          over images of the first pre-activation over the last one's. Seeds are averaged geometrically.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from gradient_studies import GATES, Chain, Recurrent, Study, Variant
from side_by_side import (
    EARLY,
    GOOD_ENOUGH,
    MARK,
    ORDER,
    RATES,
    SEEDS,
    STEPS,
    Digits,
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

PROBE = 64
SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda z: 1 - torch.tanh(z) ** 2,
    "sigmoid": lambda z: 4 * torch.sigmoid(z) * (1 - torch.sigmoid(z)),
}
SATURATED_BEYOND = {"tanh": 2.99, "sigmoid": 5.99}


@dataclass(frozen=True)
class Start:
    """What is measured before training; the module's docstring defines it."""

    growth: float
    decay: float
    worst: float = 0.0
    slope: float = 1.0
    spread: float = 1.0


@dataclass(frozen=True)
class Outcome:
    study: Study
    variant: Variant
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


def sensitivities(study: Study, variants: Sequence[Variant], parameters: list[Tensor], images: Tensor) -> Tensor:
    """(weights, nets): the norm of each weight's gradient times its rms."""
    logits = study.net(variants)(parameters, images)
    generator = torch.Generator().manual_seed(11)
    loss = (logits * torch.randn(logits.shape[1:], generator=generator) / math.sqrt(logits[0].numel())).sum()
    weights = parameters[study.weights()] if isinstance(study, Chain) else [parameters[i] for i in study.weights()]
    gradients = torch.autograd.grad(loss, weights)
    rows = [
        g.double().flatten(1).norm(dim=1) * w.detach().double().square().mean((1, 2)).sqrt()
        for g, w in zip(gradients, weights, strict=True)
    ]
    return torch.stack(rows)


def at_start(study: Study, variants: Sequence[Variant], parameters: list[Tensor], data: Digits) -> list[Start]:
    images = data.train[:PROBE]
    rows = sensitivities(study, variants, parameters, images)
    rows = rows.nan_to_num(math.inf)
    hidden = rows[:-1]
    if isinstance(study, Recurrent):  # what no weight enters has no sensitivity
        hidden = torch.where(hidden > 0, hidden, rows[0])
    columns = [seeds_mean(hidden.amax(0) / rows[-1]), seeds_mean(hidden.amin(0) / rows[-1])]
    if isinstance(study, Chain) and not study.norm and study.activation in SLOPES:
        columns += flatness(study, variants, parameters, images)
    return [Start(*(float(value) for value in row)) for row in zip(*columns, strict=True)]


def flatness(study: Chain, variants: Sequence[Variant], parameters: list[Tensor], images: Tensor) -> list[Tensor]:
    """``worst``, ``slope`` and ``spread`` of every net."""
    with torch.no_grad():
        _, seen = study.hidden(variants, parameters, images)
        weights = [w.double() for w in parameters[study.weights()]]
    slopes = [SLOPES[study.activation](z.double()).square().mean((1, 2)).sqrt() for z in seen]
    gains = [w.square().mean((1, 2)).sqrt() * math.sqrt(w.shape[1]) for w in weights[1:-1]]
    steepest = 0.25 if study.activation == "sigmoid" else 1.0
    links = [gain * slope * steepest for gain, slope in zip(gains, slopes, strict=False)]
    stds = [z.double().var(1).mean(-1).sqrt() for z in seen]
    beyond = SATURATED_BEYOND[study.activation]
    worst = torch.stack([(z.abs() > beyond).double().mean((1, 2)) for z in seen]).amax(0)
    product = torch.stack(links).prod(0) * stds[0] / stds[-1].clamp_min(1e-300)
    return [worst.view(-1, SEEDS).mean(1), seeds_mean(torch.stack(slopes).prod(0)), seeds_mean(product)]


def tuned(study: Study, optimiser: str, data: Digits) -> tuple[float, float]:
    twin = study.variants[0]
    return best_rate(lambda n: study.net([twin] * n), partial(study.draw, twin), optimiser, data)


def run(studies: Iterable[Study], data: Digits) -> Iterator[Outcome]:
    """``studies`` of one family and activation, the shallowest first; their first variant is the healthy twin."""
    carried: dict[str, float] = {}
    for study in studies:
        each_seed = [variant for variant in study.variants for _ in range(SEEDS)]
        nets = [study.draw(variant, seed) for variant in study.variants for seed in range(SEEDS)]
        starts = at_start(study, each_seed, stack(nets), data)
        verdicts: list[dict[str, str]] = [{} for _ in study.variants]
        healthy = 0.0
        for optimiser in RATES:
            rate, reached = tuned(study, optimiser, data)
            if reached < GOOD_ENOUGH:
                rate = carried.get(optimiser, rate)
            carried[optimiser] = rate
            rates = torch.full((len(nets),), rate)
            results = dict(train(study.net(each_seed), stack(nets), optimiser, rates, STEPS, data))
            early, late = (results[step].view(-1, SEEDS).mean(1) for step in (EARLY, STEPS))
            for i in range(len(study.variants)):
                verdicts[i][optimiser] = judge(float(early[i]), float(late[i]), target_of(float(early[0])))
            healthy = max(healthy, float(early[0]))
            where = f"{study.family} {study.activation} depth {study.depth} {optimiser}"
            print(f"# {where}: rate {rate:g}, healthy {float(early[0]):.3f}", flush=True)
        for variant, start, verdict in zip(study.variants, starts, verdicts, strict=True):
            yield Outcome(study, variant, start, verdict, healthy)


def gains(*factors: float) -> tuple[Variant, ...]:
    return (Variant("1"), *(Variant(f"{g:g}", gain=g) for g in factors))


LOUDER = gains(0.3, 0.5, 0.7, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)
SCALED = gains(0.2, 0.41, 1.5, 2.0, 4.0)
BIASED = (Variant("0"), *(Variant(f"{b:g}", bias=b) for b in (0.5, 1.0, 2.0, 3.0, 5.0)))
ONE = gains(0.001, 0.01, 0.1, 3.0, 10.0, 30.0, 100.0, 1000.0, 10000.0)
NORMED = (
    Variant("shortcuts", shortcut=True),
    *(Variant(f"{g:g}", norm_gain=g) for g in (0.3, 1.0, 3.0, 10.0, 30.0)),
)
FANS = (Variant("fan_in"), Variant("fan_out", fan_out=True))
TURNS = gains(0.0, 0.1, 0.3, 1.5, 2.0, 4.0, 8.0, 16.0, 64.0)
ALTERNATING = ((64, 256), (256, 16), (16, 256))


def studies(quick: bool) -> Iterator[list[Study]]:
    """Lists of one family each."""

    def chains(
        family: str, activation: str, depths: Iterable[int], variants: tuple[Variant, ...], norm: str = ""
    ) -> list[Study]:
        return [Chain(family, activation, depth, variants, norm) for depth in depths]

    if quick:
        yield chains("gain", "tanh", (3, 12), LOUDER)
        yield chains("batch", "relu", (6, 20), NORMED, "batch")
        yield [Recurrent("recurrent", "rnn", 8, TURNS)]
        return
    yield chains("gain", "relu", (6, 12), SCALED)
    yield chains("gain", "tanh", (3, 6, 12, 20), LOUDER)
    yield chains("gain", "sigmoid", (3, 6, 12), LOUDER)
    yield chains("bias", "tanh", (3, 6, 12), BIASED)
    yield chains("bias", "sigmoid", (3, 6, 12), BIASED)
    yield chains("one", "tanh", (4, 12, 20), ONE)
    yield chains("batch", "relu", (6, 12, 20, 30, 50), NORMED, "batch")
    yield chains("batch", "tanh", (6, 12, 30), NORMED, "batch")
    yield chains("batch", "sigmoid", (6, 12), NORMED, "batch")
    yield chains("layer", "tanh", (6, 20), NORMED, "layer")
    yield chains("layer", "relu", (6, 30), NORMED, "layer")
    for widths in ALTERNATING:
        yield [Chain("fans", "relu", depth, FANS, "", widths) for depth in (6, 12)]
    for cell in GATES:
        yield [Recurrent("recurrent", cell, pieces, TURNS) for pieces in (8, 16, 32)]


def tables(outcomes: list[Outcome]) -> Iterator[str]:
    """One table per family: verdicts of Adam and SGD with growth and decay."""
    for family, activation in dict.fromkeys((o.study.family, o.study.activation) for o in outcomes):
        mine = [o for o in outcomes if (o.study.family, o.study.activation) == (family, activation)]
        yield f"\n## {family}: {activation}\n"
        labels = list(dict.fromkeys(o.variant.label for o in mine))
        yield "| depth | " + " | ".join(labels) + " |"
        yield "|---" * (len(labels) + 1) + "|"
        for study in dict.fromkeys(o.study for o in mine):
            cells = {o.variant.label: o for o in mine if o.study == study}
            name = f"{study.depth}" + (f" {study.widths}" if isinstance(study, Chain) and study.widths else "")
            yield f"| {name} | " + " | ".join(_cell(cells[label]) for label in labels) + " |"


def _cell(outcome: Outcome) -> str:
    marks = "".join(MARK[outcome.verdicts[optimiser]] for optimiser in RATES)
    start = outcome.start
    return f"`{marks}` {start.growth:.0e} {start.decay:.0e}"


SHARES = (0.0, 1e-9, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.01)
HALVES = (0.0, 0.3, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 300.0, 1e3, 1e4, 1e6, math.inf)


def summary(outcomes: list[Outcome]) -> Iterator[str]:
    """Verdicts by band of each measured value, where the healthy twin trains."""
    known = [o for o in outcomes if o.blamable]
    chains = [o for o in known if isinstance(o.study, Chain)]
    plain = [o for o in chains if o.study.family in ("gain", "bias", "fans")]
    groups = {
        "chains without normalisation, all layers changed": plain,
        "one layer changed": [o for o in chains if o.study.family == "one"],
        "normalised chains": [o for o in chains if o.study.norm],
        "recurrences": [o for o in known if isinstance(o.study, Recurrent)],
    }
    for title, group in groups.items():
        yield f"\n## Growth: {title}\n"
        yield from bands(group, lambda o: o.start.growth, HALVES, "growth")
        yield f"## Decay: {title}\n"
        yield from bands(group, lambda o: o.start.decay, decades(-9, 2), "decay")
    yield "## Growth per step: recurrences\n"
    yield from bands(groups["recurrences"], lambda o: o.start.growth / o.study.depth, HALVES, "growth")
    bounded = [o for o in chains if o.study.activation in SLOPES and not o.study.norm]
    for family in ("gain", "bias", "one"):
        group = [o for o in bounded if o.study.family == family]
        yield f"## Saturated share of the worst layer: {family}\n"
        yield from bands(group, lambda o: o.start.worst, SHARES, "share")
        yield f"## Product of slopes: {family}\n"
        yield from bands(group, lambda o: o.start.slope, decades(-9, 0), "product")
        yield f"## Spread: {family}\n"
        yield from bands(group, lambda o: o.start.spread, HALVES, "spread")


def report(outcomes: list[Outcome]) -> str:
    lines = [
        "# Which gradients train",
        "",
        "Written by `benchmarks/calibrate_gradient.py`, whose docstring is the protocol.",
        "`+` trains, `~` slow, `-` fails; first mark Adam, second SGD with momentum; then growth and decay.",
        *summary(outcomes),
        *tables(outcomes),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one small family of each kind")
    parser.add_argument("--write", type=Path, help="also write the tables to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = digits()
    outcomes = [outcome for group in studies(arguments.quick) for outcome in run(group, data)]
    text = report(outcomes)
    print(text)
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        arguments.write.write_text(text)


if __name__ == "__main__":
    main()
