"""initlint.gate in a plain training script: what it feeds, what it stops, and that it leaves everything as it was."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel

import initlint
from initlint.errors import FindingsError, InitlintError, UsageError
from initlint.integrations import gates, samples


def net(broken: bool = False) -> nn.Sequential:
    module = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    if broken:
        nn.init.zeros_(module[3].weight)
        nn.init.constant_(module[3].bias, -1.0)
    return module


def losses(gated: bool, broken: bool = False) -> list[float]:
    """Of three steps, with dropout and shuffled data."""
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loader = torch.utils.data.DataLoader(data, 16, shuffle=True)
    module, criterion = net(broken), nn.CrossEntropyLoss()
    optimiser = torch.optim.Adam(module.parameters())
    seen = []
    if gated:
        initlint.gate(module, data[:16], criterion)
    for x, y in loader:
        loss = criterion(module(x), y)
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    return seen[:3]


def test_a_run_that_passes_is_the_run_without_a_gate() -> None:
    assert losses(gated=True) == losses(gated=False)


def test_a_broken_run_is_stopped_before_the_first_step() -> None:
    with pytest.raises(FindingsError, match="zero-weights"):
        losses(gated=True, broken=True)


def test_a_gate_that_only_warns_logs_the_report(caplog: pytest.LogCaptureFixture) -> None:
    report = initlint.gate(net(broken=True), on_findings="warn")
    assert not report.ok
    assert "zero-weights" in caplog.text
    with pytest.raises(UsageError, match="one of raise, warn, not 'ignore'"):
        initlint.gate(net(), on_findings="ignore")


def test_settings_are_those_of_check(tmp_path: Any) -> None:
    broken = net(broken=True)
    assert initlint.gate(broken, fail_on="never").findings
    assert initlint.gate(broken, select=["numerics"]).ok
    with pytest.raises(InitlintError, match="no configuration file"):
        initlint.gate(broken, config=str(tmp_path / "missing.toml"))


def test_what_was_not_run_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Stranger(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise OSError("no dictionary")

    assert initlint.gate(Stranger(4, 4), torch.randn(8, 4)).ok
    assert "initlint saw the weights of Stranger only: its forward raised OSError: no dictionary" in caplog.text


class Two(nn.Module):
    """Needs two inputs and takes a third one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor, scale: Any = None) -> torch.Tensor:
        return self.layer(x + y)


class Anything(Two):
    def forward(self, **named: torch.Tensor) -> torch.Tensor:
        return self.layer(named["x"])


def none(output: Any) -> Any:
    return output


def two(output: Any, target: Any) -> Any:
    return target


X, Y, T, U = (torch.full((2, 8), float(number)) for number in range(4))


@pytest.mark.parametrize(
    ("module", "batch", "inputs", "target"),
    [
        (nn.Linear(8, 4), X, X, None),
        (nn.Linear(8, 4), [X, T], (X,), T),
        (nn.Linear(8, 4), (X, T, U), (X,), (T, U)),
        (nn.Sequential(), (X, T), (X,), T),
        (Two(), (X, Y), (X, Y), None),
        (Two(), (X, Y, T), (X, Y), T),
        (Two(), ({"x": X, "y": Y}, T), {"x": X, "y": Y}, T),
        (Two(), {"x": X, "y": Y, "label": T}, {"x": X, "y": Y}, T),
        (Two(), {"x": X, "y": Y, "scale": U, "a": T, "b": U}, {"x": X, "y": Y, "scale": U}, {"a": T, "b": U}),
        (Anything(), {"x": X, "label": T}, {"x": X, "label": T}, None),
        (Two(), None, None, None),
    ],
)
def test_a_batch_is_split_into_what_forward_takes_and_the_target(
    module: nn.Module, batch: Any, inputs: Any, target: Any
) -> None:
    fed, loss = gates.fitted(module, batch, two)
    assert pickle.dumps(fed) == pickle.dumps(inputs)
    if target is None:
        assert loss is two
    else:
        assert pickle.dumps(loss("output")) == pickle.dumps(target)
    assert gates.fitted(module, batch, none)[1] is none


