"""What a fix prints is what was tried, whatever the layout of the tensor."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from initlint.fixes import Edit, Fill, Held, Reinit
from initlint.holding import placed
from initlint.model import SCATTERED
from initlint.probe.on_torch import TorchSession
from initlint.probe.signals import Liveness
from initlint.settings import ProbeSettings


class Projection(nn.Module):
    """Queries, keys and values side by side, stored as (in, out)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(width, 3 * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


class Stacked(nn.Module):
    """Shapes from which PyTorch's functions would count other fans: experts, an (in, out) product, packed gates."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.randn(4, 96, 48))
        self.product = nn.Parameter(torch.randn(96, 32))
        self.cell = nn.LSTM(32, 64, batch_first=True)
        self.packed = nn.MultiheadAttention(64, 2, batch_first=True)
        self.attn = Projection(64)
        self.grouped = nn.Conv1d(64, 128, 3, groups=4)
        self.up = nn.ConvTranspose1d(128, 32, 4, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.einsum("bti,eoi->ebto", x, self.experts).relu().sum(0) @ self.product
        state = self.cell(hidden)[0]
        state = state + self.packed(state, state, state)[0]
        query, key, value = self.attn(state).split(64, dim=2)
        state = state + functional.scaled_dot_product_attention(query, key, value)
        return self.up(self.grouped(state.transpose(1, 2)).relu())


@pytest.mark.parametrize(
    "edit",
    [
        Reinit("experts", "he_normal"),
        Reinit("experts", "pytorch_default"),
        Reinit("product", "he_uniform"),
        Reinit("product", "xavier_normal", 0.5),
        Reinit("cell.weight_ih_l0", "xavier_normal"),
        Reinit("cell.weight_ih_l0[f]", "xavier_normal"),
        Reinit("cell.weight_hh_l0", "orthogonal"),
        Reinit("cell.weight_hh_l0[g]", "orthogonal"),
        Reinit("packed.in_proj_weight", "he_normal"),
        Reinit("packed.in_proj_weight[v]", "xavier_normal"),
        Reinit("attn.weight", "he_normal"),
        Reinit("attn.weight[k]", "pytorch_default"),
        Fill("attn.weight[q]", 0.5),
        Reinit("grouped.weight", "he_normal"),
        Reinit("up.weight", "he_normal"),
        Reinit("cell.weight_ih_l0[f]", "normal", 0.02),
        Fill("cell.weight_ih_l0[o]", 0.5),
        Fill("product", 0.25),
    ],
    ids=lambda edit: f"{edit.tensor} {getattr(edit, 'scheme', 'fill')}",
)
def test_the_code_draws_what_was_tried(edit: Edit) -> None:
    module, inputs = Stacked(), (torch.randn(2, 8, 48),)
    session = TorchSession(module, inputs, {})
    before, tried = session.stats(), session.edited_stats([edit], seed=0)
    fix = placed(session.model, edit)
    assert isinstance(fix, Reinit | Fill)
    torch.manual_seed(1)
    exec(fix.code, {"model": module, "nn": nn})  # noqa: S102 - made by initlint
    after = TorchSession(module, inputs, {}).stats()
    assert edit.tensor in tried
    for address, stats in tried.items():
        assert after[address].std == pytest.approx(stats.std, rel=0.08, abs=1e-6), (address, fix.code)
        assert after[address].mean == pytest.approx(stats.mean, abs=0.1 * stats.std + 1e-6), (address, fix.code)
    untouched = [address for address in before if address.partition("[")[0] != edit.tensor.partition("[")[0]]
    assert all(after[address] == before[address] for address in untouched)
    if edit.tensor.endswith("]"):
        parts = [address for address in tried if "[" in address and address != edit.tensor]
        assert parts and all(after[address] == before[address] for address in parts)


class Reshaped(nn.Module):
    """One parameter of an attention that becomes the weight of its packed projection in some way."""

    def __init__(self, shape: tuple[int, ...], how: str) -> None:
        super().__init__()
        self.weight, self.how = nn.Parameter(0.2 * torch.randn(shape)), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "rows":
            packed = functional.linear(x, self.weight.reshape(48, -1))
        elif self.how == "columns":
            packed = x @ self.weight.flatten(1)
        else:
            packed = x @ self.weight
        return functional.scaled_dot_product_attention(*packed.chunk(3, -1))


LAYOUTS = [
    ((3, 16, 16), "rows", 0),
    ((6, 8, 16), "rows", 0),
    ((16, 48), "rows", SCATTERED),
    ((24, 48), "rows", 0),
    ((16, 3, 16), "columns", SCATTERED),
    ((18, 3, 16), "columns", SCATTERED),
    ((18, 48), "product", 1),
]


@pytest.mark.parametrize(("shape", "how", "axis"), LAYOUTS)
def test_a_part_is_changed_where_it_lies_or_not_at_all(shape: tuple[int, ...], how: str, axis: int) -> None:
    module = Reshaped(shape, how)
    width = module.weight.numel() // 48
    session = TorchSession(module, (torch.randn(2, 8, width),), {})
    assert session.model.tensors[0].parts == ("q", "k", "v")
    assert session.model.packed_along == {"weight": axis}
    edit = Reinit("weight[v]", "he_normal")
    before, tried, fix = session.stats(), session.edited_stats([edit], seed=0), placed(session.model, edit)
    whole = placed(session.model, Reinit("weight", "he_normal"))
    assert (fix is None) == (axis == SCATTERED)
    for each in (fix, whole):
        if not isinstance(each, Reinit):
            continue
        exec(each.code, {"model": module, "nn": nn})  # noqa: S102 - made by initlint
        after = TorchSession(module, (torch.randn(2, 8, width),), {}).stats()
        assert after["weight[v]"].std == pytest.approx(tried["weight[v]"].std, rel=0.15)
        assert (after["weight[q]"] == before["weight[q]"]) == (each is fix)


@pytest.mark.parametrize(("shape", "how", "axis"), LAYOUTS)
def test_a_part_is_judged_by_its_own_gradient(shape: tuple[int, ...], how: str, axis: int) -> None:
    module = Reshaped(shape, how)
    x = torch.randn(4, 8, module.weight.numel() // 48)
    rows = module.weight.data.view(48, -1) if how == "rows" else module.weight.data.view(-1, 48).T
    rows[:32] = 0  # queries and keys: each has no gradient as long as the other is zero
    signals = TorchSession(module, (x,), {}).probe(ProbeSettings(backward=True, liveness=True))
    parts = {part: signals.liveness.get(f"weight[{part}]") for part in "qkv"}
    stuck, live = Liveness.STUCK, Liveness.LIVE
    assert parts == (dict.fromkeys("qkv") if axis == SCATTERED else {"q": stuck, "k": stuck, "v": live})
    assert [f"weight[{part}]" in signals.gradients for part in "qkv"] == [axis != SCATTERED] * 3


def test_a_name_that_ends_like_a_part_is_told_whole() -> None:
    class Indexed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_parameter("blocks[1]", nn.Parameter(torch.zeros(8, 8)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.get_parameter("blocks[1]")

    model = TorchSession(Indexed(), (torch.randn(4, 8),), {}).model
    fix = placed(model, Reinit("blocks[1]", "normal", 0.1))
    assert fix is not None
    assert fix.code == 'nn.init.normal_(model.get_parameter("blocks[1]"), std=0.1)'


def test_a_piece_of_a_tensor_is_drawn_alone() -> None:
    fix = Reinit("attn.in_proj_weight[32:96]", scheme="xavier_normal", held=Held(piece="[32:96]"))
    assert fix.code == 'nn.init.xavier_normal_(model.get_parameter("attn.in_proj_weight").data[32:96], gain=1)'


class Pieces(nn.Module):
    """Weights cut out of larger tensors along any axis, and vectors that are applied as maps of one unit."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.Parameter(0.2 * torch.randn(128))
        self.scores = nn.Parameter(0.2 * torch.randn(2, 128))
        self.columns = nn.Parameter(0.2 * torch.randn(128, 64))
        self.rows = nn.Parameter(0.2 * torch.randn(64, 128))
        self.stack = nn.Parameter(0.2 * torch.randn(3, 128, 48))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * torch.sigmoid(x @ self.vector)[:, None]
        gates = torch.tanh(x @ self.scores[0] + torch.relu(x @ self.scores[1]))[:, None]
        cut = torch.cat([functional.relu(x @ self.columns[:, :24]), functional.relu(x @ self.columns[:, 24:])], 1)
        cut = cut + torch.cat([functional.linear(x, self.rows[:24]).relu(), functional.linear(x, self.rows[24:])], 1)
        return torch.cat([gates * cut, *(functional.relu(x @ self.stack[i]) for i in range(3))], 1)


PIECES = ("vector", "scores[0]", "columns[:, 0:24]", "columns[:, 24:64]", "rows[0:24]", "rows[24:64]", "stack[2]")
SCHEMES = ("he_normal", "xavier_normal", "xavier_uniform", "orthogonal", "pytorch_default", "normal")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("address", PIECES)
def test_the_code_runs_and_draws_what_was_tried_of_pieces_and_vectors(address: str, scheme: str) -> None:
    torch.manual_seed(0)
    module, inputs = Pieces(), (torch.randn(8, 128),)
    session, edit = TorchSession(module, inputs, {}), Reinit(address, scheme)
    tried, fix = session.edited_stats([edit], seed=0), placed(session.model, edit)
    assert isinstance(fix, Reinit)
    exec(fix.code, {"model": module, "nn": nn})  # noqa: S102 - made by initlint
    after = TorchSession(module, inputs, {}).stats()
    few = 0.35 if after[address].count == 128 else 0.08
    assert after[address].mean_square == pytest.approx(tried[address].mean_square, rel=2 * few)
