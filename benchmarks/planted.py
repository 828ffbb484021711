"""Single faults in public architectures: is the root cause the first headline, and is it the only one?

    python benchmarks/planted.py [--only GLOB] [--faults 3] [--cache DIR] [--results DIR]
                                 [--write benchmarks/results/planted.md]

Every architecture of ``zoo.py`` gets faults one at a time (zeros, one constant, half of the units copied, NaN, x100, a
bias of -10 in front of ReLU, in turn, evenly over its linear maps), as a module and as its honest export by the newer
exporter, which gets the very values of the broken module. ``--cache`` keeps exports, ``--results`` one file of outcomes
per architecture, so that a run can go on where another of the same code stopped.

What the healthy model is told anyway is taken off. Of the rest:

right      the first headline (the gravest; of equals the first in reading order) stands at the tensor of the fault. One
           fault is told at a layer instead of its tensor, or at a part of it: that counts;
headlines  how many there are from a warning up;
verified   of these, how many carry a fix that the trial has confirmed;
same       the module and the file have the same first headline (rule and tensor);
probes     how often the model was probed beyond the first time.

A fault that is harmless where it was put (zeros at the end of a residual branch, anything in front of a norm) is told
as a note or not at all. So a silence is counted as right only where ``--train`` has shown the broken model to reach
the healthy one's loss (the protocol of ``healthy.py``), and as a miss until then.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import onnx
import torch
from agreement import _fed, with_values
from fit import fit
from healthy_onnx import export
from kept import of_this_code
from zoo import ZOO, Architecture

import initlint
from initlint import activations, checking
from initlint.load.from_onnx import open_onnx
from initlint.model import Layer
from initlint.plugin import Finding, Severity
from initlint.report import Report
from initlint.trial import PROBES

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the planting is the tests' own

from models import Fault, plant

FAULTS = (Fault.ZEROS, Fault.CONSTANT, Fault.HALF_DUPLICATED, Fault.NAN, Fault.LOUD, Fault.RELU_BIAS)
RIGHT, SAME, VERIFIED, ARCHITECTURES = 0.98, 0.95, 0.9, 40
SILENT = "silent"


@dataclass
class Told:
    """One fault in one architecture, on one side."""

    title: str
    side: str
    address: str
    fault: str
    first: str
    """"severity rule at address" of the first headline, or "silent"."""
    place: str
    right: bool
    headlines: int
    verified: int
    probes: int
    trained: str = ""
    """Where silent and trained: what became of it."""

    @property
    def is_right(self) -> bool:
        return self.right or (self.first == SILENT and self.trained == "trains")


class Probes:
    """Counts the probes of a check through the door that all of them pass."""

    def __init__(self) -> None:
        self.count = 0
        self._original = checking._tried

    def __enter__(self) -> Probes:
        def counted(session: Any, *arguments: Any) -> Any:
            return self._original(_Counting(session, self), *arguments)

        checking._tried = counted
        return self

    def __exit__(self, *error: object) -> None:
        checking._tried = self._original


class _Counting:
    def __init__(self, session: Any, counter: Probes) -> None:
        self._session, self._counter = session, counter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def probe(self, *arguments: Any) -> Any:
        self._counter.count += 1
        return self._session.probe(*arguments)


def sites(layers: Iterable[Layer], count: int, start: int) -> Iterator[tuple[str, Fault]]:
    """(address, fault): the faults in turn, evenly over the linear maps; a bias where the map has one before a ReLU."""
    maps = [each for each in layers if each.kind.is_map and each.weight.view.units > 1 and not each.weight.parts]
    for number in range(min(count, len(maps))):
        fault = FAULTS[(start + number) % len(FAULTS)]
        layer = maps[(number + 1) * len(maps) // (count + 1)]
        if fault is Fault.RELU_BIAS:
            sharp = [m for m in maps if m.bias is not None and activations.get(m.activation).dead_below == 0.0]
            layer = sharp[len(sharp) // 2] if sharp else layer
            if not sharp or layer.bias is None:
                fault = Fault.ZEROS
        tensor = layer.bias if fault is Fault.RELU_BIAS and layer.bias is not None else layer.weight
        yield tensor.address, fault


def headlines(report: Report, usual: Report) -> list[Finding]:
    """The gravest first; without what the healthy model is told as well."""
    known = {(each.rule, each.address, each.severity) for each in usual.headlines}
    new = [each for each in report.headlines if (each.rule, each.address, each.severity) not in known]
    return sorted(new, key=lambda finding: -finding.severity)


def told(title: str, side: str, address: str, fault: Fault, report: Report, usual: Report, probes: int) -> Told:
    found = headlines(report, usual)
    loud = [each for each in found if each.severity >= Severity.WARNING]
    first = found[0] if found else None
    layer = next((row.layer for row in report.layers if address in {t.address for t in row.layer.tensors}), None)
    right = first is not None and (
        first.address.partition("[")[0] == address or (layer is not None and first.address == layer.name)
    )
    said = f"{first.severity} {first.rule} at {first.address}" if first is not None else SILENT
    place = f"{first.rule} at {first.address}" if first is not None else SILENT
    verified = sum(each.verified for each in loud)
    return Told(title, side, address, str(fault), said, place, right, len(loud), verified, probes)


def examine(number: int, architecture: Architecture, cache: Path, count: int, train: bool) -> Iterator[Told]:
    exported = export(architecture, "dynamo", cache)
    module, inputs = architecture.build()
    usual = initlint.check(module, inputs)
    proto = None if exported.failure else onnx.load(exported.path)
    opened = None if proto is None else open_onnx(proto.SerializeToString())
    usual_file = None if proto is None else initlint.check(proto, _fed(inputs))
    for address, fault in sites([row.layer for row in usual.layers], count, number * count):
        broken, _ = architecture.build()
        try:
            plant(broken, address, fault)
        except AttributeError:
            print(f"{architecture.title}: {address} is an effective weight, no parameter: not planted", flush=True)
            continue
        with Probes() as probes:
            report = initlint.check(broken, inputs)
        mine = told(architecture.title, "module", address, fault, report, usual, probes.count)
        if mine.first == SILENT and train:
            mine.trained = _trained(architecture, address, fault)
        yield mine
        if proto is None or opened is None or usual_file is None:
            continue
        try:
            changed = with_values(opened, proto, address, broken.get_parameter(address).detach().numpy())
        except KeyError:
            print(f"{architecture.title}: the file has no {address}: not compared", flush=True)
            continue
        with Probes() as probes:
            report = initlint.check(changed, _fed(inputs))
        theirs = told(architecture.title, "file", address, fault, report, usual_file, probes.count)
        theirs.trained = mine.trained
        yield theirs


def _trained(architecture: Architecture, address: str, fault: Fault) -> str:
    def build() -> Any:
        module, inputs = architecture.build()
        plant(module, address, fault)
        return module, inputs

    try:
        return fit(build, lambda: architecture.build()[0]).verdict
    except (RuntimeError, ValueError, TypeError) as reason:  # a loss that this output does not give
        return f"not trained: {reason}"


def summary(outcomes: list[Told]) -> Iterator[str]:
    for side in ("module", "file"):
        mine = [each for each in outcomes if each.side == side]
        if not mine:
            continue
        right = sum(each.is_right for each in mine) / len(mine)
        loud, verified = sum(each.headlines for each in mine), sum(each.verified for each in mine)
        titles = len({each.title for each in mine})
        holds = right >= RIGHT and titles >= ARCHITECTURES
        yield (
            f"- {side}: {'holds' if holds else 'BROKEN'}: {len(mine)} faults in {titles} architectures; the first "
            f"headline is right for {100 * right:.1f} %; headlines per fault: median "
            f"{statistics.median(each.headlines for each in mine):g}, most {max(each.headlines for each in mine)}; "
            f"{100 * verified / max(1, loud):.1f} % of {loud} verified; at most {max(e.probes for e in mine)} extra "
            f"probes (allowed: {PROBES})"
        )
    firsts = {(each.title, each.address, each.fault, each.side): each.place for each in outcomes}
    both = [key[:3] for key in firsts if key[3] == "file"]
    if both:
        same = sum(firsts[(*key, "file")] == firsts[(*key, "module")] for key in both) / len(both)
        yield f"- {'holds' if same >= SAME else 'BROKEN'}: the same first headline on {100 * same:.1f} % of {len(both)}"


def render(outcomes: list[Told]) -> str:
    lines = ["# Single faults in public architectures", "", *summary(outcomes), ""]
    lines += ["| architecture | side | fault | first headline | right | headlines | verified | probes |"]
    lines += ["|---|---|---|---|---|---:|---:|---:|"]
    for each in outcomes:
        right = "yes" if each.right else f"silent, {each.trained}" if each.trained else "NO"
        lines.append(
            f"| {each.title} | {each.side} | {each.fault} at {each.address} | {each.first} | {right} | "
            f"{each.headlines} | {each.verified} | {each.probes} |"
        )
    return "\n".join([*lines, ""])


def stored(path: Path | None) -> list[Told] | None:
    return [Told(**entry) for entry in json.loads(path.read_text())] if path is not None and path.exists() else None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="*", help="pattern of names such as 'pytorchcv-*'")
    parser.add_argument("--faults", type=int, default=3, help="planted faults per architecture")
    parser.add_argument("--train", action="store_true", help="train what is silent")
    parser.add_argument("--cache", type=Path, help="keep exported files here (default: a temporary folder)")
    parser.add_argument("--results", type=Path, help="keep outcomes here, and use those that this code has left there")
    parser.add_argument("--write", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    outcomes: list[Told] = []
    results = of_this_code(arguments.results) if arguments.results else None
    with tempfile.TemporaryDirectory() as temporary:
        cache = arguments.cache or Path(temporary)
        cache.mkdir(parents=True, exist_ok=True)
        for number, architecture in enumerate(ZOO):
            if not fnmatchcase(architecture.title, arguments.only):
                continue
            path = results / f"{architecture.title}.json" if results else None
            made = stored(path)
            if made is None:
                made = list(examine(number, architecture, cache, arguments.faults, arguments.train))
                if path is not None:
                    path.write_text(json.dumps([asdict(each) for each in made], indent=1))
            outcomes += made
            for each in made:
                print(
                    each.title, each.side, each.fault, each.address, each.first, each.headlines, sep=" | ", flush=True
                )
    text = render(outcomes)
    print("\n" + "\n".join(summary(outcomes)))
    if arguments.write:
        arguments.write.write_text(text)
    return int(any("BROKEN" in each for each in summary(outcomes)))


if __name__ == "__main__":
    sys.exit(main())
