"""Both PyTorch exporters, honest or not: layers and tensors are called what the module calls them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest

from initlint.load.from_onnx import Opened, open_onnx
from initlint.testing import default_export, honest_export

torch = pytest.importorskip("torch")
nn = torch.nn


class Branches(nn.Module):  # type: ignore[misc,name-defined]
    """Nested containers, read by number and by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 8), nn.Tanh()))
        self.heads = nn.ModuleList([nn.Linear(8, 3), nn.Linear(8, 3)])

    def forward(self, x: Any) -> Any:
        x = self.body(x)
        return self.heads[0](x) + torch.sigmoid(self.heads[1](x))


class Attending(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)

    def forward(self, x: Any) -> Any:
        return self.norm(x + self.attn(x, x, x, need_weights=False)[0])


class Tagger(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, kind: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.emb, self.rnn = nn.Embedding(11, 6), kind(6, 4, batch_first=True, **options)
        self.head = nn.Linear(8 if options.get("bidirectional") else 4, 3)

    def forward(self, ids: Any) -> Any:
        return self.head(self.rnn(self.emb(ids))[0])


class Tied(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.emb, self.mid, self.head = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, ids: Any) -> Any:
        return self.head(torch.relu(self.mid(self.emb(ids))))


def weight_normed(parametrised: bool) -> Any:
    wrap = nn.utils.parametrizations.weight_norm if parametrised else nn.utils.weight_norm
    return nn.Sequential(wrap(nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, 3))


FLAT, SEQUENCE, IDS = torch.randn(4, 6), torch.randn(2, 5, 6), torch.randint(0, 11, (2, 5))
MODELS: dict[str, tuple[Callable[[], Any], Any]] = {
    "containers on rows": (Branches, FLAT),
    "containers on sequences": (Branches, SEQUENCE),
    "attention": (Attending, torch.randn(2, 5, 8)),
    "LSTM, two layers": (partial(Tagger, nn.LSTM, num_layers=2), IDS),
    "LSTM, both directions": (partial(Tagger, nn.LSTM, num_layers=2, bidirectional=True), IDS),
    "GRU, both directions": (partial(Tagger, nn.GRU, bidirectional=True), IDS),
}


@cache
def load(name: str, exporter: Any, honest: bool) -> tuple[set[str], Opened]:
    build, inputs = MODELS[name]
    module = build().eval()
    export = honest_export(module, inputs, exporter) if honest else default_export(module, inputs, exporter)
    return {parameter for parameter, _ in module.named_parameters()}, open_onnx(export.SerializeToString())


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize("honest", [True, False], ids=["honest", "default"])
@pytest.mark.parametrize("name", MODELS)
def test_addresses_are_the_names_of_the_parameters(name: str, exporter: str, honest: bool) -> None:
    if name == "attention" and not honest:
        pytest.skip("a default export replaces the module by its fused inference kernel")
    expected, model = load(name, exporter, honest)
    found = {tensor.address for tensor in model.model.tensors if tensor.trainable}
    assert found == expected
    modules = {parameter.rpartition(".")[0] for parameter in expected}
    assert {layer.name for layer in model.model.layers if layer.segment in ("", "forward")} >= modules - {"attn"}
    assert model.model.not_checked == ()


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize("parametrised", [True, False])
def test_weight_norm_shows_the_effective_weight(exporter: Any, parametrised: bool) -> None:
    module = weight_normed(parametrised)
    for export in (default_export, honest_export):
        model = open_onnx(export(module, FLAT, exporter).SerializeToString()).model
        assert [layer.weight.address for layer in model.layers] == ["0.weight", "2.weight"]


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
def test_a_tied_head_shares_the_tensor_of_its_embedding(exporter: Any) -> None:
    model = open_onnx(honest_export(Tied(), IDS, exporter).SerializeToString()).model
    assert [layer.name for layer in model.layers] == ["emb", "mid", "head"]
    assert model.layers[0].weight.address == model.layers[2].weight.address
    assert {name for name, _ in model.tied} == {"emb", "head"}
    assert model.parameters == 66 + 42
