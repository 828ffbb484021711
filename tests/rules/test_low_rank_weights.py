"""Products of thin matrices: harmless alone, a bottleneck in a row."""

from __future__ import annotations

from functools import partial

import numpy as np
from models.graphs import Array, mlp

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

WARNING, NOTE = Severity.WARNING, Severity.NOTE


def rank(inner: int) -> object:
    def change(weight: Array) -> Array:
        rng = np.random.default_rng(weight.size + inner)
        product = rng.standard_normal((weight.shape[0], inner)) @ rng.standard_normal((inner, weight.shape[1]))
        return (product * weight.std() / product.std()).astype(np.float32)

    return change


def orthogonal(weight: Array) -> Array:
    return np.linalg.qr(np.random.default_rng(0).standard_normal(weight.shape))[0].astype(np.float32)


@cases(
    Good("he-initialised mlp", mlp, notes_ok=False),
    Good("orthogonal", partial(mlp, changes={"2.weight": orthogonal}), notes_ok=False),
    Good("near miss: half of the rank", partial(mlp, changes={"2.weight": rank(32)}), notes_ok=False),
    Good("near miss: a head of few units", partial(mlp, outputs=3), notes_ok=False),
    Good("near miss: one layer of rank 1", partial(mlp, changes={"2.weight": rank(1)})),
    Bad("one layer of rank 1, noticed", partial(mlp, changes={"2.weight": rank(1)}), ["2.weight"], NOTE),
    Bad("a row", partial(mlp, changes={"2.weight": rank(1), "4.weight": rank(2)}), ["2.weight", "4.weight"], WARNING),
)
def test_low_rank_weights(case: Case) -> None:
    check("low-rank-weights", case, seeds=(0,))
