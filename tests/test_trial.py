"""Fixes are tried: what they cure is confirmed, what nothing cures is a note, and one fault is one headline."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import initlint
from initlint.fixes import Several
from initlint.plugin import Finding, Severity
from initlint.probe.on_torch import TorchSession
from initlint.report import Report
from initlint.settings import ProbeSettings
from initlint.testing import honest_export
from initlint.trial import PROBES
from initlint.verdicts import OWN

WIDTH = 32
BATCH = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(0))

Headline = tuple[str, str, Severity]


def mlp(depth: int = 4, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """He in front of ReLU, and PyTorch's default in front of anything else."""
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (nn.Linear(WIDTH, WIDTH), activation())]
    module = nn.Sequential(*layers, nn.Linear(WIDTH, 10))
    for layer in module:
        if isinstance(layer, nn.Linear) and activation is nn.ReLU:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return module


def normed(depth: int) -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU()) for _ in range(depth)]
    return nn.Sequential(*blocks, nn.Linear(WIDTH, 10))


class LowRank(nn.Module):
    """A LoRA whose factors are both zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.base = nn.Linear(WIDTH, WIDTH)
        self.down, self.up = nn.Linear(WIDTH, 4, bias=False), nn.Linear(4, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, 10)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.base(x) + self.up(self.down(x))
        return self.head(torch.relu(hidden))  # type: ignore[no-any-return]


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many edits each probe of a module was given."""
    given: list[int] = []
    original = TorchSession.probe

    def probe(self: TorchSession, settings: ProbeSettings, edits: tuple[initlint.plugin.Fix, ...] = ()) -> object:
        given.append(len(edits))
        return original(self, settings, edits)

    monkeypatch.setattr(TorchSession, "probe", probe)
    yield given


def headlines(report: Report, least: Severity = Severity.WARNING) -> list[Headline]:
    return [(f.rule, f.address, f.severity) for f in report.headlines if f.severity >= least]


def only(report: Report) -> Finding:
    [finding] = [each for each in report.headlines if each.severity >= Severity.WARNING]
    return finding


def test_a_healthy_model_is_probed_once(probes: list[int]) -> None:
    assert initlint.check(mlp(), BATCH).ok
    assert probes == [0]


def test_a_note_is_not_tried(probes: list[int]) -> None:
    module = mlp()
    nn.init.zeros_(module[-1].weight)
    report = initlint.check(module, BATCH)
    assert headlines(report, Severity.NOTE) == [("zero-weights", "8.weight", Severity.NOTE)]
    assert probes == [0]


def test_a_cured_suspicion_is_verified_with_the_numbers_before_and_after(probes: list[int]) -> None:
    module = mlp()
    module[2].weight.data *= 100
    finding = only(initlint.check(module, BATCH))
    assert (finding.rule, finding.address, finding.verified) == ("variance-mismatch", "2.weight", True)
    assert finding.before["output rms"] > 30 * finding.after["output rms"] > 0
    assert finding.before["errors and warnings"] > finding.after["errors and warnings"] == 0
    assert probes == [0, 1]


def test_fixes_that_were_tried_together_say_so() -> None:
    module = mlp()
    module[2].weight.data *= 100
    nn.init.zeros_(module[6].weight)
    for finding in initlint.check(module, BATCH).headlines:
        assert finding.verified
        assert finding.before["findings with all fixes"] > finding.after["findings with all fixes"] == 0
        assert "errors and warnings" not in finding.after


def test_what_nobody_wrote_has_a_fix_that_is_tried() -> None:
    def build() -> nn.Module:
        module = mlp()
        module[2].weight = nn.Parameter(torch.empty(WIDTH, WIDTH))
        return module

    finding = only(initlint.check(build, BATCH))
    assert (finding.rule, finding.address, finding.verified) == ("uninitialized-memory", "2.weight", True)
    assert finding.after["errors and warnings"] == 0


