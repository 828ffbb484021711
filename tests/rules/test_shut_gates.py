"""Gates that hold back all of the signal; a way around them, a norm behind them or a learned factor is fine."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from models import highway, lstm, squeeze_excite
from models.altered import altered
from models.gated import detector, factored, gated_cell, gated_values, glu, packed_glu, state_space

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check, honest_export

ERROR, WARNING = Severity.ERROR, Severity.WARNING
LEGACY = ("legacy",)


def chrono(module: Any) -> None:
    """Tallec & Ollivier 2018, for up to 10^4 steps: as little is forgotten as is taken in."""
    times = torch.rand(24).mul(9998).add(1).log()
    module.cell.bias_ih_l0[:48] = torch.cat([-times, times])


@cases(
    Good("gated linear units", glu, notes_ok=False),
    Good("gated linear units, packed", packed_glu, notes_ok=False),
    Good("lstm", lstm, notes_ok=False, exporters=LEGACY),
    Good("squeeze and excite", squeeze_excite, notes_ok=False, exporters=LEGACY),
    Good("near miss: gates at -4", partial(glu, bias=-4.0, depth=1), notes_ok=False, exporters=LEGACY),
    Good("near miss: a skip connection", partial(glu, bias=-10.0, residual=True), notes_ok=False, exporters=LEGACY),
    Good("near miss: a layer norm behind", partial(glu, bias=-6.0, norm=True), notes_ok=False, exporters=LEGACY),
    Good(
        "near miss: carry gates that are open",
        altered(highway, lambda m: m[1].gate.bias.fill_(-20.0)),
        notes_ok=False,
        exporters=LEGACY,
    ),
    Good("near miss: a learned factor of 1e-12", partial(factored, value=1e-12), notes_ok=False, exporters=LEGACY),
    Good("near miss: a forget gate that is shut", partial(gated_cell, gate=1, bias=-20.0), False, False, LEGACY),
    Good("near miss: a way around the state", partial(state_space, bias=-20.0, skip=True), False, False, LEGACY),
    Good("near miss: chrono initialisation", altered(gated_cell, chrono), notes_ok=False, exporters=LEGACY),
    Good("near miss: a prior on a product of probabilities", partial(detector, bias=-6.0), False, False, LEGACY),
    Bad("outputs behind a gate at -10", partial(detector, bias=-10.0, probabilities=False), ["second.bias"], WARNING),
    Bad("two gates at -10", partial(glu, bias=-10.0), ["0.gate.bias"], ERROR),
    Bad("one gate at -10, which Adam opens", partial(glu, bias=-10.0, depth=1), ["0.gate.bias"], WARNING, LEGACY),
    Bad("packed gates at -10", partial(packed_glu, bias=-10.0), ["0.bias"], ERROR),
    Bad("a norm that has nothing left", partial(glu, bias=-20.0, norm=True), ["0.gate.bias"], ERROR, LEGACY),
    Bad("an input gate at -20", partial(gated_cell, gate=0, bias=-20.0), ["cell.bias_ih_l0[i]"], ERROR, LEGACY),
    Bad("an output gate at -10", partial(gated_cell, gate=3, bias=-10.0), ["cell.bias_ih_l0[o]"], WARNING, LEGACY),
    Bad(
        "an update gate at 20",
        partial(gated_cell, cell="GRU", gate=1, bias=20.0),
        ["cell.bias_ih_l0[z]"],
        ERROR,
        LEGACY,
    ),
    Bad("steps of e^-40", partial(state_space, bias=-40.0), ["dt.bias"], ERROR, LEGACY),
    Bad("values behind a gate at -30", partial(gated_values, bias=-30.0), ["gate.bias"], ERROR, LEGACY),
    Bad("the sigmoid of -20", partial(factored, value=-20.0, squashed=True), ["factor"], ERROR, LEGACY),
    Bad(
        "a gate that never opens, behind a carry gate",
        altered(highway, lambda m: m[1].gate.bias.fill_(-30.0)),
        ["1.gate.bias"],
        ERROR,
        LEGACY,
    ),
)
def test_shut_gates(case: Case) -> None:
    check("shut-gates", case, seeds=(0,))


def test_it_is_the_only_headline() -> None:
    for build in (partial(glu, bias=-10.0), partial(packed_glu, bias=-20.0), partial(gated_values, bias=-20.0)):
        module, inputs = build(0)
        for target in ((module, inputs), (honest_export(module, inputs),)):
            loud = [f for f in initlint.check(*target).headlines if f.severity > Severity.NOTE]
            assert [(finding.rule, finding.verified) for finding in loud] == [("shut-gates", True)]


def test_the_seed_of_the_probe_changes_nothing() -> None:
    module = glu(0, bias=-10.0)[0]
    found = {
        tuple(
            (f.rule, f.address, f.severity) for f in initlint.check(module, seed=seed, select=["shut-gates"]).findings
        )
        for seed in range(5)
    }
    assert found == {(("shut-gates", "0.gate.bias", ERROR),)}


def test_weights_are_to_blame_where_there_is_no_bias() -> None:
    def negative(module: object) -> None:
        gate = module[1].gate  # type: ignore[index]
        gate.weight.abs_().neg_().mul_(20.0)
        gate.bias.zero_()
        module[0].value.bias.fill_(3.0)  # type: ignore[index]

    module, inputs = altered(glu, negative)(0)
    (finding,) = initlint.check(module, inputs, select=["shut-gates"]).findings
    assert finding.tensor == "1.gate.weight"


def test_the_fix_opens_the_cell_behind_the_gates_too() -> None:
    def shut(module: object) -> None:
        module.cell.bias_ih_l0.fill_(-20.0)  # type: ignore[attr-defined]

    module, inputs = altered(partial(gated_cell, gate=0, bias=-20.0), shut)(0)
    (finding,) = [each for each in initlint.check(module, inputs).headlines if each.severity is ERROR]
    assert (finding.rule, finding.verified) == ("shut-gates", True)
    assert finding.after["findings with all fixes"] == 0
