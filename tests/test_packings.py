"""Queries, keys and values in one tensor are told apart by what the network does with them, in both front ends."""

from __future__ import annotations

import random
from math import prod

import numpy as np
import pytest
import torch
from probing import graph
from torch import Tensor, nn
from torch.nn import functional

from initlint.load.cuts import Cut
from initlint.load.from_onnx import open_onnx
from initlint.load.sizes import SizeReader
from initlint.model import Model
from initlint.probe.on_torch import TorchSession
from initlint.testing import EXPORTERS, Exporter, honest_export

HEADS, WIDTH = 4, 24


class Attention(nn.Module):
    """One packed projection, cut in the way of ``idiom``."""

    def __init__(self, idiom: str) -> None:
        super().__init__()
        self.packed, self.out, self.idiom = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), idiom

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (each.transpose(1, 2) for each in self._cut(self.packed(x), *x.shape[:2]))
        weights = (query @ key.transpose(-1, -2) / 6**0.5).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).reshape(x.shape))

    def _cut(self, packed: Tensor, batch: int, places: int) -> list[Tensor]:
        heads = (batch, places, HEADS, -1)
        match self.idiom:
            case "permute":
                moved = packed.reshape(batch, places, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
                return [each.transpose(1, 2) for each in moved.unbind(0)]
            case "windows":
                moved = packed.reshape(batch, places, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
                cut = moved.reshape(3, batch * HEADS, places, -1).unbind(0)
                return [each.view(batch, HEADS, places, -1).transpose(1, 2) for each in cut]
            case "twice":
                both, value = packed.split([2 * WIDTH, WIDTH], 2)
                return [each.reshape(heads) for each in (*both.chunk(2, -1), value)]
            case "slices":
                return [packed[..., i : i + WIDTH].reshape(heads) for i in range(0, 3 * WIDTH, WIDTH)]
            case "keys first":
                key, query, value = packed.chunk(3, -1)
                return [each.reshape(heads) for each in (query, key, value)]
            case "head by head":
                return list(packed.view(batch, places, HEADS, -1).chunk(3, -1))
            case "within heads":
                return list(packed.view(batch, places, HEADS, 3, -1).unbind(3))
        query, key, value = packed.split([2 * WIDTH, WIDTH // 2, WIDTH // 2], -1)  # grouped queries
        shared = [each.reshape(batch, places, 2, -1).repeat_interleave(2, 2) for each in (key, value)]
        return [query.reshape(batch, places, HEADS, -1)[..., : WIDTH // HEADS], *shared]


class Logits(nn.Module):
    """Queries, keys and values in this order, whose product is written in the way of ``idiom``."""

    def __init__(self, idiom: str) -> None:
        super().__init__()
        self.packed, self.out, self.idiom = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), idiom

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.packed(x).chunk(3, -1)
        result: Tensor = self.out(self._attended(query, key, value))
        return result

    def _attended(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        match self.idiom:
            case "turned before":
                return (key @ query.transpose(-2, -1) / 5).transpose(-2, -1).softmax(-1) @ value
            case "turned behind":
                return (key @ query.transpose(-2, -1) / 5).softmax(-2).transpose(-2, -1) @ value
            case "from the right":
                return (value.transpose(-2, -1) @ (key @ query.transpose(-2, -1) / 5).softmax(1)).transpose(-2, -1)
            case "turned twice":
                return (query @ key.transpose(-2, -1) / 5).transpose(-2, -1).transpose(-2, -1).softmax(2) @ value
            case "einsum":
                weights = torch.einsum("bqd,bkd->bqk", query, key).softmax(-1)
                return torch.einsum("bqk,bkd->bqd", weights, value)
            case "einsum, keys first":
                weights = torch.einsum("bkd,bqd->bkq", key, query).softmax(1)
                return torch.einsum("bkq,bkd->bqd", weights, value)
            case "one head":
                weights = (query[:, None] @ key[:, None].transpose(-2, -1)).softmax(-1).squeeze(1)
                return weights @ value
            case "over queries":
                return (query @ key.transpose(-2, -1) / 5).softmax(-2) @ value
            case "over both":
                return (query @ key.transpose(-2, -1) / 5).flatten(1).softmax(-1).unflatten(1, (5, 5)) @ value
        weights = (query @ key.transpose(-2, -1) / 5).softmax(-1)
        return weights.transpose(-2, -1) @ value


class MultiHead(nn.Module):
    def __init__(self, batch_first: bool, need_weights: bool) -> None:
        super().__init__()
        self.attn, self.need_weights = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first), need_weights

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.attn(x, x, x, need_weights=self.need_weights)[0]
        return output


def parts(model: Model) -> dict[str, str]:
    return {tensor.address: "".join(tensor.parts) for tensor in model.tensors if tensor.parts}


def of_both(module: nn.Module, exporter: Exporter) -> list[dict[str, str]]:
    x = torch.randn(2, 5, WIDTH)
    exported = honest_export(module, x, exporter)
    return [parts(TorchSession(module, (x,), {}).model), parts(open_onnx(exported.SerializeToString()).model)]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(
    ("idiom", "order"),
    [("permute", "qkv"), ("windows", "qkv"), ("twice", "qkv"), ("slices", "qkv"), ("keys first", "kqv")],
)
def test_blocks_of_rows_are_parts_in_their_order(idiom: str, order: str, exporter: Exporter) -> None:
    assert of_both(Attention(idiom), exporter) == [{"packed.weight": order, "packed.bias": order}] * 2


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("idiom", ["head by head", "within heads", "grouped"])
def test_what_is_no_block_of_rows_stays_whole(idiom: str, exporter: Exporter) -> None:
    assert of_both(Attention(idiom), exporter) == [{}, {}]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(
    "idiom",
    [
        "turned before",
        "turned behind",
        "from the right",
        "turned twice",
        "einsum",
        "einsum, keys first",
        "one head",
    ],
)
def test_keys_are_what_values_are_summed_along(idiom: str, exporter: Exporter) -> None:
    assert of_both(Logits(idiom), exporter) == [{"packed.weight": "qkv", "packed.bias": "qkv"}] * 2


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("idiom", ["over queries", "over both", "summed along queries"])
def test_what_is_no_attention_stays_whole(idiom: str, exporter: Exporter) -> None:
    assert of_both(Logits(idiom), exporter) == [{}, {}]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_packed_projection_of_an_attention_has_parts(
    batch_first: bool, need_weights: bool, exporter: Exporter
) -> None:
    expected = {"attn.in_proj_weight": "qkv", "attn.in_proj_bias": "qkv"}
    assert of_both(MultiHead(batch_first, need_weights), exporter) == [expected, expected]


class Turned(nn.Module):
    """Stored as (in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, 3 * WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(*(x @ self.weight).chunk(3, -1))


def test_parts_of_a_transposed_weight_are_its_columns() -> None:
    module = Turned()
    module.weight.data[:, WIDTH : 2 * WIDTH] = 0.5
    session = TorchSession(module, (torch.randn(2, 5, WIDTH),), {})
    stats = session.stats()
    assert [stats[f"weight[{part}]"].constant for part in "qkv"] == [False, True, False]


COMPUTED = {
    "last place": "i = Sub(n, one)  r = Gather<axis = 1>(h, i)",
    "last places": "i = Sub(n, one)  l = Unsqueeze(i, zeros)  r = Gather<axis = 1>(h, l)",
    "up to a place": "i = Sub(n, one)  e = Unsqueeze(i, zeros)  r = Slice(h, zeros, e, ones)",
    "along an axis": "a = Unsqueeze(n, zeros)  r = Slice(h, zeros, ones, a)",
    "no starts": "e = Slice(s, none, none)  r = Reshape(h, e)",
    "several starts": "e = Slice(s, pair, pair)  r = Reshape(h, e)",
    "backwards": "e = Slice(s, ones, ends, zeros, minus)  r = Reshape(h, e)",
    "over zero": "f = Gather(s, two)  q = Div(f, zero)  e = Unsqueeze(q, zeros)  r = Reshape(h, e)",
    "no broadcasting": "e = Add(s, pair)  r = Reshape(h, e)",
    "pieces": "i = Sub(n, one)  p = Concat<axis = 0>(i, i)  r, other = Split<axis = 1>(h, p)",
}

NUMBERS = {
    "zero": np.array(0),
    "one": np.array(1),
    "two": np.array(2),
    "none": np.zeros(0, np.int64),
    "zeros": np.array([0]),
    "ones": np.array([1]),
    "ends": np.array([3]),
    "pair": np.array([1, 2]),
    "minus": np.array([-1]),
}


def opened(steps: str, signature: str = "float[b, n, 16] x") -> Model:
    """A packed projection h of x, ``steps`` that make r of h, a product of two live operands and its softmax."""
    text = f"""packed ({signature}) => (float[] y) {{
        h = MatMul(x, w)  s = Shape(x)  n = Gather(s, one)  {steps}
        t = Mul(x, x)  u = Transpose<perm = [0, 2, 1]>(x)  m = MatMul(t, u)
        z = Softmax<axis = -1>(m)  o = ReduceSum<keepdims = 0>(r)  y = Add(z, o) }}"""
    weight = np.random.default_rng(0).standard_normal((16, 48)).astype(np.float32)
    return open_onnx(graph(text, w=weight, **NUMBERS).SerializeToString()).model


@pytest.mark.parametrize("steps", COMPUTED.values(), ids=COMPUTED)
def test_places_that_are_computed_from_an_open_size_are_unknown(steps: str) -> None:
    assert [layer.weight.address for layer in opened(steps).layers] == ["w"]


def test_a_long_chain_of_sizes_is_read_once() -> None:
    doubled = "  ".join(f"s{i + 1} = Add(s{i}, s{i})" for i in range(60))
    assert opened(f"s0 = Identity(s)  {doubled}  r = Reshape(h, s60)").layers  # each of 2**60 paths takes forever
    repeated = "  ".join(f"s{i + 1} = Concat<axis = 0>(s{i}, s{i})" for i in range(60))
    assert opened(f"s0 = Identity(s)  {repeated}  r = Reshape(h, s60)").layers


def followed(rng: random.Random) -> tuple[Cut | None, np.ndarray, int]:
    """The outputs of a packed projection by number, moved and sliced at random until at most a third of them is left,
    and what is known of them where the sizes of samples and places are hidden in half of the cases."""
    samples, places = rng.choice([2, 3, 4, 5]), rng.choice([2, 3, 4, 6, 7])
    heads, depth = rng.choice([1, 2, 4]), rng.choice([2, 4])
    units, hides = 3 * heads * depth, rng.random() < 0.5
    shapes = [
        (3, heads, depth),
        (heads, 3, depth),
        (heads, 3 * depth),
        (3, heads * depth),
        (units,),
        (3 * heads, depth),
    ]
    array = np.broadcast_to(np.arange(units), (samples, places, units))
    cut: Cut | None = Cut.whole(0, units, (0, 0, units) if hides else array.shape, 2)
    for _ in range(6):
        if cut is None or cut.left * 3 <= units:
            break
        match rng.choice(["transpose", "slice", "reshape", "anything"]):
            case "transpose":
                order = rng.sample(range(array.ndim), array.ndim)
                array, cut = array.transpose(order), cut.transposed(order)
            case "slice":
                axis = rng.randrange(array.ndim)
                size = array.shape[axis] // rng.choice([1, 2, 3]) or 1
                start = rng.randrange(array.shape[axis] - size + 1)
                array, cut = np.take(array, range(start, start + size), axis), cut.sliced(axis, start, size)
            case "reshape":
                lead = rng.choice([(samples, places), (samples * places,)])
                shape = (*lead, *rng.choice(shapes))
                if prod(shape) == array.size:
                    array = array.reshape(shape)
                    cut = cut.reshaped((*(0 for _ in lead), *shape[len(lead) :]) if hides else shape)
            case _:
                first = rng.choice([n for n in range(1, array.size + 1) if array.size % n == 0])
                array = array.reshape(first, -1)
                cut = cut.reshaped(array.shape)
    return cut, array, units


def test_what_is_followed_is_what_numpy_gives() -> None:
    rng = random.Random(0)
    judged = 0
    for _ in range(6000):
        cut, array, units = followed(rng)
        number = cut.block(3) if cut is not None and cut.left * 3 <= units else None
        if number is not None:
            judged += 1
            assert np.unique(array).tolist() == list(range(number * units // 3, (number + 1) * units // 3)), cut
    assert judged > 100


def test_nothing_is_followed_where_nothing_can_attend(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    see = SizeReader.see
    monkeypatch.setattr(SizeReader, "see", lambda self, node: (seen.append(node.op), see(self, node)))
    TorchSession(nn.Sequential(nn.Linear(WIDTH, 9), nn.Softmax(-1)), (torch.randn(2, WIDTH),), {})
    assert not seen
    TorchSession(Attention("slices"), (torch.randn(2, 5, WIDTH),), {})
    assert "Slice" in seen
