"""Training runs that say whether an initialisation trains, by the protocol of ``healthy.py``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from zoo import Built

from initlint.fixes import edits_of
from initlint.load.from_torch import output_tensors
from initlint.plugin import Finding

CLASSES, SAMPLES, BATCH, STEPS, LAST, HALF = 10, 512, 16, 200, 20, 100
RATES = {"adam": (1e-4, 1e-3, 1e-2), "sgd": (1e-3, 1e-2, 1e-1)}
CHANCE = math.log(CLASSES)
LEARNT = 0.9 * CHANCE
RANK = ("trains", "slow", "fails")


@dataclass(frozen=True)
class FitRun:
    label: str
    own: float
    """Mean loss over the last steps of the model as it is."""
    twin: float
    rate: float


@dataclass(frozen=True)
class Fitted:
    runs: dict[str, FitRun]

    @property
    def verdict(self) -> str:
        """The better of the optimisers' labels; "undecided" where no twin learnt."""
        labels = [run.label for run in self.runs.values() if run.label != "undecided"]
        return min(labels, key=RANK.index) if labels else "undecided"


def fit(build: Callable[[], Built], twin: Callable[[], nn.Module]) -> Fitted:
    """Train the model and its twin; raises what a module raises in training mode or without a gradient."""
    task = Task(build()[1])
    return Fitted({optimiser: _compare(build, twin, task, optimiser) for optimiser in RATES})


def mended(module: nn.Module, alarms: Sequence[Finding]) -> nn.Module:
    """``module`` with the fixes applied, as their code says; what has none is drawn anew by its owner."""
    torch.manual_seed(1)
    with torch.no_grad():
        for finding in alarms:
            if edits_of(finding.fix):
                exec(finding.fix.code, {"nn": nn, "model": module})  # noqa: S102 - as initlint tells its users
            else:
                _redraw(module, finding)
    return module


def _compare(build: Callable[[], Built], twin: Callable[[], nn.Module], task: Task, optimiser: str) -> FitRun:
    scale = task.scale(twin())
    curves = {rate: task.train(twin(), optimiser, rate, scale) for rate in RATES[optimiser]}
    rate = min(curves, key=lambda each: _mean(curves[each][-LAST:]))
    healthy = _mean(curves[rate][-LAST:])
    own = task.train(build()[0], optimiser, rate, scale)
    return FitRun(_label(own, curves[rate]), _mean(own[-LAST:]), healthy, rate)


def _label(own: list[float], twin: list[float]) -> str:
    goal = _mean(twin[-LAST:])
    if not goal < LEARNT:
        return "undecided"
    target = (CHANCE + goal) / 2
    early = slice(HALF - LAST, HALF)
    if _mean(own[early]) < target or (_mean(twin[early]) >= target and _mean(own[-LAST:]) < target):
        return "trains"
    return "slow" if _mean(own[-LAST:]) < target else "fails"


def _mean(losses: list[float]) -> float:
    """Not a number compares as worse than any."""
    mean = sum(losses) / max(len(losses), 1)
    return mean if math.isfinite(mean) else math.inf


