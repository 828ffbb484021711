"""Layers in a plain list learn nothing; neither does what is read past autograd."""

from __future__ import annotations

from functools import partial

from models import gpt, relu_mlp, weight_norm_mlp
from models.altered import altered
from models.deadlocks import code_book, detached, listed
from models.influence import codec
from models.strays import built_in_forward, force, learnt_input, scaled

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

IN_A_LIST = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]


@cases(
    Good("he-initialised mlp", relu_mlp, notes_ok=False),
    Good("effective weights", weight_norm_mlp, notes_ok=False),
    Good("positions made on the fly", gpt, notes_ok=False),
    Good("near miss: a module list", partial(listed, registered=True), notes_ok=False),
    Good(
        "near miss: a frozen teacher in a list",
        altered(listed, lambda m: [layer.requires_grad_(False) for layer in m.layers]),
        notes_ok=False,
    ),
    Good("near miss: a backbone under no_grad", partial(detached, way="no_grad"), notes_ok=False),
    Good("near miss: a code book behind a stop-gradient", code_book),
    Good("near miss: arithmetic inside of the parameter", partial(scaled, registered=True), notes_ok=False),
    Good("near miss: a leaf made of the inputs, for a force", force),
    Good("near miss: a parameter given as the input", learnt_input, exporters=()),
    Bad("an encoder in front of codes is told once", codec, ["encode.0.weight"], Severity.NOTE),
    Bad("arithmetic on a parameter", scaled, ["weight"], Severity.ERROR),
    Bad("a layer built in the forward", built_in_forward, ["unregistered (4, 16)"], Severity.ERROR),
    Bad("layers in a list", listed, IN_A_LIST, Severity.ERROR),
    Bad("read through .data", detached, ["outer.weight"], Severity.ERROR),
)
def test_unregistered_weights(case: Case) -> None:
    check("unregistered-weights", case)
