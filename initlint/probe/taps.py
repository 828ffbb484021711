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
