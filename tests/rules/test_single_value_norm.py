"""A norm over one value gives its shift for all of them."""

from __future__ import annotations

from functools import partial

import torch
from models import Built, gelu_mlp, gpt, normed_cnn
from models.initialised import seeded
from models.published import class_attention
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING = Severity.ERROR, Severity.WARNING
LEGACY = ("legacy",)


@seeded
def critic(width: int = 1, std: float = 0.0, constant: bool = False) -> Built:
    """A layer norm behind a layer of ``width`` units, beside a path of its own."""

    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(16, 32), nn.Linear(32, width)
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(32 + width, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(x))
            out: Tensor = self.head(torch.cat([x, self.norm(self.second(x))], -1))
            return out

    module = Critic()
    if std:
        nn.init.normal_(module.second.weight, std=std)
        nn.init.zeros_(module.second.bias)
    if constant:
        nn.init.constant_(module.second.weight, 0.2)
    return module, (torch.randn(32, 16),)


@seeded
def pooled(groups: int = 32, side: int = 1) -> Built:
    """A group norm behind pooling to ``side`` places."""
    module = nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(side),
        nn.GroupNorm(groups, 32),
        nn.Flatten(),
        nn.Linear(32 * side * side, 4),
    )
    return module, (torch.randn(16, 3, 12, 12),)


@cases(
    Good("layer norms of a transformer", gpt, notes_ok=False, exporters=LEGACY),
    Good("near miss: class tokens behind a layer scale", class_attention, exporters=LEGACY),
    Good("group norms over places", normed_cnn, notes_ok=False, exporters=LEGACY),
    Good("no norm at all", gelu_mlp, notes_ok=False, exporters=LEGACY),
    Good("near miss: two features", partial(critic, width=2), notes_ok=False, exporters=LEGACY),
    Good(
        "near miss: many features of next to nothing",
        partial(critic, width=8, std=1e-7),
        notes_ok=False,
        exporters=LEGACY,
    ),
    Good("near miss: equal units", partial(critic, width=8, constant=True), notes_ok=False, exporters=LEGACY),
    Good(
        "near miss: groups of two channels on one place", partial(pooled, groups=16), notes_ok=False, exporters=LEGACY
    ),
    Good("near miss: one channel on four places", partial(pooled, side=2), notes_ok=False, exporters=LEGACY),
    Bad("a layer norm of one feature", critic, ["norm"], ERROR, exporters=LEGACY),
    Bad("one channel on one place", pooled, ["3"], WARNING, exporters=LEGACY),
)
def test_single_value_norm(case: Case) -> None:
    check("single-value-norm", case, seeds=(0,))


def test_what_gets_no_gradient_is_folded_under_it() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1), nn.LayerNorm(1), nn.Linear(1, 4))
    report = initlint.check(module, torch.randn(32, 16))
    heads = [each for each in report.findings if each.caused_by is None and each.severity is not Severity.NOTE]
    assert [(each.rule, each.address) for each in heads] == [("single-value-norm", "3")]
    assert not report.ok
