"""How much gradients grow and shrink in healthy architectures, as the gradient rules measure it.

    python benchmarks/zoo_growth.py [--only GLOB] [--write benchmarks/results/zoo_growth.md]   # 6 minutes

Every architecture of ``zoo.py`` and of the hold-out ``zoo_more.py`` whose library is installed is built with seed 0 and
probed with its own inputs. ``growth`` is the largest sensitivity per use of a layer over that of the outlet, where no
normalisation lies between the two (plain) and where one does (normed); ``decay`` the smallest one of a layer that
nothing bypasses, over that of its mildest outlet (``initlint/sensitivity.py``); ``-`` where no layer qualifies. Then
what the rules about gradients and saturation say. The classifiers of pytorchcv are built for inputs of 224 pixels and
take most of the time: ``--only "[!p]*"`` leaves them out, as the recorded run did.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from zoo import ZOO, Architecture
from zoo_more import available

import initlint
from initlint.errors import TargetError
from initlint.plugin import sensitivities
from initlint.session import open_session
from initlint.settings import ProbeSettings

RULES = ["exploding-gradient", "vanishing-gradient", "saturated-activations"]


@dataclass(frozen=True)
class Row:
    title: str
    plain: float
    normed: float
    decay: float
    said: str

    @property
    def line(self) -> str:
        numbers = (f"{value:.2g}" if value else "-" for value in (self.plain, self.normed, self.decay))
        return f"| {self.title} | {' | '.join(numbers)} | {self.said} |"


def measure(architecture: Architecture) -> Row:
    module, inputs = architecture.build()
    settings = ProbeSettings(inputs=inputs, backward=True)
    try:
        with open_session(module, settings) as session:
            model, signals = session.model, session.probe(settings)
        report = initlint.check(module, inputs, select=RULES)
    except TargetError as fault:  # a library's version that wants other inputs
        return Row(architecture.title, 0.0, 0.0, 0.0, f"not probed: {str(fault).partition(':')[0]}")
    grown = list(sensitivities(model, signals))
    plain, normed = (max((s.per_use for s in grown if s.normalised is each), default=0.0) for each in (False, True))
    kept = [s.ratio for s in sensitivities(model, signals, mildest=True) if not s.layer.bypassed]
    said = "; ".join(f"{f.severity} {f.rule} {f.address}" for f in report.findings)
    return Row(architecture.title, plain, normed, min(kept, default=0.0), said)


def text_of(rows: list[Row]) -> str:
    rows = sorted(rows, key=lambda row: -max(row.plain, row.normed))
    said = sum(bool(row.said) and not row.said.startswith("not probed") for row in rows)
    head = [
        "# Growth and decay in healthy architectures",
        "",
        "Written by `benchmarks/zoo_growth.py`, whose docstring explains the columns; the largest growth first.",
        "",
        f"{len(rows)} architectures, {said} with a finding.",
        "",
        "| architecture | growth, plain | growth, normed | decay | findings |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(row.line for row in rows)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="*", metavar="GLOB", help="titles of architectures")
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    rows = []
    for architecture in (*ZOO, *available()):
        if fnmatchcase(architecture.title, arguments.only):
            rows.append(measure(architecture))
            print(rows[-1].line, flush=True)
    if arguments.write:
        arguments.write.write_text(text_of(rows))


if __name__ == "__main__":
    main()
