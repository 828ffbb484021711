"""Example inputs of nothing but zeros: the shape counts, the values are drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import initlint  # noqa: E402
from initlint import Report, Severity  # noqa: E402


def loud(report: Report) -> list[str]:
    return [f"{each.rule} {each.address}" for each in report.findings if each.severity is not Severity.NOTE]


def remarks(report: Report) -> list[str]:
    return [each.reason for each in report.not_checked if each.at == "inputs"]


def image_net() -> nn.Module:
    """Without biases nothing behind zeros would get a gradient."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


class Tagger(nn.Module):
    """A padded table and a recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16, padding_idx=0)
        self.kinds = nn.Embedding(2, 16)
        self.cell = nn.LSTM(16, 16, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Any, attention_mask: Any = None, token_type_ids: Any = None, state: Any = None) -> Any:
        rows = self.table(ids) if token_type_ids is None else self.table(ids) + self.kinds(token_type_ids)
        out, _ = self.cell(rows, state)
        return self.head(out if attention_mask is None else out * attention_mask[..., None])


ZEROS = torch.zeros(4, 6, dtype=torch.long)
STATE = (torch.zeros(1, 4, 16), torch.zeros(1, 4, 16))


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (image_net, torch.zeros(8, 3, 16, 16)),
        (image_net, np.zeros((8, 3, 16, 16), np.float32)),
        (image_net, (torch.zeros(1, 3, 16, 16),)),
        (Tagger, ZEROS),
        (Tagger, {"ids": ZEROS, "attention_mask": torch.ones(4, 6), "token_type_ids": ZEROS}),
        (Tagger, (ZEROS, torch.ones(4, 6))),
        (Tagger, {"ids": ZEROS, "state": STATE}),
    ],
)
def test_zeros_are_no_data(build: Callable[[], nn.Module], inputs: Any) -> None:
    torch.manual_seed(0)
    report = initlint.check(build(), inputs)
    assert report.status == "ok"
    assert report.probe.backward == "exact"
    assert loud(report) == []
    (remark,) = remarks(report)
    assert "nothing but zeros" in remark
    assert "give real samples" in remark


def test_zeros_beside_data_are_what_they_say() -> None:
    torch.manual_seed(0)
    ids = torch.randint(1, 50, (4, 6))
    report = initlint.check(Tagger(), {"ids": ids, "token_type_ids": torch.zeros_like(ids)})
    assert remarks(report) == []
    image = torch.randn(8, 3, 16, 16)
    assert remarks(initlint.check(image_net(), image)) == []


class Biased(nn.Module):
    """An additive mask of zeros hides nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Any, attn_mask: Any) -> Any:
        return self.at(x, x, x, attn_mask=attn_mask)[0]


def test_a_mask_keeps_its_zeros() -> None:
    torch.manual_seed(0)
    mask = torch.zeros(6, 6)
    report = initlint.check(Biased(), (torch.zeros(4, 6, 16), mask))
    assert loud(report) == []
    assert len(remarks(report)) == 1
    assert "attn_mask" not in remarks(report)[0]
    assert not mask.any()


def test_a_blank_example_of_lightning_tells_the_shape() -> None:
    module = image_net()
    module.example_input_array = torch.zeros(1, 3, 16, 16)  # type: ignore[assignment]
    report = initlint.check(module)
    assert report.probe.batch == 8
    assert loud(report) == []
    assert not module.example_input_array.any()


def test_an_error_is_about_the_given_inputs() -> None:
    with pytest.raises(initlint.InitlintError, match="do not fit"):
        initlint.check(image_net(), torch.zeros(8, 4, 16, 16))


def test_what_is_broken_is_still_found() -> None:
    module = image_net()
    nn.init.zeros_(module[0].weight)
    report = initlint.check(module, torch.zeros(8, 3, 16, 16))
    assert any(each.startswith("zero-weights 0.weight") for each in loud(report))


def test_files_are_fed_random_values_too(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

    draw = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="second"),
    ]
    weights = {"w1": draw.normal(0, 0.35, (16, 32)), "w2": draw.normal(0, 0.25, (32, 4))}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    path = tmp_path / "net.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    report = initlint.check(path, {"x": np.zeros((4, 16), np.float32)})
    assert loud(report) == []
    assert [each.signal.rms > 0 for each in report.layers if each.signal is not None] == [True, True]
    assert "the given x holds nothing but zeros" in remarks(report)[0]
