"""Which parameters can learn: every idiom is live, every deadlock is named, tensor by tensor."""

from __future__ import annotations

from functools import partial

import models
import pytest
import torch
from judging import BOTH, fingerprint, probe
from models import deadlocks, influence
from models.altered import altered
from torch import nn
from torch.nn import functional

import initlint
from initlint.plugin import Liveness
from initlint.probe.on_torch import TorchSession
from initlint.testing import Build

EXEMPT = (Liveness.LIVE, Liveness.FROZEN, Liveness.INVARIANT)


def verdicts(build: Build, kind: Liveness) -> list[str]:
    return sorted(address for address, verdict in probe(build).liveness.items() if verdict is kind)


@pytest.mark.parametrize(
    "build",
    [
        models.lora,
        models.adaln_zero,
        models.re_zero,
        models.fixup,
        models.zero_head,
        models.layer_scale,
        models.gpt,
        models.vit,
        models.torch_encoder,
        models.batchnorm_resnet,
        models.squeeze_excite,
        models.mixture_of_experts,
        models.lstm,
        models.weight_norm_mlp,
        deadlocks.control_net,
        partial(deadlocks.zero_gate, zeros=1),
        partial(deadlocks.coupling, factor=1.0),
        deadlocks.spatial_transformer,
        partial(deadlocks.packed_experts, empty=0),
        partial(deadlocks.packed_attention, zero=8),
        altered(models.batchnorm_resnet, lambda m: [b.bn2.weight.zero_() for b in m.blocks]),
    ],
    ids=lambda build: getattr(build, "__name__", "altered"),
)
@pytest.mark.parametrize("seed", range(3))
def test_idioms_are_live(build: Build, seed: int) -> None:
    found = probe(build, seed).liveness
    assert [address for address, verdict in found.items() if verdict not in EXEMPT] == []


def test_healthy_models_cost_one_backward_pass() -> None:
    assert probe(models.relu_mlp).steps == 0


def test_adaln_zero_takes_steps_on_two_batches_with_several_draws() -> None:
    signals = probe(models.adaln_zero)
    assert (signals.steps, signals.batches, signals.draws) == (3, 2, 4)


def test_steps_end_where_all_is_awake_and_apart() -> None:
    assert probe(models.zero_head).steps == 1


def test_what_is_stuck_or_alike_has_had_four_steps() -> None:
    assert probe(deadlocks.zero_gate).steps >= 4
    assert probe(altered(models.tanh_mlp, copied_in_and_out)).steps >= 4


def test_two_zero_factors_of_a_gate_are_stuck() -> None:
    assert verdicts(deadlocks.zero_gate, Liveness.STUCK) == ["1.inner.weight", "1.outer.weight"]


def test_a_zero_factor_of_rows_that_are_zero_is_stuck_though_other_rows_move() -> None:
    signals = probe(deadlocks.coupling)
    assert signals.liveness["factor"] is Liveness.STUCK
    assert signals.stuck_rows == {"net.2.weight": 4}


def test_what_waits_for_a_code_book_that_another_loss_moves_is_not_reached() -> None:
    build = altered(deadlocks.code_book, lambda m: m.codes.weight.zero_())
    assert verdicts(build, Liveness.STUCK) == []
    assert "decode.weight" in verdicts(build, Liveness.UNREACHED)


def test_a_low_rank_pair_of_zeros_is_stuck() -> None:
    build = altered(models.lora, lambda m: m[2].a.weight.zero_())
    assert verdicts(build, Liveness.STUCK) == ["2.a.weight", "2.b.weight"]


def test_a_zero_scale_on_a_zero_branch_is_stuck() -> None:
    found = verdicts(altered(models.re_zero, lambda m: m[1].project.weight.zero_()), Liveness.STUCK)
    assert {"1.scale", "1.project.weight", "1.expand.weight"} <= set(found)
    assert all(address.startswith("1.") for address in found)


def test_a_zero_layer_in_front_of_relu_is_stuck_and_in_front_of_tanh_is_not() -> None:
    relu = altered(models.relu_mlp, lambda m: m[2].weight.zero_())
    tanh = altered(models.tanh_mlp, lambda m: m[2].weight.zero_())
    assert "2.weight" in verdicts(relu, Liveness.STUCK)
    assert verdicts(tanh, Liveness.STUCK) == []


