"""What a fix prints is what was tried, whatever the layout of the tensor."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from initlint.fixes import Edit, Fill, Reinit
from initlint.holding import placed
from initlint.probe.on_torch import TorchSession


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
