"""Models under test: the fixture ``initlint`` comes with the package.

pytest examples/test_with_pytest.py
pytest examples/test_with_pytest.py --initlint-report json=report.json    all reports in one file
"""

from __future__ import annotations

import pytest
import torch
from torch import nn


def build(zero_head: bool = False) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    nn.init.kaiming_normal_(model[0].weight, nonlinearity="relu")
    if zero_head:
        nn.init.zeros_(model[2].weight)
    return model


def test_the_classifier_starts_well(initlint):
    initlint.check(build(), torch.randn(32, 16)).raise_for_findings()


@pytest.mark.initlint_allow("zero-weights", at="2.weight", reason="the head starts at zero on purpose")
def test_a_zero_head_is_meant(initlint):
    initlint.check(build(zero_head=True), torch.randn(32, 16), fail_on="note").raise_for_findings()
