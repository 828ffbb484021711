"""Do a module and its honest ONNX export tell the same story? Layers, and static and forward findings, side by side.

    python benchmarks/agreement.py [--only GLOB] [--cache DIR] [--exporter dynamo|legacy] [--faults 3]
                                   [--results DIR] [--write benchmarks/results/agreement.md]

Every architecture of ``zoo.py`` is checked as a module and as its honest exports, healthy and with faults planted into
one layer at a time: zeros, one constant, half of the units copied, x100, NaN, in turn, at a quarter, a half and three
quarters of its linear maps. The file gets the very values of the broken module (the exporters themselves run once per
architecture; ``--cache`` keeps their files, as ``healthy_onnx.py`` writes them). ``--results`` keeps one file of
comparisons per architecture, so that a run can go on where another of the same code stopped.

Compared are the layers (name, kind, tensor, shape, fan_in, fan_out, activation) and the findings that are nobody's
consequence (rule, address, severity), of all rules but those about what exporters leave out (``testing.OF_MODULES``).
A difference is explained where one of the two reports says it itself:

not checked   an entry of ``not_checked`` names the layer, the tensor, or what the layer's weight is computed from;
tied          a layer of the module reads another layer's tensor, as its row says: the file has the tensor's other name;
skipped       the rule is among the other side's ``skipped_rules``; for a layer of the module alone that is
              ``unused-parameters``, since nothing can be said of gradients beside a NaN;
unused        ``unused-parameters`` names the tensor: an exporter leaves out what no output depends on;

The bar: layers and findings are equal on at least 20 architectures, and every difference is explained.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from healthy_onnx import export
from kept import of_this_code
from onnx import numpy_helper
from zoo import ZOO, Architecture

import initlint
from initlint.load.from_onnx import Opened, open_onnx
from initlint.model import Layer
from initlint.report import Report, Status
from initlint.testing import EXPORTERS, OF_MODULES, Exporter

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the planting is the tests' own

from models import Fault, plant

FAULTS = (Fault.ZEROS, Fault.CONSTANT, Fault.HALF_DUPLICATED, Fault.LOUD, Fault.NAN)
ENOUGH = 20
FIELDS = ("kind", "tensor", "shape", "fan_in", "fan_out", "activation")


@dataclass(frozen=True)
class Difference:
    what: str
    explained: str
    """How a report explains it; empty where none does."""

    def __str__(self) -> str:
        return f"{self.what} ({self.explained})" if self.explained else f"{self.what} (UNEXPLAINED)"


@dataclass
class Pair:
    """One comparison: an architecture, perhaps broken, as a module and as a file."""

    title: str
    exporter: Exporter
    fault: str = ""
    layers: list[Difference] = field(default_factory=list)
    findings: list[Difference] = field(default_factory=list)
    told: int = 0
    """Findings of the module that were compared."""
    failure: str = ""

    @property
    def differences(self) -> list[Difference]:
        return [*self.layers, *self.findings]

    @property
    def unexplained(self) -> list[Difference]:
        return [each for each in self.differences if not each.explained]


# -- planting ----------------------------------------------------------------------------------------------------------


def sites(layers: list[Layer], count: int, start: int) -> Iterator[tuple[str, Fault]]:
    """(address, fault): the faults in turn, evenly over the linear maps that have units to be copied."""
    maps = [layer for layer in layers if layer.kind.is_map and layer.weight.view.units > 1 and not layer.weight.parts]
    for number in range(min(count, len(maps))):
        chosen = maps[(number + 1) * len(maps) // (count + 1)]
        yield chosen.weight.address, FAULTS[(start + number) % len(FAULTS)]


def with_values(opened: Opened, proto: onnx.ModelProto, address: str, values: np.ndarray) -> onnx.ModelProto:
    """A copy of ``proto`` whose tensor at ``address`` has the ``values`` of the parameter. Raises KeyError."""
    wanted = opened.stored_at[address].value
    names = {wanted, *opened.constants.roots(wanted)}
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    for tensor in changed.graph.initializer:
        if tensor.name in names and tuple(tensor.dims) == values.shape:
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            return changed
    raise KeyError(address)


# -- comparing ---------------------------------------------------------------------------------------------------------


def compare(pair: Pair, module: Report, file: Report) -> Pair:
    for report in (module, file):
        if report.status is not Status.OK:
            pair.failure = report.failure.message if report.failure else str(report.status)
            return pair
    pair.layers = list(_layers(module, file))
    pair.told = len(_findings(module))
    pair.findings = list(_of_findings(module, file))
    return pair


def _layers(module: Report, file: Report) -> Iterator[Difference]:
    mine, theirs = _described(module), _described(file)
    for name in mine.keys() | theirs.keys():
        one, other = mine.get(name), theirs.get(name)
        if one == other:
            continue
        if one is None or other is None:
            side, there = ("file", other) if one is None else ("module", one)
            assert there is not None
            why = _why(module, file, name, there["tensor"]) or _skipped("unused-parameters", module)
            yield Difference(f"layer {name} in the {side} only", why)
            continue
        tied = {**one, "tensor": ""} == {**other, "tensor": ""} and one["tensor"].rpartition(".")[0] != name
        why = "tied" if tied else _why(module, file, name, one["tensor"], other["tensor"])
        parts = [f"{key} {one[key]} / {other[key]}" for key in FIELDS if one[key] != other[key]]
        yield Difference(f"layer {name}: {', '.join(parts)}", why)


def _described(report: Report) -> dict[str, dict[str, Any]]:
    return {
        row.layer.name: {
            "kind": str(row.layer.kind),
            "tensor": row.layer.weight.address,
            "shape": row.layer.weight.shape,
            "fan_in": row.layer.fan_in,
            "fan_out": row.layer.fan_out,
            "activation": row.layer.activation,
        }
        for row in report.layers
    }


def _findings(report: Report) -> dict[tuple[str, str], str]:
    headlines = [each for each in report.headlines if each.rule not in OF_MODULES]
    return {(each.rule, each.address): str(each.severity) for each in headlines}


def _of_findings(module: Report, file: Report) -> Iterator[Difference]:
    mine, theirs = _findings(module), _findings(file)
    for rule, address in mine.keys() | theirs.keys():
        one, other = mine.get((rule, address)), theirs.get((rule, address))
        if one == other:
            continue
        why = _why(module, file, address) or _skipped(rule, module, file)
        yield Difference(f"{rule} at {address or 'the model'}: {one or 'silent'} / {other or 'silent'}", why)


def _why(module: Report, file: Report, *names: str) -> str:
    for report in (module, file):
        if any(entry.at in names or entry.at.startswith(f"{names[0]}.") for entry in report.not_checked):
            return "not checked"
        for finding in report.findings:
            if finding.rule == "unused-parameters" and set(names) & set(_tensors(finding)):
                return "unused"
    return ""


def _tensors(finding: initlint.Finding) -> list[str]:
    value = finding.data.get("tensors", [])
    return [finding.address, *(value if isinstance(value, list) else [])]


def _skipped(rule: str, *reports: Report) -> str:
    return "skipped" if any(entry.rule == rule for report in reports for entry in report.skipped_rules) else ""


# -- the run -----------------------------------------------------------------------------------------------------------


def examine(
    number: int, architecture: Architecture, exporters: list[Exporter], cache: Path, faults: int
) -> Iterator[Pair]:
    files = {exporter: export(architecture, exporter, cache) for exporter in exporters}
    module, inputs = architecture.build()
    healthy = initlint.check(module, inputs)
    for exporter, exported in files.items():
        pair = Pair(architecture.title, exporter, failure=exported.failure)
        yield pair if exported.failure else compare(pair, healthy, initlint.check(exported.path, _fed(inputs)))
    protos = {exporter: onnx.load(each.path) for exporter, each in files.items() if not each.failure}
    opened = {exporter: open_onnx(proto.SerializeToString()) for exporter, proto in protos.items()}
    for address, fault in sites([row.layer for row in healthy.layers], faults, number):
        broken, _ = architecture.build()
        try:
            plant(broken, address, fault)
        except AttributeError:  # an effective weight, no parameter of that name
            continue
        told = initlint.check(broken, inputs)
        values = broken.get_parameter(address).detach().numpy()
        for exporter, proto in protos.items():
            pair = Pair(architecture.title, exporter, f"{fault} at {address}")
            try:
                changed = with_values(opened[exporter], proto, address, values)
            except KeyError:
                pair.failure = f"the file has no {address}"
                yield pair
                continue
            yield compare(pair, told, initlint.check(changed, _fed(inputs)))


def _fed(inputs: Any) -> Any:
    """The module's own inputs for its file, so that thresholds are held against the same data."""
    (only,) = inputs
    return only.numpy()


