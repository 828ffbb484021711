"""What a module is fed: given, as its library says, or guessed from its layers."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import initlint
from initlint.errors import FailureKind, TargetError
from initlint.probe.modules import open_module
from initlint.probe.on_torch import TorchSession
from initlint.report import Run
from initlint.reporters.as_text import render
from initlint.reporters.layout import Detail, Layout
from initlint.settings import ProbeSettings


def fed(module: nn.Module, inputs: Any = None, **settings: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by the place of the argument."""
    session = open_module(module, inputs, ProbeSettings(**settings))
    assert isinstance(session, TorchSession), session.reason
    given = {**{str(i): value for i, value in enumerate(session.call[0])}, **session.call[1]}
    return {name: tuple(value.shape) for name, value in given.items()}


def conv_net(channels: int = 3, side: int = 0) -> nn.Sequential:
    """With a fixed linear layer where ``side`` is given."""
    pooled: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)] if not side else []
    size = 4 * (side - 2) ** 2 if side else 4
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), *pooled, nn.Flatten(), nn.Linear(size, 2))


class Named(nn.Module):
    """Text and what goes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 8), nn.Linear(8, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.head((self.embed(input_ids) * attention_mask[..., None]).sum(1))


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.time, self.out = nn.Conv2d(3, 8, 3), nn.Linear(1, 8), nn.Conv2d(8, 3, 3)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.conv(x) + self.time(t[:, None])[..., None, None]))


class StepTable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.steps = nn.Linear(6, 8), nn.Embedding(1000, 8)

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + self.steps(timesteps)


class CrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.attend = nn.Linear(6, 8), nn.MultiheadAttention(8, 2, kdim=5, vdim=5, batch_first=True)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return self.attend(self.fc(x), context, context)[0]


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 8)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.fc(left) * self.fc(right)


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(12, 7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.matrix


# Guessed -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        (nn.Linear(5, 3), {"0": (8, 5)}),
        (conv_net(), {"0": (8, 3, 64, 64)}),
        (conv_net(1, 28), {"0": (8, 1, 28, 28)}),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU()), {"0": (8, 2, 64)}),
        (nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU()), {"0": (8, 1, 16, 16, 16)}),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), {"0": (8, 784)}),
        (nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 2)), {"0": (8, 8)}),
        (nn.LSTM(5, 4, batch_first=True), {"0": (8, 8, 5)}),
        (nn.GRU(5, 4), {"0": (8, 8, 5)}),
        (nn.TransformerEncoderLayer(8, 2, batch_first=True), {"0": (8, 8, 8)}),
        (Named(), {"0": (8, 8), "attention_mask": (8, 8)}),
        (Denoiser(), {"0": (8, 3, 64, 64), "t": (8,)}),
        (StepTable(), {"0": (8, 6), "timesteps": (8,)}),
        (CrossAttention(), {"0": (8, 8, 6), "context": (8, 8, 5)}),
        (Siamese(), {"0": (8, 6), "right": (8, 6)}),
        (Bare(), {"0": (8, 12)}),
        (torch.jit.trace(nn.Linear(5, 3), torch.ones(1, 5)), {"0": (8, 5)}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_inputs_are_guessed_from_the_first_layers(module: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
    assert fed(module) == shapes


def test_a_batch_norm_gets_enough_values() -> None:
    net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    assert fed(net) == {"0": (16, 5)}
    assert fed(net, batch=4) == {"0": (4, 5)}
    assert fed(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))) == {"0": (8, 3, 64, 64)}


def test_the_same_seed_feeds_the_same_values() -> None:
    def first(seed: int) -> torch.Tensor:
        session = open_module(nn.Linear(5, 3), None, ProbeSettings(seed=seed))
        assert isinstance(session, TorchSession)
        return session.call[0][0]

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_inputs_have_the_type_of_the_parameters(dtype: torch.dtype) -> None:
    session = open_module(nn.Linear(5, 3).to(dtype), None, ProbeSettings())
    assert isinstance(session, TorchSession)
    assert session.call[0][0].dtype == dtype


# Conventions ---------------------------------------------------------------------------------------------------------


def test_lightnings_example_is_enlarged() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    module.example_input_array = torch.randn(1, 3, 4)  # type: ignore[assignment]
    assert fed(module) == {"0": (8, 3, 4)}


def test_timms_configuration_gives_the_size() -> None:
    module = conv_net()
    module.default_cfg = {"input_size": (3, 40, 48)}  # type: ignore[assignment]
    assert fed(module) == {"0": (8, 3, 40, 48)}


def test_a_transformers_configuration_gives_vocabulary_and_image() -> None:
    class Model(Named):
        main_input_name = "input_ids"

        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(vocab_size=11)

        def forward(self, input_ids: Any = None, attention_mask: Any = None) -> Any:
            return self.head(self.embed(input_ids).sum(1))

    assert fed(Model()) == {"input_ids": (8, 8)}


def test_transformers_models_are_fed() -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=50, **small))
    vit = transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **small))
    assert fed(bert) == {"input_ids": (8, 8)}
    assert fed(vit) == {"pixel_values": (8, 3, 32, 32)}


# Given ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs",
    [
        torch.ones(5, 6),
        np.ones((5, 6), np.float32),
        (torch.ones(5, 6),),
        [torch.ones(5, 6)],
        {"input": torch.ones(5, 6)},
        {"anything": torch.ones(5, 6)},
    ],
    ids=["tensor", "array", "tuple", "list", "by name", "by another name"],
)
def test_given_inputs_are_taken_as_they_are(inputs: Any) -> None:
    assert initlint.check(nn.Linear(6, 2), inputs).probe.batch == 5


def test_several_inputs_go_by_place_or_name() -> None:
    ones = torch.ones(5, 6)
    assert fed(Siamese(), (ones, ones)) == {"0": (5, 6), "1": (5, 6)}
    assert fed(Siamese(), {"right": ones, "left": ones}) == {"right": (5, 6), "left": (5, 6)}


def test_a_forward_that_takes_one_mapping_gets_it() -> None:
    class Batched(nn.Linear):
        def forward(self, batch: Any) -> torch.Tensor:
            return super().forward(batch["x"])

    assert initlint.check(Batched(6, 2), {"x": torch.ones(5, 6)}).probe.batch == 5


def test_verbosely_the_report_tells_what_went_in() -> None:
    made_up, given = initlint.check(StepTable()), initlint.check(StepTable(), (torch.randn(4, 6), torch.arange(4)))
    assert made_up.probe.fed == "x 8x6 float32, timesteps 8 int64 (made up)"
    assert given.probe.fed == "x 4x6 float32, timesteps 4 int64"
    assert f"probed with: {given.probe.fed}, seed 0, loss random-linear" in render(
        Run((given,)), Layout(width=100, detail=Detail.VERBOSE)
    )
    assert "probed with" not in str(given)


def test_a_forward_in_another_thread_is_not_called_clean() -> None:
    class Threaded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 4)
            nn.init.zeros_(self.head.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: list[torch.Tensor] = []
            thread = Thread(target=lambda: found.append(self.head(x)))
            thread.start()
            thread.join()
            return found[0]

    report = initlint.check(Threaded(), torch.randn(8, 4))
    assert "in another thread" in report.probe.reason
    assert [row.layer.name for row in report.layers] == ["head"]
    assert "all clean" not in str(report)


@pytest.mark.parametrize(
    "tensor", [torch.empty(8, 4, device="meta"), torch.nested.nested_tensor([torch.ones(3, 4), torch.ones(2, 4)])]
)
def test_tensors_that_cannot_be_fed_are_wrong_usage(tensor: torch.Tensor) -> None:
    with pytest.raises(TargetError, match="give plain ones"):
        initlint.check(nn.Linear(4, 4), tensor)


def test_files_give_inputs(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    arrays = {"left": np.ones((5, 6), np.float32), "right": np.ones((5, 6), np.float32)}
    np.savez(tmp_path / "x.npz", **arrays)
    save_file(arrays, tmp_path / "x.safetensors")
    for name in ("x.npz", "x.safetensors"):
        assert initlint.check(Siamese(), tmp_path / name).probe.batch == 5


def test_shapes_give_inputs() -> None:
    assert initlint.check(conv_net(), input_shape="5x3x20x20").probe.batch == 5
    assert initlint.check(Siamese(), input_shape={"right": [5, 6], "left": [5, 6]}).probe.batch == 5
    assert initlint.check(nn.Embedding(9, 4), input_shape="5x7").probe.batch == 5


@pytest.mark.parametrize(
    ("inputs", "settings", "said"),
    [
        (torch.ones(5, 7), {}, r"the inputs \(5x7 float32\) do not fit the module: RuntimeError: mat1 and mat2"),
        ((torch.ones(5, 6),) * 2, {}, r"the inputs do not fit: too many positional arguments.*takes input"),
        (torch.ones(5, 6, dtype=torch.long), {}, r"do not fit the module"),
        (None, {"input_shape": "5x7"}, r"--input-shape does not fit the module: RuntimeError: mat1"),
        (None, {"input_shape": "z:5x6"}, r"--input-shape names 'z', and Linear\.forward takes input"),
        (torch.ones(0, 6), {}, r"the inputs do not fit: they are empty \(0x6\); give at least one sample"),
        ({"input": np.ones((5, 0), np.float32)}, {}, r"they are empty \(5x0\)"),
        (None, {"input_shape": "0x6"}, r"they are empty \(0x6\)"),
        (None, {"dims": {"batch": 0}}, r"they are empty \(batch=0\)"),
        (None, {"dims": {"sequence": 3}}, r"--dim names 'sequence'.*use --input-shape"),
    ],
)
def test_given_inputs_that_do_not_fit_are_wrong_usage(inputs: Any, settings: Any, said: str) -> None:
    with pytest.raises(TargetError, match=said) as caught:
        initlint.check(nn.Linear(6, 2), inputs, **settings)
    assert caught.value.kind is FailureKind.USAGE


class Policy(nn.Linear):
    """Its forward looks at its values, and names their shape when they are wrong."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Categorical(logits=super().forward(x), validate_args=True).probs


def test_a_forward_that_weights_make_raise_does_not_blame_the_inputs() -> None:
    policy = Policy(6, 2)
    assert initlint.check(policy, torch.ones(5, 6)).probe.batch == 5
    nn.init.constant_(policy.weight, float("nan"))
    report = initlint.check(policy, torch.ones(5, 6))
    assert [finding.rule for finding in report.headlines] == ["non-finite-weights"]
    assert "its forward raised ValueError: Expected parameter logits" in (report.probe.reason or "")
