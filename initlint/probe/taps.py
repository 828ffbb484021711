"""Where a loader wants the probe to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..kinds import Kind
from ..model import Layer


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
    samples: bool = False
    """Tell samples from places: look at what differs from sample to sample at the same place."""


_OF_ONE_SAMPLE = frozenset({Kind.LAYER_NORM, Kind.GROUP_NORM, Kind.RMS_NORM})
"""Norms that make up for any scale and leave what all samples have in common."""


def tap_of(layer: Layer, value: str, unit_axis: int, again: tuple[str, ...], units: tuple[int, int] | None) -> Tap:
    """Where to measure what ``layer`` gives; samples are told from places where a norm hides what drowns them."""
    samples = layer.kind in _OF_ONE_SAMPLE and not layer.bypassed and not again
    return Tap(layer.name, value, unit_axis, layer.flat if layer.norm_after is None else None, again, units, samples)


def sample_axes(tap_axis: int, shape: Sequence[int], batch: int) -> tuple[int, ...]:
    """The axes along which the samples may lie: as long as the batch; none where there are no places beside them."""
    if len(shape) < 3 or batch < 2:
        return ()
    return tuple(axis for axis, size in enumerate(shape) if size == batch and axis != tap_axis % len(shape))


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
    joining: tuple[str, ...] = ()
    """Addresses of the tensors that join on the way from these layers: scales, biases by position."""