def stored(path: Path | None) -> list[Pair] | None:
    if path is None or not path.exists():
        return None
    made = []
    for entry in json.loads(path.read_text()):
        for key in ("layers", "findings"):
            entry[key] = [Difference(**each) for each in entry[key]]
        made.append(Pair(**entry))
    return made


def line(pair: Pair) -> str:
    state = pair.failure[:100] or f"{len(pair.layers)} | {pair.told} | {len(pair.findings)} | {len(pair.unexplained)}"
    return f"| {pair.title} | {pair.exporter} | {pair.fault or 'healthy'} | {state} |"


HEADER = (
    "| architecture | exporter | fault | layers differ | findings | findings differ | unexplained |\n"
    "|---|---|---|---:|---:|---:|---:|"
)


def summary(pairs: list[Pair]) -> Iterator[str]:
    for exporter in EXPORTERS:
        mine = [pair for pair in pairs if pair.exporter == exporter and not pair.failure]
        titles = {pair.title for pair in mine}
        if not titles:
            continue
        uneven = {pair.title for pair in mine if pair.layers}
        unequal = {pair.title for pair in mine if pair.differences}
        unexplained = sum(len(pair.unexplained) for pair in mine)
        equal = len(titles - unequal)
        holds = equal >= ENOUGH and not unexplained
        yield (
            f"- {exporter}: {'holds' if holds else 'BROKEN'}: {len(titles)} architectures, {len(mine)} comparisons;"
            f" layers equal on {len(titles - uneven)}, layers and all findings on {equal};"
            f" {sum(len(pair.differences) for pair in mine)} differences, {unexplained} unexplained"
        )