def test_the_loss_is_that_of_training() -> None:
    """A head so loud that only the labels tell how wrong it is."""
    module = net()
    with torch.no_grad():
        module[5].weight.mul_(1e6)
    x, y = torch.randn(32, 16), torch.randint(0, 4, (32,))
    with pytest.raises(FindingsError, match="initial-loss"):
        initlint.gate(module, (x, y), nn.CrossEntropyLoss(), select=["initial-loss"])


def test_wrappers_are_taken_off() -> None:
    module = net()
    compiled = torch.compile(module, backend="eager")
    assert gates.unwrapped(compiled) is module
    assert gates.unwrapped(DataParallel(module)) is module
    assert gates.unwrapped(torch.compile(DataParallel(module), backend="eager")) is module
    assert initlint.gate(compiled).target == "Sequential"
    assert gates.unwrapped("model.onnx") == "model.onnx"


def test_trained_weights_are_no_reason_to_stop() -> None:
    """A heavy-tailed table with units of very different scales, as training makes them."""
    rng, module = np.random.default_rng(0), net()
    values = 0.1 * np.exp(0.5 * rng.standard_normal((64, 1))) * rng.standard_t(5, (64, 64))
    with torch.no_grad():
        module[3].weight.copy_(torch.from_numpy(values))
    assert "looks-trained" in {finding.rule for finding in initlint.check(module).findings}
    report = initlint.gate(module, fail_on="note", select=["looks-trained"])
    assert [entry.reason for entry in report.suppressed] == [gates.TRAINED_ON_PURPOSE]


def test_a_report_can_be_sent_to_other_processes() -> None:
    whole = initlint.check(net(broken=True))
    assert pickle.loads(pickle.dumps(whole)) == whole  # noqa: S301


class Augmented(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, size: int = 40) -> None:
        self.size, self.asked = size, list[int]()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.asked.append(index)
        return torch.randn(3), index


class Stream(torch.utils.data.IterableDataset[int]):
    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Any:
        return iter(range(3))


def test_a_batch_of_a_loader_is_spread_evenly_and_touches_no_state() -> None:
    loader = torch.utils.data.DataLoader(Augmented(), 8, shuffle=True, generator=torch.Generator().manual_seed(3))
    states = torch.get_rng_state(), loader.generator.get_state()
    x, y = samples.batch_of(loader)
    assert x.shape == (8, 3)
    assert y.tolist() == [0, 5, 10, 15, 20, 25, 30, 35]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(loader.generator.get_state(), states[1])
    large = torch.utils.data.DataLoader(Augmented(1000), 500)
    assert len(samples.batch_of(large)[0]) == samples.SAMPLES
    whole = torch.utils.data.DataLoader(Augmented(), batch_size=None)
    assert samples.batch_of(whole)[0].shape == (3,)


@pytest.mark.parametrize("loader", [torch.utils.data.DataLoader(Stream()), [1, 2], None])
def test_a_stream_is_not_consumed(loader: Any) -> None:
    with pytest.raises(samples.NoBatch):
        samples.batch_of(loader)


def test_gating_logs_one_line_when_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "initlint")
    initlint.gate(net())
    assert [record.getMessage().startswith("initlint lets Sequential pass") for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("model", "batch", "said"),
    [
        (3, None, "a torch.nn.Module that has been built, not int"),
        (nn.Linear, None, "not the class Linear"),
        (
            net(),
            torch.utils.data.DataLoader(torch.zeros(4, 16)),
            r"one batch, as next\(iter\(loader\)\) gives it, not DataLoader",
        ),
        (net(), iter([torch.zeros(4, 16)]), "not list_iterator"),
        (net(), {}, "not an empty dict"),
        (net(), 3, "not int"),
    ],
    ids=["number", "class", "loader", "iterator", "empty", "scalar"],
)
def test_what_is_no_model_or_no_batch_is_refused(model: Any, batch: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        initlint.gate(model, batch)


def test_a_batch_that_holds_nan_is_told_as_what_it_is() -> None:
    with pytest.raises(InitlintError, match="input number 1 holds NaN"):
        initlint.gate(net(), (torch.full((8, 16), torch.nan), torch.zeros(8, dtype=torch.long)), nn.CrossEntropyLoss())