def test_what_the_forward_does_not_read_is_nobodys_consequence() -> None:
    class Unread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.spare, self.head = nn.Linear(WIDTH, 64), nn.Linear(64, 64), nn.Linear(64, 3)
            self.place = nn.Parameter(torch.full((1, 64), 1e6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(torch.relu(self.first(x)) + self.place)
            return out

    torch.manual_seed(0)
    assert headlines(initlint.check(Unread(), BATCH), Severity.NOTE) == [
        ("exploding-signal", "place", Severity.ERROR),
        ("unused-parameters", "spare.weight", Severity.NOTE),
    ]


def test_the_fix_that_was_verified_silences_the_finding() -> None:
    module = mlp(20, nn.ReLU)
    for layer in module:
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 0.4
    finding = only(initlint.check(module, BATCH))
    assert isinstance(finding.fix, Several)
    assert finding.verified
    exec(finding.fix.code, {"nn": nn, "model": module})  # noqa: S102 - what the user is told to run
    assert headlines(initlint.check(module, BATCH)) == []


def test_what_no_initialisation_cures_comes_with_the_architecture() -> None:
    report = initlint.check(normed(60), BATCH)
    assert headlines(report) == []
    own = [finding for finding in report.headlines if finding.message.endswith(OWN)]
    assert [(finding.rule, finding.severity, finding.verified) for finding in own] == [
        ("exploding-gradient", Severity.NOTE, False)
    ]


@pytest.mark.parametrize("as_file", [False, True], ids=["module", "onnx"])
def test_two_halves_of_one_deadlock_are_one_headline(as_file: bool) -> None:
    module = LowRank()
    target = honest_export(module, BATCH) if as_file else module
    report = initlint.check(target, None if as_file else BATCH)
    assert headlines(report) == [("zero-weights", "down.weight", Severity.ERROR)]
    [other] = [finding for finding in report.findings if finding.address == "up.weight"]
    assert other.caused_by is not None
    assert (other.caused_by.rule, other.caused_by.address) == ("zero-weights", "down.weight")


@pytest.mark.parametrize("as_file", [False, True], ids=["module", "onnx"])
def test_two_faults_are_two_headlines(as_file: bool) -> None:
    module = mlp(6)
    nn.init.zeros_(module[2].weight)
    nn.init.constant_(module[6].bias, -30.0)
    target = honest_export(module, BATCH) if as_file else module
    report = initlint.check(target, None if as_file else BATCH)
    assert [(rule, address) for rule, address, _ in headlines(report)] == [
        ("zero-weights", "2.weight"),
        ("dead-relu-bias", "6.bias"),
    ]
    assert all(finding.verified for finding in report.headlines if finding.severity >= Severity.WARNING)


def test_one_layer_of_many_that_only_together_do_harm_is_no_headline() -> None:
    module = mlp(6)
    for layer in module:
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 11
    finding = only(initlint.check(module, BATCH))
    assert finding.rule == "exploding-signal"
    assert isinstance(finding.fix, Several)
    assert len(finding.fix.fixes) == 7
    assert finding.verified


def test_trials_are_few_however_much_is_broken(probes: list[int]) -> None:
    module = normed(6)
    module[5][1].bias.data.fill_(-30)
    module[3][0].bias.data.fill_(float("nan"))
    module[6].weight.data *= 300
    for block in (0, 1, 2):
        nn.init.zeros_(module[block][0].weight)
    initlint.check(module, BATCH)
    assert 1 < len(probes) <= 1 + PROBES


def test_the_module_is_afterwards_what_it_was_bit_for_bit() -> None:
    module = normed(3).to(torch.bfloat16)
    module[1][0].weight.data *= 1e4
    nn.init.zeros_(module[0][1].weight)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    versions = [parameter._version for parameter in module.parameters()]
    report = initlint.check(module, BATCH.to(torch.bfloat16))
    assert any(finding.verified for finding in report.findings)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert [parameter._version for parameter in module.parameters()] == versions


class Picky(nn.Module):
    """Refuses to run once its second layer is not zero any more."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = mlp()
        nn.init.zeros_(self.body[2].weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.body[2].weight.any():
            raise RuntimeError("out of order")
        return self.body(x)  # type: ignore[no-any-return]


def test_findings_survive_a_trial_that_fails() -> None:
    module = Picky()
    report = initlint.check(module, BATCH)
    assert not only(report).verified
    assert only(report).address == "body.2.weight"
    assert any(entry.at == "the fixes" and "out of order" in entry.reason for entry in report.not_checked)
    assert not module.body[2].weight.any()


def test_weights_that_the_module_computes_are_not_edited() -> None:
    module = mlp()
    module[2] = nn.utils.parametrizations.weight_norm(module[2])
    module[2].parametrizations.weight.original0.data.mul_(100)
    before = module[2].weight.clone()
    report = initlint.check(module, BATCH)
    assert headlines(report)
    assert not any("2.weight" in str(finding.fix) for finding in report.findings if finding.verified)
    assert torch.equal(module[2].weight, before)


def test_a_fix_of_many_tensors_prints_one_loop_with_quoted_names() -> None:
    fixes = [initlint.plugin.Reinit('a"]);evil()#', "he_normal"), initlint.plugin.Reinit("b", "he_normal")]
    code = Several((*fixes, initlint.plugin.Fill("c", 0.0))).code
    assert code.splitlines() == [
        'for name in ["a\\"]);evil()#", "b"]:',
        "    nn.init.kaiming_normal_(model.get_parameter(name), nonlinearity='relu')",
        'nn.init.constant_(model.get_parameter("c"), 0)',
    ]


def test_suspicions_of_layers_nobody_asked_for_are_not_tried(probes: list[int]) -> None:
    module = mlp()
    nn.init.zeros_(module[2].weight)
    assert initlint.check(module, BATCH, layers=["8*"]).ok
    assert probes == [0]


def test_models_without_a_probe_keep_their_suggestions() -> None:
    module = mlp()
    module[2].weight.data[0, 0] = float("nan")
    finding = only(initlint.check(module, BATCH, no_probe=True))
    assert (finding.address, finding.verified) == ("2.weight", False)


def test_a_fault_that_another_one_hides_is_told_too() -> None:
    module = mlp(6)
    module[0].weight.data[0, 0] = float("nan")
    module[6].weight.data *= 300
    found = [(rule, address) for rule, address, _ in headlines(initlint.check(module, BATCH))]
    assert found == [("non-finite-weights", "0.weight"), ("variance-mismatch", "6.weight")]


def test_a_fix_is_not_blamed_for_what_the_repair_brings_to_light() -> None:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(12)]
    module = nn.Sequential(*blocks, nn.Linear(64, 10))  # PyTorch's default is too small for such a depth
    nn.init.zeros_(module[3][0].weight)
    module[8][0].weight.data *= 200
    report = initlint.check(module, torch.randn(16, 64))
    loud = [finding for finding in report.headlines if finding.severity >= Severity.WARNING]
    assert [(each.rule, each.address, each.verified) for each in loud] == [
        ("zero-weights", "3.0.weight", True),
        ("variance-mismatch", "8.0.weight", True),
    ]


class LoudTogether(nn.Module):
    """A table and learned positions, both a thousand times too large, in front of a residual branch and a norm."""

    def __init__(self, positions: float) -> None:
        super().__init__()
        self.table, self.norm, self.head = nn.Embedding(16, 32), nn.LayerNorm(32), nn.Linear(32, 10)
        self.branch = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.positions = nn.Parameter(torch.randn(8, 32) * positions)
        nn.init.normal_(self.table.weight, std=1000.0)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.table(tokens) + self.positions
        out: torch.Tensor = self.head(self.norm(x + self.branch(x)))
        return out


@pytest.mark.parametrize("positions", [500.0, 0.02])
def test_a_fix_that_would_drown_the_inputs_takes_along_what_drowns_them(positions: float) -> None:
    torch.manual_seed(0)
    report = initlint.check(LoudTogether(positions), torch.randint(0, 16, (32, 8)))
    (finding,) = report.headlines
    assert finding.verified and finding.address == "table.weight" and finding.fix is not None
    assert ("positions" in finding.fix.code) == (positions > 1.0)
