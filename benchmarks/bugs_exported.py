"""Is the headline about a bug's file the one about its module? The bugs of ``bugs.py`` and their repaired twins.

    python benchmarks/bugs_exported.py [--only GLOB]

Every case is checked as a module and as its honest export (newer exporter), on the same batch. Compared is the gravest
finding that is nobody's consequence, above note (rule and address, the first in reading order); of a twin, that there
is none. Cases that cannot be exported are named and left out.
"""

from __future__ import annotations

import argparse
import warnings
from fnmatch import fnmatchcase
from typing import Any

import onnx
import torch
from bugs import BUGS
from training import tasks

import initlint
from initlint.plugin import Severity
from initlint.report import Report
from initlint.testing import honest_export


def headline(report: Report) -> str:
    loud = [finding for finding in report.headlines if finding.severity > Severity.NOTE]
    gravest = max(loud, key=lambda finding: finding.severity, default=None)
    return "-" if gravest is None else f"{gravest.severity} {gravest.rule} {gravest.address or 'model'}"


def fed(proto: onnx.ModelProto, sample: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    """The module's own batch, by the names of the file's inputs."""
    return {value.name: tensor.numpy() for value, tensor in zip(proto.graph.input, sample, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="*")
    parser.add_argument("--bugs", action="store_true", help="without the twins")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    refused = 0
    counts = {"bugs": [0, 0, 0], "twins": [0, 0, 0]}
    for bug in BUGS:
        if not fnmatchcase(bug.name, arguments.only):
            continue
        for broken, kind in ((True, "bugs"), (False, "twins"))[: 1 if arguments.bugs else 2]:
            torch.manual_seed(0)
            module, sample = bug.build(broken), tasks()[bug.task].sample
            try:
                proto = honest_export(module, sample, "dynamo")
            except Exception as error:  # noqa: BLE001 - whatever an exporter raises
                refused += 1
                print(f"{bug.name} ({kind[:-1]}): no export: {type(error).__name__}: {error}"[:200], flush=True)
                continue
            one, other = headline(initlint.check(module, sample)), headline(initlint.check(proto, fed(proto, sample)))
            same_place = one.partition(" ")[2] == other.partition(" ")[2]
            counts[kind] = [n + more for n, more in zip(counts[kind], (1, same_place, one == other), strict=True)]
            mark = "same" if one == other else "SEVERITY" if same_place else "DIFFERS"
            print(f"{mark:8} {bug.name} ({kind[:-1]}): {one} / {other}", flush=True)
    for kind, (cases, same, severity) in counts.items():
        print(f"{kind}: {same} of {cases} have the same rule and address, {severity} the same severity too")
    print(f"{refused} could not be exported")


if __name__ == "__main__":
    main()
