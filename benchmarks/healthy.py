"""Healthy models: does initlint stay silent on public architectures as their libraries initialise them?

    python benchmarks/healthy.py [--zoo main|more|both] [--only GLOB] [--library NAME] [--results DIR]
                                 [--train GLOB] [--kept] [--write benchmarks/results/healthy.md]

Every architecture of ``zoo.py`` (``--zoo more``: of the hold-out ``zoo_more.py``) is built with seed 0 and checked
three times: with its own inputs, then with the values of these in another order and the probe's seeds 1 and 2. The
table has its library, parameters, seconds of the first check, whether anything raised, whether it was bit-identical
afterwards (parameters, buffers, gradients, modes, hooks, random state), whether the three runs found the same (rule,
address, severity), and how many errors, warnings and notes there were. ``--results`` keeps one file of results per
model, so that a run can go on where another of the same code stopped.

Bars: nothing raises; all are bit-identical; at most 10 % of the models draw a warning; no error that a training run
does not justify.

Training runs decide who is right: every model with an error or a warning is trained, and those that ``--train`` names.
The protocol was fixed before any verdict was looked at:

Twin      the same module, built with the same seed, with the fix of every error and warning applied (``Reinit``,
          ``Fill``); where a finding has none, the parameters of the module it names are drawn anew by that module's
          ``reset_parameters``, and where there is none by PyTorch's default for their shape (uniform within
          1 / sqrt(fan_in)). A model without findings is its own twin.
Data      ten classes, 512 samples. Images (a float tensor with 3 channels last but two): scikit-learn digits, scaled up
          bilinearly to the model's side, each channel alike, standardised. Tokens (integers): sequences of the length
          and range of the model's own inputs, filled at random with all but ten of the tokens, into which the one of
          the ten that names the class is put at a quarter of the places. Anything else: ten prototypes drawn from the
          standard normal, plus as much noise. Tensors of the inputs beside the largest stay as they are.
Readout   the first floating-point tensor of the output, averaged over all axes but the batch's and the last (of four
          and more axes, the second): features, of which a fixed random projection with variance 1 / features, never
          trained, makes ten logits: what learns has to be the model. A feature's mean over the first batch is taken
          off, and all are divided by one number, their rms over it, measured on the twin.
Training  cross-entropy, training mode with dropout off, batches of 16, 200 steps; Adam, and SGD with momentum 0.9; no
          schedule, decay or clipping. The rate comes from a grid (Adam 1e-4, 1e-3, 1e-2; SGD 1e-3, 1e-2, 1e-1) and is
          the one with which the twin's mean loss over the last 20 steps is least; the model is trained with that alone.
Labels    by optimiser. target = the loss half-way from ln 10 to the twin's last. ``trains``: the model's mean loss over
          steps 81 to 100 is below it, or where the twin's is not either, the one over the last 20; ``slow``: only the
          one over steps 181 to 200; ``fails``: not even that, or not finite. ``undecided`` where the twin itself gets
          less than a tenth below ln 10. The verdict is the better of the two optimisers'.

Needs ``transformers pytorchcv vit-pytorch x-transformers`` (and what ``zoo_more.py`` names) beside the extra ``dev``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import zoo_more
from fit import Fitted, fit, mended
from kept import of_this_code
from zoo import ZOO, Architecture

import initlint
from initlint.plugin import Severity
from initlint.report import Report, Status

INSTALLED = re.compile(r"/\S*/site-packages/")
"""Where a machine keeps its packages is nothing to record."""
SEEDS = 3
WARNED_ALLOWED = 0.1
SLOW_SECONDS = 20.0


@dataclass
class Outcome:
    """What the checks of one architecture gave; kept as JSON."""

    title: str
    library: str
    parameters: int = 0
    layers: int = 0
    seconds: float = 0.0
    crash: str = ""
    changed: list[str] = field(default_factory=list)
    """What of the module was no longer the same afterwards."""
    seeds: list[str] = field(default_factory=list)
    """What a later seed found and the first did not, or the other way round."""
    counts: dict[str, int] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_checked: dict[str, int] = field(default_factory=dict)
    probe: str = ""
    trained: dict[str, str] = field(default_factory=dict)
    """Verdict by optimiser."""
    verdict: str = ""

    def count(self, severity: Severity) -> int:
        return self.counts.get(str(severity), 0)


def examine(architecture: Architecture) -> Outcome:
    outcome = Outcome(architecture.title, architecture.library)
    try:
        module, inputs = architecture.build()
        outcome.parameters = sum(parameter.numel() for parameter in module.parameters())
        before = fingerprint(module)
        reports = []
        for seed in range(SEEDS):
            started = time.perf_counter()
            reports.append(initlint.check(module, redrawn(inputs, seed), seed=seed))
            outcome.seconds = outcome.seconds or time.perf_counter() - started
        after = fingerprint(module)
    except Exception as fault:  # noqa: BLE001 - a traceback is what this benchmark looks for
        where = traceback.extract_tb(fault.__traceback__)[-1]
        outcome.crash = f"{type(fault).__name__}: {fault} ({Path(where.filename).name}:{where.lineno})"
        return outcome
    outcome.changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return described(outcome, reports)


def described(outcome: Outcome, reports: list[Report]) -> Outcome:
    first = reports[0]
    if first.status is not Status.OK:
        outcome.crash = first.failure.message if first.failure else str(first.status)
    told = [{(f.rule, f.address, str(f.severity)) for f in report.headlines} for report in reports]
    for seed, others in enumerate(told[1:], 1):
        outcome.seeds += [f"seed {seed}: {'lacks' if one in told[0] else 'adds'} {one}" for one in told[0] ^ others]
    outcome.layers = len(first.layers)
    outcome.counts = dict(Counter(str(finding.severity) for finding in first.headlines))
    for finding in first.headlines:
        lines = outcome.alarms if finding.severity >= Severity.WARNING else outcome.notes
        lines.append(f"{finding.severity} {finding.rule} at {finding.address}: {finding.message}")
    outcome.not_checked = dict(Counter(INSTALLED.sub("", each.reason) for each in first.not_checked).most_common(8))
    outcome.probe = INSTALLED.sub("", first.probe.reason)
    return outcome


def redrawn(inputs: Any, seed: int) -> Any:
    """The same values in another order; the given inputs themselves for seed 0."""
    if seed == 0:
        return inputs
    generator = torch.Generator().manual_seed(seed)
    if isinstance(inputs, dict):
        return {name: _again(value, generator) for name, value in inputs.items()}
    return tuple(_again(value, generator) for value in inputs)


def _again(value: Any, generator: torch.Generator) -> Any:
    """Values in another order: any constraint on a single one (a range, a mask of ones) still holds."""
    if not isinstance(value, torch.Tensor) or value.ndim < 2:
        return value
    order = torch.randperm(value.numel(), generator=generator)
    return value.flatten()[order].view(value.shape)


def fingerprint(module: torch.nn.Module) -> dict[str, Any]:
    """By name, what a check must leave alone."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    found: dict[str, Any] = {name: _bytes(tensor) for name, tensor in tensors.items()}
    for name, tensor in module.named_parameters():
        found[f"{name} (gradient)"] = None if tensor.grad is None else _bytes(tensor.grad)
        found[f"{name} (requires_grad)"] = tensor.requires_grad
    for name, child in module.named_modules():
        hooks = [key for key, value in vars(child).items() if key.endswith("_hooks") and value]
        found[f"{name} (module)"] = child.training, hooks
    found["random state"] = _bytes(torch.get_rng_state())
    return found


