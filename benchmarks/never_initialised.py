"""Healthy builders stay silent; tensors that nobody initialises are named.

    PYTHONPATH=. python benchmarks/never_initialised.py

First every architecture of the zoo as a builder, checked by uninitialized-memory and seed-independent-weights. Then one
tensor at a time is made forgotten (fresh memory) or fixed (drawn from a generator of its own) at the end of the
builder, a few per architecture, and looked for.

    64 builders, 0 with findings
    forgotten: 52 of 52 found, with no other finding
    fixed generator: 52 of 52 found, with no other finding
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import nn
from zoo import ZOO, Architecture, Built

import initlint
from initlint.report import Report

RULES = ["uninitialized-memory", "seed-independent-weights"]
PLANTED_IN = 12
PER_MODEL = 4
FEWEST_DRAWN = 256
"""Values of a tensor that is drawn from a fixed generator: below 48 none is called drawn."""


def main() -> None:
    warnings.simplefilter("ignore")
    loud = 0
    for architecture in ZOO:
        report = initlint.check(architecture.construct, select=RULES, no_probe=True)
        loud += bool(report.findings)
        for finding in report.findings:
            print(f"  {architecture.title}: {finding.severity} {finding.rule} {finding.address}: {finding.message}")
    print(f"{len(ZOO)} builders, {loud} with findings")
    for name, plant, rule in (
        ("forgotten", forgotten, "uninitialized-memory"),
        ("fixed generator", fixed, "seed-independent-weights"),
    ):
        tried = exact = 0
        for architecture in ZOO[:: len(ZOO) // PLANTED_IN]:
            for address in addresses(architecture, plant is fixed):
                report = initlint.check(planted(architecture, address, plant), select=RULES, no_probe=True)
                tried += 1
                exact += found(report) == [(rule, address)]
        print(f"{name}: {exact} of {tried} found, with no other finding")


def found(report: Report) -> list[tuple[str, str]]:
    return [(finding.rule, finding.address) for finding in report.findings]


def addresses(architecture: Architecture, drawn: bool) -> list[str]:
    """Trainable parameters, evenly spread over the model."""
    parameters = dict(architecture.construct()[0].named_parameters())
    names = [
        name for name, value in parameters.items() if not drawn or (value.numel() >= FEWEST_DRAWN and value.ndim > 1)
    ]
    return names[:: max(1, len(names) // PER_MODEL)][:PER_MODEL]


def planted(
    architecture: Architecture, address: str, plant: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[], Built]:
    def build() -> Built:
        module, inputs = architecture.construct()
        owner, _, name = address.rpartition(".")
        holder = module.get_submodule(owner)
        setattr(holder, name, nn.Parameter(plant(getattr(holder, name).detach())))
        return module, inputs

    return build


def forgotten(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor)


def fixed(tensor: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(tensor.shape, generator=generator) * 0.02


if __name__ == "__main__":
    main()
