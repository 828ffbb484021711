"""Faults that training makes up for (benchmarks/results/drawn.md) are warned of; a step further they are errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity

Change = Callable[[nn.Module], object]


class Block(nn.Module):
    """A branch behind a norm, beside its shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.fc2(torch.relu(self.fc1(self.norm(x))))
        return out


def plain(act: type[nn.Module] = nn.ReLU, depth: int = 5, norm: bool = False) -> nn.Sequential:
    """Of He's initialisation, with biases as PyTorch draws them."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(32, 32), *([nn.LayerNorm(32)] if norm else []), act()]
    net = nn.Sequential(*layers, nn.Linear(32, 10))
    for each in net:
        if isinstance(each, nn.Linear):
            nn.init.kaiming_normal_(each.weight, nonlinearity="relu")
    return net


def residual() -> nn.Sequential:
    return nn.Sequential(nn.Linear(32, 32), *(Block(32) for _ in range(4)), nn.LayerNorm(32), nn.Linear(32, 10))


def weights(net: nn.Module) -> list[nn.Parameter]:
    return [each for each in net.parameters() if each.ndim > 1]


def biases(net: nn.Module) -> list[nn.Parameter]:
    return [each.bias for each in net.modules() if isinstance(each, nn.Linear)]


def scaled(factor: float, *places: int) -> Change:
    return lambda net: [weights(net)[place].mul_(factor) for place in places]


def worst(net: nn.Module, change: Change) -> dict[str, Severity]:
    """The gravest severity by rule, of what is not another's consequence."""
    torch.manual_seed(0)
    with torch.no_grad():
        change(net)
    report = initlint.check(net, torch.randn(64, 32))
    found: dict[str, Severity] = {}
    for each in report.headlines:
        found[each.rule] = max(each.severity, found.get(each.rule, Severity.NOTE))
    return found


@pytest.mark.parametrize(
    ("build", "change", "rule"),
    [
        pytest.param(lambda: plain(nn.Tanh, norm=True), scaled(300.0, -1), "variance-mismatch", id="a loud head"),
        pytest.param(
            plain, lambda net: biases(net)[-1].fill_(-150.0), "exploding-signal", id="one bias for all outputs"
        ),
        pytest.param(lambda: plain(nn.SiLU), scaled(1e-3, 1, 2), "variance-mismatch", id="two faint layers of five"),
        pytest.param(
            lambda: plain(norm=True), lambda net: [weights(net)[n].zero_() for n in (1, -1)], "zero-weights", id="norms"
        ),
        pytest.param(residual, lambda net: [each.zero_() for each in weights(net)], "zero-weights", id="all at zero"),
        pytest.param(plain, lambda net: biases(net)[2][:3].fill_(60.0), "oversized-bias", id="biases of three units"),
    ],
)
def test_it_is_a_warning(build: Callable[[], nn.Module], change: Change, rule: str) -> None:
    torch.manual_seed(0)
    found = worst(build(), change)
    assert found[rule] is Severity.WARNING
    assert Severity.ERROR not in found.values(), found


@pytest.mark.parametrize(
    ("build", "change", "rule"),
    [
        pytest.param(plain, scaled(30.0, 0, 1, 2, 3, 4, 5), "exploding-signal", id="all are loud"),
        pytest.param(
            plain, lambda net: biases(net)[-1].normal_(std=150.0), "exploding-signal", id="a bias for each output"
        ),
        pytest.param(lambda: plain(nn.SiLU), scaled(1e-3, 0, 1, 2, 3, 4), "vanishing-signal", id="all are faint"),
        pytest.param(lambda: plain(nn.LeakyReLU, 12), scaled(0.3, *range(12)), "vanishing-signal", id="a deep net"),
        pytest.param(plain, lambda net: [weights(net)[n].zero_() for n in (1, 3)], "zero-weights", id="no norms"),
        pytest.param(
            plain, lambda net: [each.fill_(60.0) for each in biases(net)[:-1]], "oversized-bias", id="all units"
        ),
    ],
)
def test_it_is_an_error(build: Callable[[], nn.Module], change: Change, rule: str) -> None:
    torch.manual_seed(0)
    assert worst(build(), change).get(rule) is Severity.ERROR


def test_what_a_layer_norm_takes_away_is_nothing() -> None:
    torch.manual_seed(0)
    assert worst(residual(), lambda net: biases(net)[0].fill_(-150.0)).get("oversized-bias") is None
    assert worst(residual(), lambda net: biases(net)[0].normal_(std=150.0))["oversized-bias"] >= Severity.WARNING


def test_equal_rows_of_a_head_part_beside_equal_filters() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(128, 10))
    with torch.no_grad():
        net[2].weight[:5] = net[2].weight[:1].clone()
        net[4].weight[:5] = net[4].weight[:1].clone()
    report = initlint.check(net, torch.randn(16, 1, 8, 8))
    assert {each.severity for each in report.findings if each.address == "4.weight"} == {Severity.WARNING}


@pytest.mark.parametrize(("classes", "value"), [(10, 1.0), (10, 1e-4), (100, 0.1)], ids=["of size", "faint", "unseen"])
def test_a_cross_entropy_parts_the_rows_of_a_head(classes: int, value: float) -> None:
    """Nothing comes back through it before its first step, and the rows of classes that a batch has not wait longer."""
    torch.manual_seed(0)
    net = plain(nn.Softsign)
    net[-1] = nn.Linear(32, classes)
    nn.init.constant_(net[-1].weight, value)
    target = torch.arange(64) % 7
    report = initlint.check(net, torch.randn(64, 32), loss=lambda out: nn.functional.cross_entropy(out, target))
    assert {each.severity for each in report.findings if each.address == "10.weight"} == {Severity.WARNING}
    assert {each.rule for each in report.findings if each.severity is Severity.ERROR} == set()


def test_growth_by_one_layer_used_many_times_is_an_error() -> None:
    class Settling(nn.Module):
        def __init__(self, times: int) -> None:
            super().__init__()
            self.enter, self.again, self.head, self.times = (
                nn.Linear(32, 24),
                nn.Linear(24, 24),
                nn.Linear(24, 10),
                times,
            )
            nn.init.orthogonal_(self.again.weight, gain=8.0)

        def forward(self, x: Tensor) -> Tensor:
            entered = self.enter(x)
            state = torch.zeros_like(entered)
            for _ in range(self.times):
                state = torch.tanh(self.again(state) + entered)
            out: Tensor = self.head(state)
            return out

    assert worst(Settling(20), lambda net: None)["exploding-gradient"] is Severity.ERROR
    assert worst(Settling(1), lambda net: None).get("exploding-gradient") is None
