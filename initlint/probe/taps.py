"""Where a loader wants the probe to measure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tap:
    """Measure ``value`` (a name in the main graph, after inlining) as the output of ``layer``.

    ``unit_axis`` is the axis of the units (channels or features), counted from the front or, if negative, the back.
    ``flat`` is the interval outside which the consuming non-linearity is flat, or None.
    """

    layer: str
    value: str
    unit_axis: int
    flat: tuple[float, float] | None = None
    again: tuple[str, ...] = ()
    """What the layer gave at its other calls."""
    units: tuple[int, int] | None = None
    """First unit of the layer and first one behind its last, where the value holds other layers' too."""


@dataclass(frozen=True, slots=True)
class SoftmaxTap:
    """Look at the rows of logits that one softmax normalises."""

    name: str
    """The place in the network; unique."""
    value: str
    """The logits, where they are a value of the graph; empty for a fused attention."""
    result: str
    axis: int
    flattens: bool
    """It runs over all axes from ``axis`` on, as it did before opset 13."""
    layers: tuple[str, ...]
    """Names of the layers that its logits come from directly: a head, or queries and keys."""
    attention: bool
    """The logits are a product of two live tensors."""
    at_output: bool
    """What it gives leaves the network."""
