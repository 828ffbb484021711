"""What rules may be calibrated on, and what is only reported on.

Both axes are split: a cell is for calibration where its family and its initialisation both are. Chosen by kind, before
any training of a fault and any verdict: of every kind of architecture and of fault there is something on both sides.
What was only reported on was looked at once, on 2026-11-23 (``trainability.py``).
"""

from __future__ import annotations

CALIBRATION_FAMILIES = frozenset(
    {
        "relu-8",
        "tanh-5",
        "gelu-wave-4",
        "batch-norm-4",
        "residual",
        "gated",
        "convolutional",
        "depthwise",
        "autoencoder",
        "experts",
        "heads",
        "encoder",
        "lstm",
    }
)

CALIBRATION_INITIALISATIONS = frozenset(
    {
        # healthy and idioms
        "twin",
        "torch default",
        "He normal",
        "Xavier uniform",
        "zero branch ends",
        "zero head",
        "LoRA",
        "forget bias 1",
        "GPT-2",
        "adaLN zero",
        "bias 0.1",
        "tables of std 0.02",
        # zeros, constants, copies
        "zeros in one",
        "zeros in all",
        "zero LoRA pair",
        "constant in one",
        "constant in all",
        "half of the units copied",
        "zero gains",
        # scales and shapes
        "x100 in one",
        "x100 in all",
        "x0.1 in all",
        "x0.01 in one",
        "x0.01 in all",
        "x10 in one",
        "std 1 in all",
        "std 0.01 in all",
        "uniform(0, 1) in all",
        "fan of the whole tensor",
        "rank one in one",
        "99 % zeros in all",
        # biases, garbage
        "bias -1",
        "bias -20",
        "bias +5",
        "one NaN",
    }
)


def calibrates(family: str, initialisation: str) -> bool:
    return family in CALIBRATION_FAMILIES and initialisation in CALIBRATION_INITIALISATIONS
