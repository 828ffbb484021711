"""The models that other tests stand on: seeded, silent about it, and broken only where a fault was planted."""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

import models
import pytest
import torch
from models import HEALTHY, Fault, plant

BUILDERS = [
    getattr(models, name)
    for name in models.__all__
    if name not in {"HEALTHY", "Built", "Fault", "Healthy", "gpt2", "he", "mlp", "plant", "seeded", "xavier"}
]


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.named_parameters()}


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_a_builder_is_decided_by_its_seed_alone(build: Any) -> None:
    before = torch.get_rng_state()
    (first, inputs), (again, _), (other, _) = build(seed=3), build(seed=3), build(seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, state(again)[name]) for name, tensor in state(first).items())
    assert any(not torch.equal(tensor, state(other)[name]) for name, tensor in state(first).items())
    with torch.no_grad():
        assert first(*inputs).isfinite().all()


@pytest.mark.parametrize("model", HEALTHY, ids=lambda model: model.name)
def test_a_fault_changes_its_tensor_and_no_other(model: Any) -> None:
    for address, fault in model.faults():
        module, _ = model.build(seed=0)
        before = state(module)
        plant(module, address, fault)
        changed = {name for name, tensor in state(module).items() if not torch.equal(tensor, before[name])}
        assert changed == {address}, fault


@pytest.mark.parametrize("model", HEALTHY, ids=lambda model: model.name)
def test_every_pattern_of_the_table_names_something(model: Any) -> None:
    names = [name for name, _ in model.build(seed=0)[0].named_parameters()]
    patterns = (model.unnormed, model.deep_plain, model.into_relu, model.into_sigmoid, model.zero_is_idiom)
    for pattern in chain.from_iterable(patterns):
        assert any(fnmatchcase(name, pattern) for name in names), pattern


def test_half_duplicated_makes_twins_within_each_gate() -> None:
    module, _ = models.lstm(0)
    plant(module, "cell.weight_ih_l0", Fault.HALF_DUPLICATED)
    for gate in module.cell.weight_ih_l0.chunk(4):
        assert torch.equal(gate[:16], gate[16:])
    assert not torch.equal(*module.cell.weight_ih_l0.chunk(2))


def test_duplicates_of_a_transposed_convolution_are_along_its_outputs() -> None:
    module, _ = models.autoencoder(0)
    plant(module, "4.weight", Fault.HALF_DUPLICATED)
    weight = module[4].weight
    assert torch.equal(weight[:, :8], weight[:, 8:])