def render(pairs: list[Pair]) -> str:
    differing = [pair for pair in pairs if pair.differences or pair.failure]
    lines = ["# A module and its honest export", "", *summary(pairs), "", HEADER, *map(line, pairs), ""]
    lines += ["## Every difference", ""]
    for pair in differing:
        lines.append(f"- **{pair.title}**, {pair.exporter}, {pair.fault or 'healthy'}")
        lines += [f"  - {each}" for each in pair.differences] + ([f"  - {pair.failure}"] if pair.failure else [])
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="*", help="pattern of names such as 'pytorchcv-*'")
    parser.add_argument("--cache", type=Path, help="keep exported files here (default: a temporary folder)")
    parser.add_argument("--exporter", choices=EXPORTERS, action="append", help="one exporter instead of both")
    parser.add_argument("--faults", type=int, default=3, help="planted faults per architecture")
    parser.add_argument(
        "--results", type=Path, help="keep comparisons here, and use those that this code has left there"
    )
    parser.add_argument("--write", type=Path, help="also write the report to this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pairs: list[Pair] = []
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
                exporters = arguments.exporter or list(EXPORTERS[::-1])
                made = list(examine(number, architecture, exporters, cache, arguments.faults))
                if path is not None:
                    path.write_text(json.dumps([asdict(pair) for pair in made], indent=1))
            pairs += made
            for pair in made:
                print(line(pair), *(f"    {each}" for each in pair.differences), sep="\n", flush=True)
    text = render(pairs)
    print("\n" + "\n".join(summary(pairs)))
    if arguments.write:
        arguments.write.write_text(text)
    return int(any("BROKEN" in each for each in summary(pairs)))


if __name__ == "__main__":
    sys.exit(main())