def test_units_that_the_batch_does_not_switch_on_are_not_reached() -> None:
    build = altered(models.relu_mlp, lambda m: m[2].bias.fill_(-10.0))
    assert verdicts(build, Liveness.STUCK) == []
    assert "2.weight" in verdicts(build, Liveness.UNREACHED)


def test_experts_that_were_not_chosen_are_not_reached() -> None:
    found = verdicts(deadlocks.sparse_experts, Liveness.UNREACHED)
    assert found and all(address.startswith("experts.") for address in found)
    assert verdicts(deadlocks.sparse_experts, Liveness.UNUSED) == []


def test_outputs_that_the_loss_leaves_out_are_not_reached() -> None:
    assert verdicts(deadlocks.auxiliary, Liveness.UNREACHED) == ["aside.bias", "aside.weight"]


def test_a_bias_that_a_norm_takes_away_is_invariant() -> None:
    build = deadlocks.stacked(lambda: nn.Linear(8, 16), lambda: nn.BatchNorm1d(16), nn.ReLU, lambda: nn.Linear(16, 4))
    assert verdicts(build, Liveness.INVARIANT) == ["0.bias"]


def test_frozen_is_what_requires_no_gradient_or_is_read_without_autograd() -> None:
    assert verdicts(partial(deadlocks.detached, way="no_grad"), Liveness.FROZEN) == ["backbone.weight"]
    assert "0.base.weight" in verdicts(models.lora, Liveness.FROZEN)


def test_what_is_read_past_autograd_is_detached() -> None:
    assert verdicts(deadlocks.detached, Liveness.DETACHED) == ["outer.weight"]


def test_a_code_book_behind_a_stop_gradient_is_no_parameter_that_is_read_past_autograd() -> None:
    assert verdicts(deadlocks.code_book, Liveness.STOPPED) == ["codes.weight"]
    assert verdicts(deadlocks.code_book, Liveness.DETACHED) == []


@pytest.mark.parametrize("seed", range(3))
def test_zero_rows_are_stuck_where_nothing_wakes_them(seed: int) -> None:
    assert probe(deadlocks.packed_experts, seed).stuck_rows == {"up": 1, "down": 1}
    assert probe(partial(deadlocks.packed_attention, zero=12), seed).stuck_rows == {"attention.in_proj_weight": 8}
    pruned = altered(models.relu_mlp, lambda m: m[2].weight[:8].zero_())
    assert probe(pruned, seed).stuck_rows == {"2.weight": 8}


class Ensemble(nn.Module):
    """Members side by side in ``torch.bmm``, without biases: those before the samples."""

    def __init__(self, empty: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.randn(4, 8, 8) / 8**0.5) for _ in range(2))
        self.last = nn.Parameter(torch.randn(4, 8, 3) / 8**0.5)
        nn.init.zeros_(self.second[:empty])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.bmm(x.expand(4, *x.shape), self.first).relu()
        return torch.bmm(torch.bmm(hidden, self.second).relu(), self.last)


@pytest.mark.parametrize("empty", [0, 1])
def test_members_of_an_ensemble_that_a_relu_holds_at_zero_are_stuck(empty: int) -> None:
    found = probe(lambda seed: (Ensemble(empty), (torch.randn(10, 8),))).stuck_rows
    assert found == ({"second": 1} if empty else {})


@pytest.mark.parametrize(
    "build",
    [
        partial(deadlocks.packed_attention, zero=8),
        altered(models.tanh_mlp, lambda m: m[2].weight[:8].zero_()),
        altered(models.gpt, lambda m: m.tokens.weight[0].zero_()),
        altered(models.zero_head, lambda m: m[4].weight.normal_()[:3].zero_()),
    ],
    ids=["query", "tanh", "padding", "head"],
)
def test_zero_rows_that_wake_up_or_are_looked_up_are_not_stuck(build: Build) -> None:
    assert probe(build).stuck_rows == {}


def test_what_no_output_depends_on_is_unused() -> None:
    assert verdicts(deadlocks.spare, Liveness.UNUSED) == [
        "dropped.bias",
        "dropped.weight",
        "spare.bias",
        "spare.weight",
    ]


