"""Do findings depend on the probe's seed, on the batch, on its size, or on the precision of the weights?

    python benchmarks/stability.py [--only GLOB] [--write benchmarks/results/stability.md]

Every bug of ``benchmarks/cases`` as it was, and every idiom, is checked

- five times, each time with another seed of the probe and another batch of 32 samples of its task;
- with 8 samples and with 32;
- in float32 and in bfloat16, by the rules that read nothing but weights.

Compared are the headlines (rule, address, severity), notes included. The bar: equal everywhere. What is not is listed
with what the runs said, for a threshold that a measured number straddles has to be seen to be judged.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from bugs import BUGS, IDIOMS
from cases.case import Bug, Idiom
from torch import Tensor, nn
from training import tasks

import initlint
from initlint import catalog
from initlint.plugin import Needs
from initlint.trial import MEASURED

SEEDS, SMALL, LARGE = 5, 8, 32

Told = frozenset[tuple[str, str, str]]


@dataclass(frozen=True)
class Comparison:
    name: str
    what: str
    told: tuple[Told, ...]

    @property
    def holds(self) -> bool:
        return len(set(self.told)) == 1

    def __str__(self) -> str:
        common = frozenset.intersection(*self.told)
        differing = [sorted(" ".join(each) for each in told - common) for told in self.told]
        return f"{self.name}, {self.what}: " + " | ".join("; ".join(each) or "nothing more" for each in differing)


def headlines(module: nn.Module, inputs: tuple[Tensor, ...], seed: int, select: tuple[str, ...] = ()) -> Told:
    settings = {"select": list(select)} if select else {}
    report = initlint.check(module, inputs, seed=seed, **settings)
    return frozenset((each.rule, each.address, str(each.severity)) for each in report.headlines)


def static_rules() -> tuple[str, ...]:
    """Those that read nothing but weights and structure."""
    return tuple(r.name for r in catalog.load_rules() if not (r.needs | r.uses) & (MEASURED | Needs.BUILDS))


def compared(name: str, build: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]) -> Iterator[Comparison]:
    module, data = build()
    enough = min(len(each) for each in data)
    batches = [tuple(each[(LARGE * s) % enough :][:LARGE] for each in data) for s in range(SEEDS)]
    usable = [batch if len(batch[0]) == min(LARGE, enough) else batches[0] for batch in batches]
    yield Comparison(name, "seeds", tuple(headlines(module, batch, seed) for seed, batch in enumerate(usable)))
    few = tuple(each[:SMALL] for each in usable[0])
    yield Comparison(name, "batch size", (headlines(module, few, 0), headlines(module, usable[0], 0)))
    if all(not each.is_complex() for each in module.parameters()):
        single = headlines(module, usable[0], 0, static_rules())
        half = module.to(torch.bfloat16)  # some modules compute in float32 whatever they are given
        inputs = tuple(each.to(torch.bfloat16) if each.is_floating_point() else each for each in usable[0])
        try:
            yield Comparison(name, "bfloat16", (single, headlines(half, inputs, 0, static_rules())))
        except initlint.InitlintError as refusal:
            print(f"{name}, bfloat16: not compared: {refusal}", flush=True)


def built(case: Bug | Idiom) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    made = case.build(True) if isinstance(case, Bug) else case.build()
    if isinstance(made, tuple):
        return made[0], tuple(made[1])
    return made, tasks()[case.task].train


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="*", help="pattern of names of cases")
    parser.add_argument("--write", type=Path, help="also write the report to this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found: list[Comparison] = []
    for case in (*BUGS, *IDIOMS):
        if fnmatchcase(case.name, arguments.only):
            for comparison in compared(case.name, lambda case=case: built(case)):
                found.append(comparison)
                if not comparison.holds:
                    print(comparison, flush=True)
    lines = ["# Stability", ""]
    for what in ("seeds", "batch size", "bfloat16"):
        mine = [each for each in found if each.what == what]
        lines.append(f"- {what}: {sum(each.holds for each in mine)} of {len(mine)} equal")
    text = "\n".join([*lines, "", *(f"- {each}" for each in found if not each.holds), ""])
    print(text)
    if arguments.write:
        arguments.write.write_text(text)
    return int(not all(each.holds for each in found))


if __name__ == "__main__":
    sys.exit(main())
