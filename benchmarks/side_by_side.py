"""Many small nets trained side by side as one batched net, each with its own rate: what the calibrations share.

Every parameter has the nets as its first axis, so that no net sees another.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

CLASSES, BATCH, STEPS, EARLY, SEEDS = 10, 32, 400, 200, 2
RATES = {
    "adam": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "sgd": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
}
GOOD_ENOUGH = 0.8
FALLBACK_TARGET = 0.9
MARGIN = 0.05
ORDER = ("trains", "slow", "fails")
MARK = {"trains": "+", "slow": "~", "fails": "-"}

Net = Callable[[list[Tensor], Tensor], Tensor]
"""(parameters, images) to logits (nets, images, classes)."""


@dataclass(frozen=True)
class Digits:
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def digits() -> Digits:
    """1437 training and 360 test images, each pixel centred, all divided by one standard deviation."""
    raw = load_digits()
    images = torch.tensor(raw.data, dtype=torch.float32)
    labels = torch.tensor(raw.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], labels[order]
    split = 1437
    centred = images - images[:split].mean(0)
    scaled = centred / centred[:split].std()
    return Digits(scaled[:split], labels[:split], scaled[split:], labels[split:])


def stack(nets: Iterable[list[Tensor]]) -> list[Tensor]:
    return [torch.stack(column).requires_grad_() for column in zip(*nets, strict=True)]


def accuracy(net: Net, parameters: list[Tensor], data: Digits) -> Tensor:
    with torch.no_grad():
        logits = net(parameters, data.test)
    # argmax of NaN logits is class 0 or so: a tenth, like chance
    return (logits.argmax(-1) == data.test_labels).float().mean(-1)


def train(
    net: Net, parameters: list[Tensor], optimiser: str, rates: Tensor, steps: int, data: Digits
) -> Iterator[tuple[int, Tensor]]:
    """Train every net of the batch with its own rate; yields (step, accuracies) at EARLY and at the end."""
    rate = rates[:, None, None]
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    buffers = [torch.zeros_like(p) for p in parameters]
    generator = torch.Generator().manual_seed(7)
    for step in range(1, steps + 1):
        picked = torch.randint(len(data.train), (BATCH,), generator=generator)
        logits = net(parameters, data.train[picked])
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
            yield step, accuracy(net, parameters, data)


def best_rate(
    net: Callable[[int], Net], draw: Callable[[int], list[Tensor]], optimiser: str, data: Digits
) -> tuple[float, float]:
    """(rate, accuracy after EARLY steps) of the healthy twin's best rate.

    ``net`` gives the forward of so many twins, ``draw`` the parameters of one by its seed.
    """
    grid = RATES[optimiser]
    nets = stack(draw(seed) for _ in grid for seed in range(SEEDS))
    rates = torch.tensor([rate for rate in grid for _ in range(SEEDS)])
    *_, (_, reached) = train(net(len(rates)), nets, optimiser, rates, EARLY, data)
    means = reached.view(len(grid), SEEDS).mean(1)
    best = int(means.argmax())
    return grid[best], float(means[best])


def seeds_mean(values: Tensor) -> Tensor:
    """Geometric mean over the seeds of each net."""
    return values.clamp_min(1e-300).log().view(-1, SEEDS).mean(1).exp()


def target_of(healthy: float) -> float:
    """What a net has to reach, given its healthy twin's accuracy after EARLY steps."""
    return healthy - MARGIN if healthy >= GOOD_ENOUGH else FALLBACK_TARGET


def judge(early: float, late: float, target: float) -> str:
    if early >= target:
        return "trains"
    return "slow" if late >= target else "fails"


class Judged(Protocol):
    """One net's verdicts by optimiser."""

    @property
    def verdicts(self) -> dict[str, str]: ...

    @property
    def better(self) -> str: ...


One = TypeVar("One", bound=Judged)


def bands(outcomes: Sequence[One], value: Callable[[One], float], edges: Sequence[float], name: str) -> Iterator[str]:
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
