"""initlint.check on modules: a Report, and no trace left behind, whatever the forward does."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from models import batchnorm_resnet, lstm, relu_mlp
from torch import nn
from torch.nn.modules import module as module_hooks

import initlint
from initlint.errors import InitlintError, TargetError
from initlint.plugin import Severity


class Restless(nn.Module):
    """A forward that touches all that it can: buffers, random states, statistics of norms, spectral vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 8))
        self.norm, self.drop, self.last = nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.end: Callable[[torch.Tensor], torch.Tensor] = lambda x: x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        noise = torch.randn_like(x) * random.random() * float(np.random.rand())
        return self.last(self.drop(self.norm(self.end(self.first(x + noise)))))


def everything(module: nn.Module) -> list[object]:
    """All that a check must not change, as comparable values."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    bits = [(name, id(value), value.detach().clone().numpy().tobytes()) for name, value in tensors.items()]
    grads = [
        (name, None if p.grad is None else (id(p.grad), p.grad.clone().numpy().tobytes()), p.requires_grad)
        for name, p in module.named_parameters()
    ]
    modes = [(name, each.training, sorted(vars(each)), len(each._forward_hooks), len(each._forward_pre_hooks),
              len(each._backward_hooks)) for name, each in module.named_modules()]  # fmt: skip
    hooks = [len(module_hooks._global_forward_hooks), len(module_hooks._global_forward_pre_hooks)]
    states = [torch.get_rng_state().numpy().tobytes(), random.getstate(), str(np.random.get_state())]
    return [bits, grads, modes, hooks, states, torch.is_grad_enabled()]


def trained_once() -> Restless:
    """In mixed modes, with gradients and a frozen parameter."""
    module = Restless()
    module(torch.randn(8, 6)).sum().backward()
    module.norm.eval()
    module.last.bias.requires_grad_(False)
    module.first.register_forward_hook(lambda *args: None)
    return module


@pytest.mark.parametrize("inputs", [None, torch.randn(8, 6)], ids=["guessed", "given"])
@pytest.mark.parametrize("settings", [{}, {"no_probe": True}, {"select": ["signal"]}])
def test_a_check_leaves_no_trace(inputs: Any, settings: dict[str, Any]) -> None:
    module = trained_once()
    before = everything(module)
    report = initlint.check(module, inputs, **settings)
    assert report.failure is None
    assert everything(module) == before


def raising(error: BaseException) -> Callable[[torch.Tensor], torch.Tensor]:
    def end(x: torch.Tensor) -> torch.Tensor:
        raise error

    return end


@pytest.mark.parametrize("inputs", [None, torch.randn(8, 6)], ids=["guessed", "given"])
def test_a_forward_that_raises_in_the_middle_leaves_no_trace(inputs: Any) -> None:
    module = trained_once()
    module.end = raising(NotImplementedError("later"))
    before = everything(module)
    assert "NotImplementedError: later" in initlint.check(module, inputs).probe.reason
    assert everything(module) == before


def test_an_interrupted_forward_leaves_no_trace() -> None:
    module = trained_once()
    module.end = raising(KeyboardInterrupt())
    before = everything(module)
    with pytest.raises(KeyboardInterrupt):
        initlint.check(module)
    assert everything(module) == before


def test_a_forward_that_fails_when_steps_are_taken_is_said() -> None:
    module = trained_once()
    torch.nn.init.zeros_(module.last.weight)
    runs = iter([lambda x: x])

    def end(x: torch.Tensor) -> torch.Tensor:
        return next(runs, raising(OSError("no more data")))(x)

    module.end = end
    inputs = torch.randn(8, 6)
    before = everything(module)
    report = initlint.check(module, inputs)
    assert report.failure is None
    assert report.probe.backward == "exact"
    assert "no steps could be taken: OSError: no more data" in report.probe.reason
    assert everything(module) == before


def test_a_backward_that_fails_leaves_the_forward_signals() -> None:
    class Backless(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
            raise TypeError("only in training mode")

    class Reversible(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            doubled: torch.Tensor = Backless.apply(super().forward(x))
            return doubled

    report = initlint.check(Reversible(nn.Linear(4, 4)), torch.randn(8, 4))
    assert (report.probe.forward, report.probe.backward) == ("measured", "none")
    assert "its backward in evaluation mode raised TypeError: only in training mode" in report.probe.reason


def test_gradients_may_be_switched_off_outside() -> None:
    with torch.no_grad():
        assert initlint.check(relu_mlp(0)[0]).ok
        assert not torch.is_grad_enabled()


def test_a_report_names_the_class_and_the_layers() -> None:
    module, inputs = relu_mlp(0)
    report = initlint.check(module, inputs)
    assert (report.target, report.format, report.status) == ("Sequential", "torch", "ok")
    assert report.parameters == sum(p.numel() for p in module.parameters())
    assert [row.layer.name for row in report.layers] == ["0", "2", "4", "6"]
    assert all(row.signal is not None and row.stats is not None for row in report.layers)
    assert str(report).startswith("Sequential  torch, 4 layers")
    assert report.to_dict()["format"] == "torch"


@pytest.mark.parametrize("build", [relu_mlp, batchnorm_resnet, lstm])
def test_healthy_modules_pass(build: Any) -> None:
    module, inputs = build(0)
    initlint.check(module, inputs).raise_for_findings()


def test_a_broken_module_raises_for_its_findings() -> None:
    module, inputs = relu_mlp(0)
    with torch.no_grad():
        module[2].weight.fill_(float("nan"))
    report = initlint.check(module, inputs)
    assert [(finding.rule, finding.address) for finding in report.headlines] == [("non-finite-weights", "2.weight")]
    with pytest.raises(AssertionError, match="non-finite-weights"):
        report.raise_for_findings()


def test_the_same_seed_gives_the_same_report() -> None:
    module = relu_mlp(0)[0]
    one, same, other = (initlint.check(module, seed=seed).layers for seed in (0, 0, 1))
    assert [row.signal for row in one] == [row.signal for row in same]
    assert [row.signal for row in one] != [row.signal for row in other]


def test_settings_apply_to_modules() -> None:
    module, inputs = relu_mlp(0)
    assert [row.layer.name for row in initlint.check(module, inputs, layers=["2*"]).layers] == ["2"]
    report = initlint.check(module, inputs, no_probe=True)
    assert report.probe.reason == "the probe is switched off (--no-probe)"


def test_a_class_and_other_objects_are_refused() -> None:
    with pytest.raises(InitlintError, match=r"Linear is a class; check an instance of it"):
        initlint.check(nn.Linear)
    with pytest.raises(InitlintError, match=r"not object"):
        initlint.check(object())


def test_what_only_builders_take_is_refused() -> None:
    with pytest.raises(TargetError, match="the target is a module already"):
        initlint.check(nn.Linear(2, 2), kwargs={"width": 3})
    with pytest.raises(TargetError, match=r"call module\.to\('meta'\)"):
        initlint.check(nn.Linear(2, 2), device="meta")


def test_a_loss_is_for_modules() -> None:
    with pytest.raises(InitlintError, match="leave out loss= for files"):
        initlint.check("model.onnx", loss=torch.sum)


def test_a_module_without_weights_is_unsupported() -> None:
    report = initlint.check(nn.Sequential(nn.ReLU()))
    assert (report.status, report.exit_status, report.format) == ("unsupported", 3, "torch")


def test_what_torch_export_makes_is_checked_and_left_as_it_was() -> None:
    """Such modules refuse ``eval``."""
    module, inputs = relu_mlp(0)
    exported = torch.export.export(module, inputs).module()
    before = everything(exported)
    report = initlint.check(exported, inputs)
    assert report.failure is None
    assert (report.probe.forward, report.probe.backward) == ("measured", "exact")
    assert [finding for finding in report.findings if finding.severity >= Severity.WARNING] == []
    assert everything(exported) == before


@pytest.mark.parametrize("settings", [{}, {"no_probe": True}], ids=["probed", "static"])
def test_the_code_of_a_fix_runs(settings: dict[str, Any]) -> None:
    """A buffer is not asked for as a parameter."""
    module, inputs = batchnorm_resnet(0)
    module.register_buffer("cache", torch.full((4,), torch.nan))
    module.blocks[0].bn1.running_var.fill_(torch.nan)
    code = {f.address: f.fix.code for f in initlint.check(module, inputs, **settings).findings if f.fix}
    assert {"cache", "blocks.0.bn1.running_var"} <= set(code)
    for each in code.values():
        exec(each, {"model": module, "nn": nn})  # noqa: S102 - made by initlint
    assert not any(buffer.isnan().any() for buffer in module.buffers())


class Clipped(nn.Module):
    """Writes into its weights in every forward, as clipping and normalising ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8, max_norm=0.5)
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)
        nn.init.zeros_(self.last.weight)  # so that steps are taken

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.first.weight.clamp_(-0.1, 0.1)
        self.last.weight.data = self.last.weight.data * 0.5
        return self.last(self.first(self.table(tokens)))


