"""What no batch reaches can never learn, and what holds it there is named; what this batch misses is excused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.plugin import Finding, Severity
from initlint.probe.ajar import Gauge, out_of_reach

Build = Callable[[], tuple[nn.Module, Tensor]]


def errors(module: nn.Module, inputs: Tensor, folder: Path | None = None) -> list[Finding]:
    """The headlines on the module, or on its file in ``folder``."""
    if folder is None:
        report = initlint.check(module, inputs)
    else:
        path = folder / "model.onnx"
        honest = {"training": torch.onnx.TrainingMode.TRAINING, "do_constant_folding": False}
        names = {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
        torch.onnx.export(module, (inputs,), str(path), dynamo=False, **honest, **names)
        report = initlint.check(path)
    return [each for each in report.headlines if each.severity is Severity.ERROR]


class Dueling(nn.Module):
    def __init__(self, bias: float = -30.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 64), nn.ReLU())
        self.value = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
        self.advantage = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
        for head in (self.value, self.advantage):
            nn.init.constant_(head[0].bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        shared = self.body(x)
        return self.value(shared) + self.advantage(shared)


class Mixture(nn.Module):
    def __init__(self, first: float = 1e4) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.tensor([first, 0.0]))
        self.nets = nn.ModuleList(nn.Linear(8, 4) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        shares = self.mix.softmax(0)
        return shares[0] * self.nets[0](x) + shares[1] * self.nets[1](x)


class Gated(nn.Module):
    """All that passes is multiplied by one gate."""

    def __init__(self, gate: float = -200.0) -> None:
        super().__init__()
        self.inner, self.gate, self.head = nn.Linear(8, 32), nn.Parameter(torch.tensor(gate)), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(self.gate) * torch.relu(self.inner(x)))


class Gru(nn.Module):
    def __init__(self, update: float = 50.0) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(8, 32, batch_first=True), nn.Linear(32, 4)
        with torch.no_grad():
            self.cell.bias_ih_l0[32:64] = update

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class CodeBook(nn.Module):
    """Soft choice of a row; ``std`` of the rows."""

    def __init__(self, std: float = 0.0) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        self.code = nn.Parameter(std * torch.randn(16, 4))
        self.decode = nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode((-(torch.cdist(self.encode(x), self.code) ** 2)).softmax(1) @ self.code)


def held(last: nn.Module, bias: float) -> nn.Sequential:
    module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1), last)
    nn.init.constant_(module[2].bias, bias)
    return module


FLAT = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(32, 12, 8, generator=torch.Generator().manual_seed(0))

SHUT: list[tuple[Build, list[str]]] = [
    (lambda: (Dueling(), FLAT), ["advantage.0.bias", "value.0.bias"]),
    (lambda: (Mixture(), FLAT), ["mix"]),
    (lambda: (Gated(), FLAT), ["gate"]),
    (lambda: (Gru(), ROWS), ["cell.bias_ih_l0[z]"]),
    (lambda: (held(nn.Sigmoid(), 60.0), FLAT), ["2.bias"]),
    (lambda: (held(nn.ReLU6(), 40.0), FLAT), ["2.bias"]),
    (lambda: (held(nn.Hardtanh(), -20.0), FLAT), ["2.bias"]),
]


@pytest.mark.parametrize(("build", "at"), SHUT)
@pytest.mark.parametrize("file", [False, True], ids=["module", "file"])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_holds_it_is_the_headline(build: Build, at: list[str], file: bool, seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    found = errors(*build(), tmp_path if file else None)
    assert sorted(each.address for each in found) == at
    assert all(each.verified and each.fix is not None for each in found)


def test_rows_that_are_all_equal_give_nothing_to_what_chooses_among_them() -> None:
    torch.manual_seed(0)
    (found,) = errors(CodeBook(), FLAT)
    assert (found.rule, found.address, found.verified) == ("zero-weights", "code", True)
    assert errors(CodeBook(1.0), FLAT) == []


class Concrete(nn.Module):
    """Gates that start at 1 exactly, a hundredth beyond where they have a slope; noise takes them there in training."""

    def __init__(self, noisy: bool = True, start: float = 2.5) -> None:
        super().__init__()
        self.inner, self.gates, self.head = nn.Linear(8, 32), nn.Parameter(torch.full((32,), start)), nn.Linear(32, 4)
        self.noisy = noisy

    def forward(self, x: Tensor) -> Tensor:
        logits = self.gates
        if self.noisy and self.training:
            drawn = torch.rand_like(logits).clamp(1e-6, 1.0 - 1e-6)
            logits = logits + drawn.log() - (1.0 - drawn).log()
        return self.head(torch.relu(self.inner(x)) * (1.2 * torch.sigmoid(logits) - 0.1).clamp(0.0, 1.0))


class Scaled(nn.Module):
    """What comes out is scaled by a function of a parameter."""

    def __init__(self, function: Callable[[Tensor], Tensor], value: float, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.body, self.scale, self.function = nn.Linear(8, 4), nn.Parameter(torch.full(shape, value)), function

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * self.function(self.scale)


class Between(nn.Module):
    """The difference of two parameters, of which the other one learns elsewhere and opens it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.low, self.high = nn.Linear(8, 4), nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * torch.relu(self.high - self.low) + self.low


