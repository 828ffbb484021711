"""Memory that nobody wrote: found exactly where a builder is at hand, by absurd magnitudes elsewhere."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
import torch
from judging import check_builder
from models import Built, layer_scale, lstm, relu_mlp
from models.altered import altered
from models.builders import forget, forget_rows, found_memory, gated, unseeded, write
from models.graphs import mlp
from torch import nn

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def explicit_nan(module: nn.Module) -> None:
    module.token.fill_(float("nan"))


def written_in_place(module: nn.Module) -> None:
    forget("gate", "token")(module)
    module.gate.uniform_(-0.1, 0.1)
    module.token.zero_()


def materialised() -> Built:
    """Meta-device initialisation whose second half was forgotten."""
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4, bias=False))
    module = module.to_empty(device="cpu")
    module[0].reset_parameters()
    module[1].reset_parameters()
    return module, (torch.randn(32, 8),)


def running_statistics() -> Built:
    module = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    forget("1.running_var")(module)
    return module, (torch.randn(32, 8),)


def new_head() -> Built:
    """A head that is put on after the initialisation, as in huggingface/transformers#28122."""
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    with torch.device("meta"):
        head = nn.Linear(16, 10)
    module[2] = head.to_empty(device="cpu")
    return module, (torch.randn(8, 8),)


@cases(
    Good("he-initialised mlp", unseeded(relu_mlp), notes_ok=False),
    Good("all that is made empty is written later", gated(), notes_ok=False),
    Good("packed gates", unseeded(lstm), notes_ok=False),
    Good("near miss: empty, then written in place", gated(written_in_place), notes_ok=False),
    Good("near miss: NaN that somebody wrote", gated(explicit_nan), notes_ok=False),
    Good("near miss: a cache that is written before it is read", gated(forget("cache"))),
    Bad("a bare parameter", gated(forget("gate")), ["gate"], ERROR),
    Bad("a bias that the initialiser missed", gated(forget("last.bias")), ["last.bias"], ERROR),
    Bad("half of a packed weight", gated(forget_rows("gate", 16)), ["gate"], ERROR),
    Bad("several", gated(forget("scale", "token", "first.weight")), ["first.weight", "scale", "token"], ERROR),
    Bad("a head that was put on later", new_head, ["2.bias", "2.weight"], ERROR),
    Bad("meta-device initialisation that stops half-way", materialised, ["3.weight"], ERROR),
    Bad("a running variance", running_statistics, ["1.running_var"], WARNING),
    Bad("a cache, as a note", gated(forget("cache")), ["cache"], NOTE),
)
def test_uninitialized_memory(case: Case) -> None:
    check_builder("uninitialized-memory", case)


def test_the_share_of_unwritten_values_is_exact() -> None:
    (finding,) = initlint.check(gated(forget_rows("gate", 24)), select=["uninitialized-memory"]).findings
    assert (finding.data["values"], finding.data["count"]) == (8 * 32, 32 * 32)


def log_uniform(shape: tuple[int, ...]) -> np.ndarray:
    """State space models: decays from 1e-4 to 1e4."""
    return np.exp(np.random.default_rng(0).uniform(np.log(1e-4), np.log(1e4), shape)).astype(np.float32)


def decayed(tensor: np.ndarray) -> np.ndarray:
    """Half of the units have died under weight decay, down to denormals."""
    tensor = tensor.copy()
    tensor[::2] *= np.float32(1e-41)
    return tensor


def mask(seed: int = 0, value: float = float(np.finfo(np.float32).min)) -> Built:
    module, inputs = relu_mlp(seed)
    module[0].register_buffer("mask", torch.triu(torch.full((64, 64), value), 1))
    return module, inputs


def garbage(seed: int = 0, name: str = "2.weight") -> onnx.ModelProto:
    return mlp(seed=seed, changes={name: lambda tensor: found_memory(tensor.shape, seed)})


def half(dtype: torch.dtype) -> object:
    return altered(relu_mlp, lambda m: m.to(dtype).float())


@cases(
    Good("he-initialised mlp", relu_mlp, notes_ok=False, exporters=("legacy",)),
    Good("rounded to bfloat16", half(torch.bfloat16), notes_ok=False, exporters=("legacy",)),
    Good("rounded to float16", half(torch.float16), notes_ok=False, exporters=("legacy",)),
    Good("near miss: a layer scale of 1e-6", layer_scale, notes_ok=False, exporters=("legacy",)),
    Good("near miss: decays of eight decades", partial(mlp, changes={"2.weight": lambda t: log_uniform(t.shape)})),
    Good("near miss: units that weight decay has killed", partial(mlp, changes={"2.weight": decayed})),
    Good("near miss: a mask of the smallest float", mask, notes_ok=False, exporters=("legacy",)),
    Good("near miss: a mask of -inf", partial(mask, value=float("-inf")), notes_ok=False, exporters=("legacy",)),
    Good("near miss: one sentinel", partial(mlp, changes={"2.bias": 1e30}), notes_ok=False),
    Bad("memory as found in a weight", garbage, ["2.weight"], ERROR),
    Bad("memory as found in a bias", partial(garbage, name="2.bias"), ["2.bias"], ERROR),
)
def test_by_values(case: Case) -> None:
    check("uninitialized-memory", case, seeds=(0, 1))


def test_garbage_with_nan_is_one_finding() -> None:
    def change(tensor: np.ndarray) -> np.ndarray:
        found = found_memory(tensor.shape)
        found.flat[3] = np.nan
        return found

    report = initlint.check(mlp(changes={"2.weight": change}))
    assert [(f.rule, f.address) for f in report.headlines] == [("uninitialized-memory", "2.weight")]


@pytest.mark.parametrize("value", [0.0, 1e37, float("nan")])
def test_whatever_the_memory_held_it_is_one_finding(value: float) -> None:
    """Zeros, huge values or NaN: what the checked build found in its fresh memory is chance."""

    def build() -> Built:
        module, inputs = gated(forget_rows("gate", 16))()
        if not torch.get_deterministic_debug_mode():
            with torch.no_grad():
                module.gate[17:] = value
        return module, inputs

    report = initlint.check(build)
    loud = [(f.rule, f.address) for f in report.headlines if f.severity >= WARNING]
    assert loud == [("uninitialized-memory", "gate")]


def test_a_model_partly_on_the_meta_device_is_one_error() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2, device="meta"))
    report = initlint.check(module)
    assert [(f.rule, f.address, f.severity) for f in report.headlines] == [("uninitialized-memory", "", ERROR)]
    assert report.headlines[0].data["values"] == 2
    assert report.exit_status == 1


def test_a_model_on_the_meta_device_cannot_be_checked() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    report = initlint.check(module)
    assert (report.status, report.exit_status) == ("unsupported", 3)
    assert report.failure is not None
    assert "meta device" in report.failure.message


def test_a_tensor_written_by_name_is_left_alone() -> None:
    report = initlint.check(gated(forget("gate"), write("gate", eye)), select=["uninitialized-memory"])
    assert report.findings == ()


def eye(shape: tuple[int, ...]) -> np.ndarray:
    return np.eye(*shape)