class Merging(nn.Linear):
    """Changes its weight when it is put into evaluation mode, as merged adapters do."""

    def train(self, mode: bool = True) -> Merging:
        if mode != self.training:
            self.weight.data += 1 if mode else -1
        return super().train(mode)


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (Clipped(), torch.arange(16)),
        (nn.Sequential(Merging(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(8, 8)),
    ],
)
def test_weights_that_the_module_changes_itself_are_put_back(module: nn.Module, inputs: torch.Tensor) -> None:
    memory = {name: parameter.data_ptr() for name, parameter in module.named_parameters()}
    before = everything(module)
    assert initlint.check(module, inputs).probe.backward == "exact"
    assert everything(module) == before
    assert {name: parameter.data_ptr() for name, parameter in module.named_parameters()} == memory


def test_inputs_that_the_forward_overwrites_are_put_back() -> None:
    class Shifting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
            nn.init.zeros_(self.last.weight)  # so that steps are taken

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x.sub_(1)))

    inputs = torch.randn(8, 4)
    before = inputs.clone()
    assert initlint.check(Shifting(), inputs).ok
    assert torch.equal(inputs, before)


def test_a_compiled_module_runs_eagerly() -> None:
    compiled: list[object] = []

    def backend(graph: torch.fx.GraphModule, example: object) -> object:
        compiled.append(graph)
        return graph.forward

    module = torch.compile(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), backend=backend)
    report = initlint.check(module, torch.randn(16, 8))
    assert (report.ok, report.probe.backward, len(report.layers)) == (True, "exact", 2)
    assert compiled == []


