"""Rows outside of layers that start equal: what it costs to ask, and what tells them apart."""

from __future__ import annotations

from functools import partial
from typing import Any

import models
import pytest
import torch
from judging import probe
from models import tokens
from models.altered import altered
from torch import nn

from initlint.probe.batches import varied
from initlint.probe.signals import Alike


@pytest.mark.parametrize("build", [models.vit, models.gpt, models.lora, tokens.tables, tokens.roles])
def test_rows_that_the_first_gradient_tells_apart_cost_no_step(build: Any) -> None:
    signals = probe(build)
    assert signals.alike == ()
    assert signals.steps == 0 or build is models.lora  # which starts with a factor of zeros


def test_rows_are_counted_along_the_axis_that_holds_them() -> None:
    assert probe(tokens.registers).alike == (Alike("registers", 1, 4, 3, False),)
    assert probe(tokens.prefix).alike == (Alike("prefix", 3, 5, 4, False),)


def test_the_noise_of_training_is_asked() -> None:
    (found,) = probe(partial(tokens.registers, dropout=0.1)).alike
    assert found.by_noise


def test_a_forward_that_fails_in_training_leaves_the_noise_unknown() -> None:
    class Strict(tokens.Registers):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                raise ValueError("targets are missing")
            return super().forward(x)

    def build(seed: int = 0) -> models.Built:
        return Strict(4, 0.0), (torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed)),)

    (found,) = probe(build).alike
    assert found.by_noise


def test_a_loss_that_adds_up_all_outputs_parts_no_queries_and_others_would() -> None:
    build = partial(tokens.latents, pooled=False)
    assert probe(build, loss=lambda output: output.sum()).alike == ()


def test_given_data_of_one_value_part_no_positions_and_others_would() -> None:
    module, _ = tokens.registers(count=1)
    assert probe(lambda seed: (module, (torch.ones(4, 3, 16, 16),))).alike == ()


def test_tokens_that_one_head_reads_into_outputs_of_their_own_are_parted_by_targets() -> None:
    assert probe(altered(tokens.roles, lambda module: setattr(module, "second", module.first))).alike == ()


def test_copied_layers_do_not_make_queries_equal_that_are_asked_one_by_one() -> None:
    def copied(module: tokens.Latents) -> None:
        module.block = nn.Sequential(module.block, models.attention.Block(tokens.WIDTH, 4))
        module.block[1].load_state_dict(module.block[0].state_dict())

    signals = probe(altered(partial(tokens.latents, pooled=False), copied))
    assert signals.twins
    assert signals.alike == ()


def test_only_data_that_hold_one_value_in_each_sample_are_varied() -> None:
    drawn, masks = torch.randn(2, 3), {"attention_mask": torch.ones(2, 3)}
    assert varied(drawn, 0) is drawn
    assert varied(masks, 0)["attention_mask"] is masks["attention_mask"]
    assert varied(torch.ones(2, 3, dtype=torch.long), 0).unique().tolist() == [0, 1]
    assert len(varied((torch.ones(2, 3),), 0)[0].unique()) == 6