def _bytes(tensor: torch.Tensor) -> int:
    return hash(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())


# -- training ----------------------------------------------------------------------------------------------------------


def train(outcome: Outcome, architecture: Architecture) -> None:
    """Ask a training run who is right, by the protocol above."""
    module, inputs = architecture.build()
    report = initlint.check(module, inputs)
    alarms = [finding for finding in report.headlines if finding.severity >= Severity.WARNING]
    try:
        fitted: Fitted = fit(architecture.build, lambda: mended(architecture.build()[0], alarms))
    except (RuntimeError, ValueError, TypeError) as fault:  # a loss that this output does not give
        outcome.verdict = f"not trained: {fault}"
        return
    outcome.trained = {name: f"{run.label} ({run.own:.2f}, twin {run.twin:.2f})" for name, run in fitted.runs.items()}
    outcome.verdict = fitted.verdict


# -- the report --------------------------------------------------------------------------------------------------------


def row(one: Outcome) -> str:
    trouble = one.crash[:70] if one.crash else "no"
    cells = (
        one.title.removeprefix(f"{one.library}-"),
        one.library,
        f"{one.parameters:,}",
        f"{one.seconds:.1f}",
        trouble.replace("|", "/"),
        "no" if one.changed else "yes",
        "no" if one.seeds else "yes",
        *(str(one.count(severity)) for severity in (Severity.ERROR, Severity.WARNING, Severity.NOTE)),
        one.verdict,
    )
    return f"| {' | '.join(cells)} |"


HEADER = (
    "| model | library | parameters | s | raised | bit-identical | same for 3 seeds | errors | warnings | notes |"
    " training |\n|---|---|---:|---:|---|---|---|---:|---:|---:|---|"
)