OUTSIDE: list[Build] = [
    lambda: (Scaled(lambda scale: scale.clamp(0.1, 1.0), 0.01), FLAT),
    lambda: (Scaled(lambda scale: scale.clamp(0.1, 1.0), 0.01, (4,)), FLAT),
    lambda: (Scaled(lambda scale: torch.relu(scale - 1.0) + 0.5, 0.9, (1,)), FLAT),
    lambda: (Scaled(lambda scale: nn.functional.hardtanh(2.0 * scale), 0.6, (4,)), FLAT),
]


@pytest.mark.parametrize("build", OUTSIDE)
def test_what_parameters_alone_close_no_batch_opens(build: Build) -> None:
    torch.manual_seed(0)
    (found,) = errors(*build())
    assert (found.rule, found.address) == ("stuck-parameters", "scale")


def test_gates_without_the_noise_that_would_open_them_stay_shut() -> None:
    torch.manual_seed(0)
    assert [each.address for each in errors(Concrete(noisy=False), FLAT)] == ["gates"]


@pytest.mark.parametrize("start", [-12.0, -10.0])
def test_gates_that_the_noise_hardly_ever_opens_are_told(start: float) -> None:
    torch.manual_seed(0)
    (found,) = errors(Concrete(start=start), FLAT)
    assert (found.rule, found.address, found.verified) == ("stuck-parameters", "gates", True)
    assert errors(Concrete(start=-4.0), FLAT) == []  # a third of the steps opens one


@pytest.mark.parametrize("build", [Between, Concrete, lambda: Scaled(lambda scale: scale.clamp(0.1, 1.0), 0.2)])
def test_what_another_parameter_or_noise_opens_is_left_alone(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    assert errors(build(), FLAT) == []


class Threshold(nn.Module):
    """No unit fires for so few samples."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.inner(x) - 1.8))


@pytest.mark.parametrize(
    "build",
    [
        lambda: (Dueling(0.0), FLAT),
        lambda: (Mixture(5.0), FLAT),
        lambda: (Gated(-5.0), FLAT),
        lambda: (Gru(1.0), ROWS),
        lambda: (Concrete(), FLAT),
        lambda: (Threshold(), FLAT[:2]),
        lambda: (held(nn.Sigmoid(), 5.0), FLAT),
    ],
)
@pytest.mark.parametrize("file", [False, True], ids=["module", "file"])
def test_what_another_batch_or_another_start_reaches_is_no_error(build: Build, file: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert errors(*build(), tmp_path if file else None) == []


def test_distance_is_told_in_deviations_of_the_values_themselves() -> None:
    spread = torch.linspace(-1.0, 1.0, 64)

    def closed(*inputs: Tensor) -> frozenset[int]:
        runs = []
        for each in inputs:
            with Gauge() as gauge:
                torch.relu(each)
            runs.append(gauge.seen)
        return out_of_reach(runs)

    near, far = spread - 2.0, spread - 9.0  # the nearest value is 1, and 8, from 0, with a deviation of 0.6
    assert (closed(near, near - 0.1), closed(far, far - 0.1)) == (frozenset(), frozenset({0}))
    few = torch.tensor([-9.0, -9.1])
    assert closed(few, few - 0.1) == frozenset()  # two values tell no spread
    assert closed(few, few) == frozenset({0})  # but no batch changes these
    assert closed(few + 6.0, few + 6.0) == frozenset()  # and a parameter is of order one


def test_a_faint_signal_may_still_grow_to_where_the_unit_fires() -> None:
    """The density of a radiance field: its bias outweighs what is left of the signal, which others make learn."""
    torch.manual_seed(0)
    body = nn.Sequential(*(each for _ in range(8) for each in (nn.Linear(64, 64), nn.ReLU())))
    model = Fork(body, nn.Sequential(nn.Linear(64, 1), nn.ReLU()), nn.Linear(64, 3))
    nn.init.constant_(model.left[0].bias, -0.12)
    found = initlint.check(model, torch.randn(64, 64)).findings
    assert not [finding for finding in found if finding.rule == "stuck-parameters"]


class Fork(nn.Module):
    def __init__(self, body: nn.Module, left: nn.Sequential, right: nn.Module) -> None:
        super().__init__()
        self.body, self.left, self.right = body, left, right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x)
        return torch.cat([self.left(h), self.right(h)], 1)


class Squashed(nn.Module):
    """Vectors whose lengths, once and again squashed, are clamped before a root is taken of them (capsules)."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 32)
        self.votes = nn.Parameter(std * torch.randn(4, 6, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        vectors = self.inner(x).view(-1, 4, 8)
        for _ in range(2):
            length = (vectors * vectors).sum(-1, keepdim=True)
            vectors = vectors * length.clamp_min(1e-12).sqrt() / (1.0 + length)
            if vectors.shape[1] == 4:
                vectors = torch.einsum("bic,iocd->bod", vectors, self.votes)
        return vectors.pow(2).sum(-1).clamp_min(1e-12).sqrt()


def test_where_nothing_learns_no_signal_grows_to_the_edge() -> None:
    torch.manual_seed(0)
    found = {each.address for each in errors(Squashed(1e-4), FLAT)}
    assert found == {"inner.weight", "inner.bias", "votes"}
    assert errors(Squashed(0.3), FLAT) == []