class Task:
    """Ten classes in inputs of the model's own kind, and a readout that does not learn."""

    def __init__(self, inputs: Any) -> None:
        self._rest = dict(inputs) if isinstance(inputs, dict) else dict(enumerate(inputs))
        tensors = {name: value for name, value in self._rest.items() if isinstance(value, Tensor)}
        self._main = max(tensors, key=lambda name: tensors[name].numel())
        self._generator = torch.Generator().manual_seed(0)
        self._labels = torch.arange(SAMPLES) % CLASSES
        self._data = self._draw(tensors[self._main])

    def _draw(self, like: Tensor) -> Tensor:
        if not like.is_floating_point():
            return self._sequences(like)
        if like.ndim >= 4 and like.shape[-3] == 3:
            return self._images(like)
        prototypes = torch.randn(CLASSES, *like.shape[1:], generator=self._generator)
        return prototypes[self._labels] + torch.randn(SAMPLES, *like.shape[1:], generator=self._generator)

    def _images(self, like: Tensor) -> Tensor:
        digits = load_digits()
        self._labels = torch.tensor(digits.target[:SAMPLES])
        pixels = torch.tensor(digits.images[:SAMPLES], dtype=torch.float32)
        images = (pixels - pixels.mean()) / pixels.std()
        return images[:, None]  # small: scaled up batch by batch

    def _sequences(self, like: Tensor) -> Tensor:
        low, high = int(like.min()), int(like.max()) + 1
        telling = low + torch.arange(CLASSES) % max(high - low, 1)
        shape = (SAMPLES, *like.shape[1:])
        filler = torch.randint(min(low + CLASSES, high - 1), high, shape, generator=self._generator)
        told = torch.rand(shape, generator=self._generator) < 0.25
        chosen = telling[self._labels].view(-1, *[1] * (len(shape) - 1)).expand(shape)
        return torch.where(told, chosen, filler).to(like.dtype)

    def _call(self, module: nn.Module, rows: Tensor) -> Tensor:
        like = self._rest[self._main]
        data = self._data[rows]
        if (
            like.is_floating_point()
            and data.ndim == 4
            and like.ndim >= 4
            and data.shape[1] == 1
            and like.shape[-3] == 3
        ):
            scaled = functional.interpolate(data, tuple(like.shape[-2:]), mode="bilinear")
            data = scaled.view(len(rows), *[1] * (like.ndim - 3), *like.shape[-2:]).expand(len(rows), *like.shape[1:])
        call = {name: self._resized(value, len(rows)) for name, value in self._rest.items()}
        call[self._main] = data
        named = {name: value for name, value in call.items() if isinstance(name, str)}
        output = module(*(value for name, value in call.items() if not isinstance(name, str)), **named)
        tensor = next(each for each in output_tensors(output) if each.is_floating_point())
        return _pooled(tensor)

    def _resized(self, value: Any, rows: int) -> Any:
        batch = self._rest[self._main].shape[0]
        if not isinstance(value, Tensor) or not value.ndim or value.shape[0] != batch:
            return value
        return value[torch.arange(rows) % batch]

    def scale(self, twin: nn.Module) -> tuple[Tensor, float]:
        """Mean and rms of the twin's features over the first batch."""
        torch.manual_seed(0)
        with torch.no_grad():
            features = self._call(_training(twin), torch.arange(BATCH))
        mean = features.mean(0)
        return mean, float((features - mean).square().mean().sqrt()) or 1.0

    def train(self, module: nn.Module, optimiser: str, rate: float, scale: tuple[Tensor, float]) -> list[float]:
        torch.manual_seed(0)
        _training(module)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        steps = (
            torch.optim.Adam(parameters, rate)
            if optimiser == "adam"
            else torch.optim.SGD(parameters, rate, momentum=0.9)
        )
        mean, size = scale
        readout = torch.randn(mean.numel(), CLASSES, generator=torch.Generator().manual_seed(1)) / mean.numel() ** 0.5
        losses: list[float] = []
        for rows in self._batches():
            features = (self._call(module, rows) - mean) / size
            loss = functional.cross_entropy(features @ readout, self._labels[rows])
            losses.append(float(loss))
            if not math.isfinite(losses[-1]):
                return [*losses, *[math.inf] * (STEPS - len(losses))]
            steps.zero_grad()
            loss.backward()
            steps.step()
        return losses

    def _batches(self) -> Iterator[Tensor]:
        order = torch.Generator().manual_seed(2)
        done = 0
        while done < STEPS:
            for rows in torch.randperm(SAMPLES, generator=order).split(BATCH)[: STEPS - done]:
                yield rows
                done += 1


def _pooled(tensor: Tensor) -> Tensor:
    if tensor.ndim >= 4:
        tensor = tensor.movedim(1, -1)
    return tensor.reshape(tensor.shape[0], -1, tensor.shape[-1]).mean(1) if tensor.ndim > 1 else tensor[:, None]


def _training(module: nn.Module) -> nn.Module:
    """Training mode, without dropout of any kind."""
    module.train()
    for child in module.modules():
        if "drop" in type(child).__name__.lower():
            child.eval()
    return module


# -- the twin ----------------------------------------------------------------------------------------------------------


def _redraw(module: nn.Module, finding: Finding) -> None:
    address = finding.address.partition("[")[0]
    owner = _owner(module, address) or _owner(module, address.rpartition(".")[0])
    if owner is not None and hasattr(owner, "reset_parameters"):
        owner.reset_parameters()
        return
    for parameter in [each for each in (_parameter(module, address),) if each is not None]:
        bound = 1 / max(parameter[0].numel() if parameter.ndim > 1 else parameter.numel(), 1) ** 0.5
        parameter.uniform_(-bound, bound)


def _owner(module: nn.Module, name: str) -> nn.Module | None:
    try:
        return module.get_submodule(name) if name else None
    except AttributeError:
        return None


def _parameter(module: nn.Module, address: str) -> nn.Parameter | None:
    try:
        return module.get_parameter(address.partition("[")[0])
    except AttributeError:
        return None