def test_a_loss_that_works_only_once_is_said() -> None:
    module, calls = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), list[None]()

    def loss(output: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        if len(calls) == 2:
            raise ZeroDivisionError("once only")
        return output.square().mean()

    report = initlint.check(module, torch.randn(8, 4), loss)
    assert [entry.at for entry in report.not_checked if "once only" in entry.reason] == ["the loss at the start"]


def test_every_seed_that_is_taken_works() -> None:
    module, _ = relu_mlp(0)
    report = initlint.check(lambda: relu_mlp(0)[0], seed=2**64 - 1)
    assert (report.probe.forward, report.probe.seed, report.failure) == ("measured", 2**64 - 1, None)
    with pytest.raises(InitlintError, match=r"seed has to be a whole number .*at most 2\*\*64-1"):
        initlint.check(module, seed=2**64)


def test_a_learnt_query_is_a_single_one_in_every_batch() -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.ask = nn.Parameter(torch.randn(1, 8)), nn.Linear(8, 8)
            self.enter, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            asked: torch.Tensor = self.head(torch.tanh(self.enter(x) + self.ask(self.query)))
            return asked

    assert initlint.check(Asking(), torch.randn(16, 8)).not_checked == ()


class Meddling(nn.Module):
    """Differentiates, freezes and hooks itself while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.tanh(self.inner(x)))
        if out.requires_grad:
            out.sum().backward(retain_graph=True)
        self.inner.register_forward_hook(lambda *_: None)
        self.inner.bias.requires_grad_(False)
        return out


@pytest.mark.parametrize("held", [False, True])
def test_what_a_forward_does_to_gradients_flags_and_hooks_is_undone(held: bool) -> None:
    module = Meddling()
    before = torch.ones(4, 4) if held else None
    module.inner.weight.grad = before
    report = initlint.check(module, torch.randn(8, 4))
    assert report.probe.forward == "measured"
    assert module.inner.weight.grad is before
    assert before is None or bool((before == 1).all())
    assert [each.grad for name, each in module.named_parameters() if name != "inner.weight"] == [None] * 3
    assert all(each.requires_grad for each in module.parameters())
    assert not module.inner._forward_hooks


def test_what_a_loss_adds_to_gradients_is_undone() -> None:
    def loss(out: torch.Tensor) -> torch.Tensor:
        out.square().mean().backward(retain_graph=True)
        return out.square().mean()

    module = nn.Linear(4, 2)
    assert initlint.check(module, torch.randn(8, 4), loss=loss).status == "ok"
    assert module.weight.grad is None
