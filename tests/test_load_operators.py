"""What eager operators become, and what is said of weights of which no layer is made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.model import Model
from initlint.probe.on_torch import TorchSession


def read(module: nn.Module, *inputs: Tensor) -> Model:
    return TorchSession(module, inputs, {}).traced.model


class Scaled(nn.Module):
    """A layer whose outputs meet something that is made of a parameter."""

    def __init__(self, made: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.table, self.made = nn.Linear(8, 16), nn.Parameter(torch.rand(16, 16) + 0.5), made

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.made(self.table)[:1]


def filled(table: Tensor) -> Tensor:
    copy = table * 1
    copy[:2].fill_(1.0)
    copy[2:].zero_()
    return copy


MADE: dict[str, Callable[[Tensor], Tensor]] = {
    "remainder": lambda t: t.remainder(1.0),
    "fmod": lambda t: t.fmod(1.0),
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "log2": torch.log2,
    "atan": torch.atan,
    "nan_to_num": lambda t: t.nan_to_num(),
    "fill": filled,
    "unsafe_split": lambda t: t.unsafe_split(4)[1],
    "unsafe_chunk": lambda t: t.unsafe_chunk(4)[1],
    "masked_select": lambda t: t.masked_select(t > 0).view(16, 16),
}


@pytest.mark.parametrize("name", MADE)
def test_plain_operators_are_known(name: str) -> None:
    assert read(Scaled(MADE[name]), torch.randn(4, 8)).not_checked == ()


def test_softplus_may_be_written_with_log1p() -> None:
    softplus = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 2))
    softplus[0].register_forward_hook(lambda module, args, output: torch.log1p(output.exp()))
    assert read(softplus, torch.randn(4, 8)).layers[0].activation == "softplus"


def test_cells_are_known() -> None:
    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.lstm = nn.GRUCell(8, 16), nn.LSTMCell(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            hidden = state = None
            for step in x.unbind(1):
                hidden = self.gru(step, hidden)
                state = self.lstm(hidden, state)
            return state[0]

    assert read(Cells(), torch.randn(4, 3, 8)).not_checked == ()


class Gain(nn.Module):
    """Multiplies its input by what a map makes of a parameter; positions are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.places = nn.Parameter(torch.randn(3)), nn.Embedding(5, 8)
        self.gain, self.out = nn.Linear(3, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out((x + self.places(torch.arange(5))) * self.gain(self.code))


def test_a_map_that_no_input_reaches_is_said() -> None:
    model = read(Gain(), torch.randn(4, 5, 8))
    assert [layer.name for layer in model.layers] == ["places", "out"]
    (told,) = model.not_checked
    assert told.at == "gain.weight"
    assert "whatever the inputs are" in told.reason


class Elementwise(nn.Module):
    """A cell whose synapses are written out: nothing in it is a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.middle = nn.Parameter(torch.randn(6, 9)), nn.Parameter(torch.randn(6, 9))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight * torch.sigmoid(x[..., None] - self.middle)).sum(-2)


def test_parameters_of_no_layer_are_not_called_clean() -> None:
    report = initlint.check(Elementwise(), torch.randn(4, 6))
    (entry,) = report.not_checked
    assert (entry.at, "108 values" in entry.reason) == ("all parameters", True)
    assert "all clean" not in str(report)