def bars(outcomes: list[Outcome]) -> Iterator[str]:
    count = len(outcomes)
    crashed = [one for one in outcomes if one.crash]
    changed = [one for one in outcomes if one.changed]
    warned = [one for one in outcomes if one.count(Severity.WARNING)]
    errors = [one for one in outcomes if one.count(Severity.ERROR)]
    unjust = [one for one in errors if one.verdict not in ("fails", "slow")]
    unsteady = [one for one in outcomes if one.seeds]
    yield f"- {count} models, {len({one.library for one in outcomes})} libraries"
    yield f"- {_kept(not crashed)}: nothing raises ({len(crashed)} do)"
    yield f"- {_kept(not changed)}: bit-identical afterwards ({len(changed)} are not)"
    share = len(warned) / max(count, 1)
    yield f"- {_kept(share <= WARNED_ALLOWED)}: at most 10 % with a warning ({len(warned)}, {100 * share:.1f} %)"
    yield f"- {_kept(not unjust)}: no error that a training run does not justify ({len(unjust)} of {len(errors)})"
    yield f"- {_kept(not unsteady)}: the same findings for {SEEDS} seeds ({len(unsteady)} differ)"
    slow = sorted((one.seconds for one in outcomes), reverse=True)
    above = sum(each > SLOW_SECONDS for each in slow)
    yield f"- seconds: median {slow[len(slow) // 2]:.1f}, most {slow[0]:.1f}; {above} above {SLOW_SECONDS:.0f}"


def _kept(holds: bool) -> str:
    return "holds" if holds else "BROKEN"


def details(outcomes: Iterable[Outcome]) -> Iterator[str]:
    for one in outcomes:
        lines = [f"crash: {one.crash}"] if one.crash else []
        lines += [f"changed: {name}" for name in one.changed[:5]]
        lines += one.seeds[:6] + one.alarms[:12] + one.notes[:6]
        lines += [f"{count} x not checked: {reason}" for reason, count in one.not_checked.items()]
        lines += [f"probe: {one.probe}"] if one.probe else []
        lines += [f"training with {name}: {label}" for name, label in one.trained.items()]
        if lines:
            yield f"- **{one.title}**"
            yield from (f"  - {line}" for line in lines)


def render(outcomes: list[Outcome]) -> str:
    # fmt: off
    parts = [
        "# Healthy models", "", *bars(outcomes), "", HEADER, *map(row, outcomes), "",
        "## What was said", "", *details(outcomes), "",
    ]
    # fmt: on
    return "\n".join(parts)


def chosen(zoo: str) -> tuple[Architecture, ...]:
    return {"main": ZOO, "more": zoo_more.available(), "both": (*ZOO, *zoo_more.available())}[zoo]


def kept(path: Path | None) -> Outcome | None:
    return Outcome(**json.loads(path.read_text())) if path is not None and path.exists() else None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--zoo", choices=("main", "more", "both"), default="main")
    parser.add_argument("--only", default="*", help="pattern of names such as 'pytorchcv-*'")
    parser.add_argument("--library", default="*", help="one library alone")
    parser.add_argument("--results", type=Path, help="keep results here, and use those that this code has left there")
    parser.add_argument("--train", default="", metavar="GLOB", help="train these too, whatever was found")
    parser.add_argument("--no-training", action="store_true", help="leave the training runs out")
    parser.add_argument("--kept", action="store_true", help="report what --results holds, measure nothing")
    parser.add_argument("--write", type=Path, help="also write the report to this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    results = of_this_code(arguments.results) if arguments.results else None
    outcomes = []
    for architecture in chosen(arguments.zoo):
        if not fnmatchcase(architecture.title, arguments.only) or not fnmatchcase(
            architecture.library, arguments.library
        ):
            continue
        path = results / f"{architecture.title}.json" if results else None
        outcome = kept(path)
        if outcome is None and arguments.kept:
            continue
        outcome = outcome or examine(architecture)
        wanted = outcome.alarms or (arguments.train and fnmatchcase(architecture.title, arguments.train))
        if wanted and not outcome.verdict and not outcome.crash and not (arguments.no_training or arguments.kept):
            train(outcome, architecture)
        if path is not None:
            path.write_text(json.dumps(asdict(outcome), indent=1))
        print(row(outcome), flush=True)
        outcomes.append(outcome)
    text = render(outcomes)
    print("\n" + text.partition(HEADER)[0] + "\n".join(details(outcomes)))
    if arguments.write:
        arguments.write.write_text(text)
    return int(any("BROKEN" in line for line in bars(outcomes)))


if __name__ == "__main__":
    sys.exit(main())