def test_queries_of_patches_that_no_head_reads_have_no_influence() -> None:
    """The recorded graph has a path from them to the outputs, through positions that are thrown away."""
    assert verdicts(influence.class_token, Liveness.UNUSED) == ["patches.bias", "patches.weight"]
    assert verdicts(influence.class_token, Liveness.STUCK) == []


def test_what_has_no_influence_does_not_hide_what_is_stuck_by_its_values() -> None:
    dead = partial(influence.class_token, dead=True)
    assert verdicts(dead, Liveness.STUCK) == ["inner.weight", "outer.weight"]
    assert verdicts(dead, Liveness.UNUSED) == ["patches.bias", "patches.weight"]


def test_a_frozen_zero_switches_a_branch_off_and_a_rounding_holds_what_is_before_it() -> None:
    held = ["branch.bias", "branch.weight"]
    assert verdicts(partial(influence.gated, gate="frozen"), Liveness.UNUSED) == held
    assert verdicts(partial(influence.gated, gate="rounded"), Liveness.STUCK) == held


def test_a_zero_buffer_is_a_state_that_training_fills() -> None:
    held = ["branch.bias", "branch.weight"]
    assert verdicts(partial(influence.gated, gate="buffer"), Liveness.UNREACHED) == held
    assert verdicts(influence.codec, Liveness.UNREACHED) == ["decode.weight"]
    assert verdicts(influence.codec, Liveness.STUCK) == []


def test_zero_rows_that_nothing_reads_are_not_stuck() -> None:
    assert probe(influence.masked).stuck_rows == {}


def constant(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.ndim > 1:
            parameter.fill_(0.05)


def copied_in_and_out(module: nn.Sequential) -> None:
    module[2].weight[:32] = module[2].weight[32:]
    module[4].weight[:, :32] = module[4].weight[:, 32:]


def test_constants_in_all_layers_never_separate_and_in_one_layer_they_do() -> None:
    assert probe(altered(models.tanh_mlp, constant)).still_equal == {
        "0.weight": 63,
        "2.weight": 63,
        "4.weight": 63,
        "6.weight": 0,
    }
    assert probe(altered(models.tanh_mlp, lambda m: m[2].weight.fill_(0.05))).still_equal == {"2.weight": 0}


def test_copied_units_separate_unless_their_outgoing_weights_are_copied_too() -> None:
    half = altered(models.tanh_mlp, lambda m: m[2].weight[:32].copy_(m[2].weight[32:]))
    assert probe(half).still_equal == {"2.weight": 0}
    assert probe(altered(models.tanh_mlp, copied_in_and_out)).still_equal == {"2.weight": 32}


@pytest.mark.parametrize("way", ["tuple", "stack", "cat"])
def test_twin_critics_never_separate(way: str) -> None:
    twins = probe(partial(deadlocks.twin_critics, way=way)).twins
    assert [(twin.tensor, twin.separated) for twin in twins] == [("two.0.weight", False), ("two.2.weight", False)]
    assert probe(partial(deadlocks.twin_critics, copied=False)).twins == ()


def test_twins_with_different_readouts_separate_though_they_are_stacked() -> None:
    def redraw(module: nn.Module) -> None:
        module.two[2].weight.normal_()

    twins = probe(altered(deadlocks.twin_critics, redraw, way="stack")).twins
    assert [(twin.tensor, twin.separated) for twin in twins] == [("two.0.weight", True)]


def test_clones_in_series_separate() -> None:
    build = altered(models.tanh_mlp, lambda m: m[4].weight.copy_(m[2].weight))
    assert [(t.tensor, t.other, t.separated) for t in probe(build).twins] == [("4.weight", "2.weight", True)]


@pytest.mark.parametrize(
    "build",
    [
        models.adaln_zero,
        models.fixup,
        deadlocks.twin_critics,
        models.weight_norm_mlp,
        deadlocks.packed_experts,
        influence.class_token,
        influence.codec,
        influence.gated,
    ],
)
def test_nothing_is_left_behind(build: Build) -> None:
    module, inputs = build(0)
    module.train()
    first = next(module.parameters())
    first.grad = torch.ones_like(first)
    before = fingerprint(module)
    TorchSession(module, inputs, {}).probe(BOTH)
    assert fingerprint(module) == before


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_nothing_is_left_behind_by_a_loss_that_raises(after: int, error: type[BaseException]) -> None:
    module, inputs = models.adaln_zero(0)
    calls = 0

    def loss(output: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == after:
            raise error
        return output.square().sum() + output.sum()

    session = TorchSession(module, inputs, {}, loss)
    before = fingerprint(module)
    # The second and third calls tell where the loss starts, the fourth is of the second batch: a loss that cannot take
    # that is no fault, the first one serves alone. Later there are no more steps.
    if error is KeyboardInterrupt:
        with pytest.raises(error):
            session.probe(BOTH)
    else:
        signals = session.probe(BOTH)
        assert bool(signals.liveness) == (after in (2, 3, 4))
        missing = "no gradients: its backward in evaluation mode raised" if after == 1 else "no steps could be taken:"
        assert (f"{missing} ZeroDivisionError" in signals.backward_reason) == (after not in (2, 3, 4))
    assert fingerprint(module) == before


def test_gradients_too_faint_for_float32_do_not_blow_the_steps_up() -> None:
    """The rms of a few entries near the smallest number among many zeros is none itself."""
    module = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 4))
    hook = module[0].weight.register_hook(lambda gradient: torch.zeros_like(gradient).fill_diagonal_(1e-45))
    signals = TorchSession(module, (torch.randn(8, 64),), {}).probe(BOTH)
    hook.remove()
    assert signals.liveness["0.weight"] is Liveness.LIVE


