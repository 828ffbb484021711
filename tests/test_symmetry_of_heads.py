"""Units are equal for good only if no head tells them apart, be it one that the probe's loss leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity

FLAT = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))


class Detector(nn.Module):
    """Scores are read of its equal units by equal weights each; boxes, if there are any, by weights that are drawn."""

    def __init__(self, boxes: bool, states: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shared, self.score, self.box = nn.Linear(8, 16), nn.Linear(16, 3), nn.Linear(16, 4)
        self.boxes, self.states = boxes, states
        with torch.no_grad():
            self.shared.weight[:] = self.shared.weight[0]
            self.shared.bias[:] = 0
            self.score.weight[:] = self.score.weight[:, :1]

    def forward(self, x: Tensor) -> dict[str, object]:
        hidden = torch.tanh(self.shared(x))
        found: dict[str, object] = {
            "logits": self.score(hidden),
            "boxes": self.box(hidden if self.boxes else x[:, :1].expand(-1, 16)),
        }
        return {**found, "hidden_states": (hidden,)} if self.states else found


def severities(report: initlint.Report) -> dict[str, Severity]:
    return {each.address: each.severity for each in report.findings if each.address == "shared.weight"}


@pytest.mark.parametrize("file", [False, True], ids=["module", "file"])
@pytest.mark.parametrize(("boxes", "severity"), [(True, Severity.WARNING), (False, Severity.ERROR)])
def test_a_head_that_the_loss_leaves_out_parts_them(
    boxes: bool, severity: Severity, file: bool, tmp_path: Path
) -> None:
    module = Detector(boxes)
    if not file:
        report = initlint.check(module, FLAT)
    else:
        program = torch.onnx.export(
            module.eval(), (FLAT,), dynamo=True, optimize=False, verbose=False, output_names=["logits", "boxes"]
        )
        assert program is not None
        program.save(tmp_path / "model.onnx")
        report = initlint.check(tmp_path / "model.onnx")
    assert severities(report) == {"shared.weight": severity}


def test_states_of_layers_are_no_heads() -> None:
    assert severities(initlint.check(Detector(False, states=True), FLAT)) == {"shared.weight": Severity.ERROR}
