"""What a probe measures. Plain frozen data: no runtime, no framework."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ..model import NotChecked


class Forward(StrEnum):
    """How the forward signals were got."""

    MEASURED = "measured"
    NONE = "none"


class Backward(StrEnum):
    """How the gradients were got."""

    EXACT = "exact"
    ESTIMATED = "estimated"
    NONE = "none"


class Loss(StrEnum):
    """Which loss drove the backward pass."""

    GIVEN = "given"
    RANDOM_LINEAR = "random-linear"
    NONE = "none"


@dataclass(frozen=True)
class LayerSignal:
    """The output of one layer before its non-linearity, over the probe batch.

    Per-unit arrays have one float32 per unit (channel or feature), statistics being taken over samples and positions.
    A non-finite statistic means that the unit's values were non-finite or overflowed float32.
    """

    samples: int
    """Values per unit that the statistics rest on: batch times positions, summed over runs."""
    rms: float
    """Root of the mean square of all values."""
    mean: float
    std: float
    """Root of the mean over units of the variance within a unit: the part of the signal that depends on the input."""
    absmax: float
    nonfinite: float
    """Share of values that are NaN or infinite, 0 to 1."""
    saturated: float
    """Share of values in the flat part of the consuming non-linearity (``activations``); 0 where it has none."""
    unit_mean: array[float]
    unit_std: array[float]
    unit_max: array[float]
    unit_saturated: array[float]
    """Empty where the consuming non-linearity does not saturate."""


@dataclass(frozen=True, slots=True)
class NonFiniteOrigin:
    """The first operation that turned finite values into NaN or infinity."""

    layer: str
    """The first layer that shows it, or empty."""
    operation: str
    """Operator and place, as in "Div at /weight_norm/Div"."""
    tensors: tuple[str, ...]
    """Addresses of the stored tensors that reach the operation without passing an activation."""
    kind: str
    """"nan", "inf", or "overflow" (values outgrew float32)."""


@dataclass(frozen=True)
class Signals:
    """One probe's measurements; ``forward`` is NONE with a ``reason`` where it could not run."""

    forward: Forward
    reason: str = ""
    batch: int = 0
    runs: int = 0
    seed: int = 0
    layers: Mapping[str, LayerSignal] = field(default_factory=dict)
    """By layer name; a layer that is missing was not reached or not measurable (see ``not_probed``)."""
    outputs: Mapping[str, LayerSignal] = field(default_factory=dict)
    """By graph output name."""
    input_rms: float = 0.0
    """Root mean square of the floating-point inputs; 0 where all inputs are integers."""
    origin: NonFiniteOrigin | None = None
    not_probed: tuple[NotChecked, ...] = ()