class Modulated(nn.Module):
    """A zero projection gives two scales, one of which a loud branch makes move a million times as far."""

    def __init__(self) -> None:
        super().__init__()
        self.modulate, self.loud, self.quiet = nn.Linear(8, 32), nn.Linear(8, 16), nn.Linear(8, 16)
        self.head = nn.Linear(16, 3)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        nn.init.normal_(self.loud.weight, std=1e6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, other = self.modulate(x).chunk(2, -1)
        return self.head(one * self.loud(x) + other * self.quiet(x) + self.quiet(x))


def test_rows_that_hardly_move_beside_others_are_not_called_equal() -> None:
    torch.manual_seed(0)
    session = TorchSession(Modulated(), (torch.randn(16, 8),), {})
    assert session.probe(BOTH).still_equal["modulate.weight"] == 0


class Tokens(nn.Module):
    """A frozen table of which a few rows have a correction that is learnt, as peft's trainable tokens are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(20, 8))
        self.register_buffer("which", torch.tensor([17, 18]))
        self.delta = nn.Parameter(torch.zeros(2, 8))
        self.head = nn.Linear(8, 4).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.index_copy(self.table, 0, self.which, self.table[self.which] + self.delta)
        return self.head(functional.embedding(x, rows).mean(1))


def test_rows_that_this_batch_does_not_look_up_are_not_unused() -> None:
    torch.manual_seed(0)
    report = initlint.check(Tokens(), torch.randint(0, 10, (4, 6)))
    assert not report.findings


class Rewarded(nn.Module):
    """A main output, and a head beside it whose last layer starts at zero."""

    def __init__(self, stopped: bool = False) -> None:
        super().__init__()
        self.body, self.logits = nn.Linear(8, 16), nn.Linear(16, 4)
        self.reward, self.last = nn.Linear(16, 16), nn.Linear(16, 1)
        nn.init.zeros_(self.last.weight)
        self.stopped = stopped

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.body(x).tanh()
        reward = self.reward(hidden).tanh()
        return {"logits": self.logits(hidden), "reward": self.last(reward.detach() if self.stopped else reward)}


@pytest.mark.parametrize("stopped", [False, True])
def test_a_head_that_the_loss_leaves_out_is_not_stopped_by_its_zeros(stopped: bool) -> None:
    torch.manual_seed(0)
    report = initlint.check(Rewarded(stopped), torch.randn(8, 8), select=["unregistered-weights", "stuck-parameters"])
    assert [finding.address for finding in report.findings] == (["reward.weight"] if stopped else [])
