"""The bars of a first release: healthy models are silent, folded norms give one note, planted faults are found.

    python benchmarks/first_light.py [--quick] [--only GLOB] [--exporter legacy|dynamo] [--markdown FILE]

1. Healthy models (``tests/models``), exported honestly by both exporters, five seeds: no error and no warning.
2. Default exports of pytorchcv's MobileNetV2, ResNet-101 and EfficientNet-B0, both exporters: no error, no warning and
   exactly one note of ``folded-norm``.
3. One fault at a time, in every layer of every healthy model where it is a fault: at least 98 % are reported at exactly
   that tensor, by a warning or an error (a note suffices where a zero is an idiom), and beside the report there is at
   most one other finding of its severity or above. ``--exporter`` chooses by which exporter (legacy unless told).

Exit status 0 if every bar that was measured holds, else 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import onnx
import torch

import initlint
from initlint.plugin import Finding, Severity
from initlint.report import Report, Status
from initlint.testing import EXPORTERS, Exporter, default_export, honest_export

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the models are the tests' own

from models import HEALTHY, Fault, Healthy, plant

SEEDS = 5
BAR = 0.98
OTHERS_ALLOWED = 1
FOLDED = ("mobilenetv2_w1", "resnet101", "efficientnet_b0")


@dataclass
class Bar:
    """One promise: how many trials it was put to, and the lines that say where it broke."""

    name: str
    trials: int = 0
    broken: list[str] = field(default_factory=list)
    tolerance: float = 0.0

    @property
    def holds(self) -> bool:
        return self.trials > 0 and len(self.broken) <= self.tolerance * self.trials

    def __str__(self) -> str:
        kept = self.trials - len(self.broken)
        share = f"{100 * kept / self.trials:.1f} %" if self.trials else "not measured"
        return f"{'holds ' if self.holds else 'BROKEN'}  {self.name}: {kept} of {self.trials} ({share})"


def examine(proto: onnx.ModelProto) -> Report:
    """The report; raises RuntimeError where the model could not be checked."""
    report = initlint.check(proto)
    if report.status is not Status.OK:
        raise RuntimeError(report.failure.message if report.failure else str(report.status))
    return report


def say(finding: Finding) -> str:
    return f"{finding.severity} {finding.rule} at {finding.address or 'the model'}"


def alarms(report: Report) -> list[Finding]:
    return [finding for finding in report.headlines if finding.severity >= Severity.WARNING]


# Bar 1: healthy models


def healthy(models: Iterable[Healthy], seeds: int, quick: bool) -> Bar:
    bar = Bar("healthy honest exports without error or warning")
    for model in models:
        for seed in range(seeds):
            for exporter in EXPORTERS[:1] if quick and seed else EXPORTERS:
                bar.trials += 1
                title = f"{model.name}, seed {seed}, {exporter}"
                module, inputs = model.build(seed=seed)
                try:
                    spoken = alarms(examine(honest_export(module, inputs, exporter)))
                except RuntimeError as fault:
                    bar.broken.append(f"{title}: {fault}")
                    continue
                if spoken:
                    bar.broken.append(f"{title}: " + "; ".join(map(say, spoken)))
        progress(f"healthy {model.name}")
    return bar


# Bar 2: default exports


def folded(names: Iterable[str]) -> Bar:
    from pytorchcv.model_provider import get_model

    bar = Bar("default exports with one folded-norm note and nothing louder")
    for name in names:
        for exporter in EXPORTERS:
            torch.manual_seed(0)
            proto = default_export(get_model(name, pretrained=False), torch.randn(1, 3, 224, 224), exporter)
            bar.trials += 1
            try:
                report = examine(proto)
            except RuntimeError as fault:
                bar.broken.append(f"{name}, {exporter}: {fault}")
                continue
            notes = [finding for finding in report.headlines if finding.rule == "folded-norm"]
            spoken = alarms(report)
            if spoken or len(notes) != 1:
                lines = "; ".join(map(say, spoken[:5])) + ("; ..." if len(spoken) > 5 else "")
                counts = f"{len(notes)} notes of folded-norm, {len(spoken)} louder"
                bar.broken.append(f"{name}, {exporter}: {counts}: {lines}")
            progress(f"default export {name} {exporter}")
    return bar


# Bar 3: planted faults


@dataclass(frozen=True)
class Planted:
    model: str
    address: str
    fault: Fault
    hit: Finding | None
    """The loudest finding at the planted tensor, if it is loud enough."""
    others: tuple[Finding, ...]
    """Everything else of that severity or above (of a warning or above, where there is no hit)."""
    failure: str = ""

    @property
    def title(self) -> str:
        return f"{self.model} {self.address} {self.fault}"


def judge(model: Healthy, address: str, fault: Fault, report: Report) -> Planted:
    idiom = fault is Fault.ZEROS and model.zero_suffices_as_note(address)
    needed = Severity.NOTE if idiom else Severity.WARNING

    def at_tensor(finding: Finding) -> bool:
        return finding.address == address or finding.address.startswith(f"{address}[")

    hits = [finding for finding in report.headlines if at_tensor(finding) and finding.severity >= needed]
    hit = max(hits, key=lambda finding: finding.severity, default=None)
    loudness = hit.severity if hit else Severity.WARNING
    # the parts of a packed tensor (gates, q/k/v) may each be named by the same rule: that is still one finding
    others = tuple(
        finding
        for finding in report.headlines
        if finding.severity >= loudness and not (hit and at_tensor(finding) and finding.rule == hit.rule)
    )
    return Planted(model.name, address, fault, hit, others)


def chosen(model: Healthy, quick: bool) -> Iterator[tuple[str, Fault]]:
    """All faults of the model; in quick mode the first and the last place of each kind."""
    places: dict[Fault, list[str]] = defaultdict(list)
    for address, fault in model.faults():
        places[fault].append(address)
    for fault, addresses in places.items():
        for address in dict.fromkeys((addresses[0], addresses[-1])) if quick else addresses:
            yield address, fault


def planted(models: Iterable[Healthy], exporter: Exporter, quick: bool) -> Iterator[Planted]:
    for model in models:
        for address, fault in chosen(model, quick):
            module, inputs = model.build(seed=0)
            plant(module, address, fault)
            try:
                report = examine(honest_export(module, inputs, exporter))
            except RuntimeError as reason:
                yield Planted(model.name, address, fault, None, (), str(reason))
                continue
            yield judge(model, address, fault, report)
        progress(f"faults in {model.name}")


def bars_of(results: list[Planted]) -> tuple[Bar, Bar]:
    found = Bar("faults reported at exactly their tensor", len(results), tolerance=1 - BAR)
    alone = Bar("faults with at most one other finding as loud", len(results))
    for result in results:
        if result.hit is None:
            instead = "; ".join(map(say, result.others[:4])) or "silence"
            found.broken.append(f"{result.title}: {result.failure or instead}")
        if len(result.others) > OTHERS_ALLOWED:
            others = "; ".join(map(say, result.others[:6]))
            alone.broken.append(f"{result.title}: {len(result.others)} others: {others}")
    return found, alone


def table(results: list[Planted], title: str, key: Callable[[Planted], str]) -> Iterator[str]:
    yield f"| {title} | planted | reported | share | with others | reported by |"
    yield "|---|---|---|---|---|---|"
    for name in dict.fromkeys(map(key, results)):
        mine = [result for result in results if key(result) == name]
        hits = [result.hit for result in mine if result.hit]
        crowded = sum(len(result.others) > OTHERS_ALLOWED for result in mine)
        speakers = Counter(f"{hit.rule} ({hit.severity})" for hit in hits).most_common(4)
        by = ", ".join(f"{speaker} {count}" for speaker, count in speakers)
        yield f"| {name} | {len(mine)} | {len(hits)} | {100 * len(hits) / len(mine):.1f} % | {crowded} | {by} |"
    yield ""


def progress(stage: str) -> None:
    print(f"# {time.perf_counter() - STARTED:6.0f} s  {stage}", file=sys.stderr, flush=True)


STARTED = time.perf_counter()


def render(bars: list[Bar], results: list[Planted]) -> str:
    lines = ["# First light", "", *(f"- {bar}" for bar in bars), ""]
    if results:
        lines += [*table(results, "fault", lambda result: result.fault), *table(results, "model", lambda r: r.model)]
    for bar in bars:
        if bar.broken:
            lines += [f"## Not kept: {bar.name}", "", *(f"- {line}" for line in bar.broken), ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two seeds, MobileNetV2 alone, two places per fault")
    parser.add_argument("--only", default="*", help="pattern of healthy models such as 'relu-*'")
    parser.add_argument("--part", choices=("healthy", "folded", "faults"), action="append", help="one bar alone")
    parser.add_argument("--exporter", choices=EXPORTERS, default="legacy", help="for the planted faults")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = [model for model in HEALTHY if fnmatchcase(model.name, arguments.only)]
    parts = arguments.part or ("healthy", "folded", "faults")
    bars: list[Bar] = []
    results: list[Planted] = []
    if "healthy" in parts:
        bars.append(healthy(models, 2 if arguments.quick else SEEDS, arguments.quick))
    if "folded" in parts:
        bars.append(folded(FOLDED[:1] if arguments.quick else FOLDED))
    if "faults" in parts:
        results = list(planted(models, arguments.exporter, arguments.quick))
        bars += bars_of(results)
    text = render(bars, results)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text)
    return int(not all(bar.holds for bar in bars))


if __name__ == "__main__":
    sys.exit(main())
