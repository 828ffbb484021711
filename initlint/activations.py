"""What theory knows of each non-linearity: its function, its gain at unit input, where it is flat, where it is dead.

Pure ``math``: rules and the command line may import it without numpy.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

Function = Callable[[float], float]

FLAT_SHARE = 0.01
"""A point is flat where the slope is below this share of the steepest slope: back-propagated gradients lose a factor
of 100 there. Gives |z| > 2.99 for tanh and |z| > 5.99 for the sigmoid; Glorot & Bengio 2010 (section 3) call sigmoid
units saturated from about the same point."""

_GRID_END = 12.0
_GRID_STEP = 0.01


@dataclass(frozen=True, slots=True)
class Affine:
    """``factor`` times a value plus ``offset``; not ``known`` where it is another one for every unit, or curved."""

    factor: float = 1.0
    offset: float = 0.0
    known: bool = True

    def __call__(self, z: float) -> float:
        return self.factor * z + self.offset

    def then(self, factor: float, offset: float) -> Affine:
        """This, and then another one of its result."""
        return Affine(factor * self.factor, factor * self.offset + offset, self.known)

    def where(self, z: float) -> float:
        """The value of which this is ``z``."""
        return (z - self.offset) / self.factor


SAME = Affine()
UNKNOWN = Affine(known=False)


@dataclass(frozen=True)
class Activation:
    """One element-wise non-linearity."""

    name: str
    function: Function
    dead_below: float | None = None
    """Pre-activations below this give a zero (or vanishing) slope for good: a unit that stays there cannot recover."""
    bounded: bool = False
    """Both tails flatten out."""

    def __call__(self, z: float) -> float:
        return self.function(z)

    def moments(self, mean: float = 0.0, std: float = 1.0) -> tuple[float, float]:
        """(E[f(z)], E[f(z)^2]) for z ~ N(mean, std^2), by the trapezoidal rule over 12 standard deviations."""
        if not (math.isfinite(mean) and math.isfinite(std)):
            return (math.nan, math.nan)
        first = second = total = 0.0
        for step in range(-300, 301):
            t = step * 0.04
            weight = math.exp(-0.5 * t * t)
            value = self.function(mean + std * t)
            total += weight
            first += weight * value
            second += weight * value * value
        return (first / total, second / total)

    def slope_power(self, mean: float = 0.0, std: float = 1.0) -> float:
        """E[f'(z)^2] for z ~ N(mean, std^2), by the trapezoidal rule: what squared gradients are multiplied by.

        Wide distributions are integrated over -12 to 12, beyond which every function in use goes straight on.
        """
        if not (math.isfinite(mean) and math.isfinite(std)):
            return math.nan
        if std <= 1.0:
            points = [mean + std * 0.04 * step for step in range(-300, 301)]
        else:
            points = [_GRID_END * step / 600 for step in range(-600, 601)]
        width = max(std, 1e-12)
        weights = [math.exp(-0.5 * ((z - mean) / width) ** 2) for z in points]
        if std <= 1.0:
            return sum(w * self.slope(z) ** 2 for w, z in zip(weights, points, strict=True)) / sum(weights)
        density = _GRID_END / 600 / (width * math.sqrt(2 * math.pi))
        inside = sum(w * self.slope(z) ** 2 for w, z in zip(weights, points, strict=True)) * density
        below = 0.5 * math.erfc((_GRID_END + mean) / (width * math.sqrt(2)))
        above = 0.5 * math.erfc((_GRID_END - mean) / (width * math.sqrt(2)))
        return inside + below * self.slope(-_GRID_END) ** 2 + above * self.slope(_GRID_END) ** 2

    def slope(self, z: float) -> float:
        """f'(z), from both sides."""
        return (self.function(z + 1e-4) - self.function(z - 1e-4)) / 2e-4

    @property
    def has_flat_side(self) -> bool:
        """Whether it passes nothing on at the negative side, or ends at both: a unit may get lost there."""
        return self.bounded or self(-1.0) == 0.0

    @cached_property
    def standard_moments(self) -> tuple[float, float]:
        """The moments at z ~ N(0, 1)."""
        return self.moments()

    @cached_property
    def gain(self) -> float:
        """1 / sqrt(E[f(z)^2]) at z ~ N(0, 1): weights of variance gain^2 / fan_in keep the mean square at 1.

        relu 1.414, tanh 1.59, selu 1.0, gelu 1.53 (Klambauer et al. 2017; He et al. 2015, equation 9).
        """
        second = self.standard_moments[1]
        return 1.0 / math.sqrt(second) if second > 0 else 1.0

    @cached_property
    def flat(self) -> tuple[float, float] | None:
        """(low, high): outside this interval the slope is below FLAT_SHARE of the steepest; None unless bounded."""
        if not self.bounded:
            return None
        count = int(2 * _GRID_END / _GRID_STEP)
        points = [-_GRID_END + i * _GRID_STEP for i in range(count + 1)]
        values = [self.function(z) for z in points]
        slopes = [abs(b - a) for a, b in pairwise(values)]
        steep = [i for i, slope in enumerate(slopes) if slope >= FLAT_SHARE * max(slopes)]
        return (round(points[steep[0]], 2), round(points[steep[-1] + 1], 2))


def _sigmoid(z: float) -> float:
    if z >= 0:
        return 1.0 / (1.0 + math.exp(-z))
    e = math.exp(z)
    return e / (1.0 + e)


def _softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def _relu(z: float) -> float:
    return max(z, 0.0)


def _expm1(z: float) -> float:
    return math.expm1(min(z, 0.0))


def _gelu(z: float) -> float:
    return 0.5 * z * (1.0 + math.erf(z / math.sqrt(2.0)))


def _gelu_tanh(z: float) -> float:
    return 0.5 * z * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z**3)))


def _clip(low: float, high: float) -> Function:
    return lambda z: min(max(z, low), high)


_SELU_SCALE = 1.0507009873554805
_SELU_ALPHA = 1.6732632423543772

_SLOW_EXP_END = 60.0
"""exp() of more is never reached by a sane pre-activation; clipping keeps moments finite."""

_TABLE = (
    Activation("identity", lambda z: z),
    Activation("relu", _relu, dead_below=0.0),
    Activation("relu6", _clip(0.0, 6.0), dead_below=0.0),
    Activation("squared-relu", lambda z: _relu(z) ** 2, dead_below=0.0),
    Activation("leaky-relu", lambda z: z if z > 0 else 0.01 * z),
    Activation("prelu", lambda z: z if z > 0 else 0.25 * z),
    Activation("elu", lambda z: _relu(z) + _expm1(z)),
    Activation("celu", lambda z: _relu(z) + _expm1(z)),
    Activation("selu", lambda z: _SELU_SCALE * (_relu(z) + _SELU_ALPHA * _expm1(z))),
    Activation("gelu", _gelu, dead_below=-4.0),
    Activation("gelu-tanh", _gelu_tanh, dead_below=-4.0),
    Activation("quick-gelu", lambda z: z * _sigmoid(1.702 * z), dead_below=-6.0),
    Activation("silu", lambda z: z * _sigmoid(z), dead_below=-9.0),
    Activation("mish", lambda z: z * math.tanh(_softplus(z)), dead_below=-9.0),
    Activation("hard-swish", lambda z: z * min(max(z + 3.0, 0.0), 6.0) / 6.0, dead_below=-3.0),
    Activation("hard-sigmoid", lambda z: min(max(z / 6.0 + 0.5, 0.0), 1.0), bounded=True),
    Activation("sigmoid", _sigmoid, bounded=True),
    Activation("tanh", math.tanh, bounded=True),
    Activation("hard-tanh", _clip(-1.0, 1.0), bounded=True),
    Activation("softsign", lambda z: z / (1.0 + abs(z)), bounded=True),
    Activation("erf", math.erf, bounded=True),
    Activation("softplus", _softplus),
    Activation("log-sigmoid", lambda z: -_softplus(-z)),
    Activation("abs", abs),
    Activation("square", lambda z: z * z),
    Activation("exp", lambda z: math.exp(min(z, _SLOW_EXP_END))),
    Activation("sin", math.sin),
    Activation("cos", math.cos),
    Activation("sign", lambda z: float((z > 0) - (z < 0))),
    Activation("softmax", lambda z: z),
    Activation("log-softmax", lambda z: z),
    Activation("elementwise", lambda z: z),
)
"""``leaky-relu`` and ``prelu`` stand for every slope; ``softmax``, ``log-softmax`` and ``elementwise`` (a non-linearity
nobody has named) have no gain of their own and are treated as the identity. The ``dead_below`` of smooth functions is
where the slope has fallen below 1e-3."""

TABLE = {activation.name: activation for activation in _TABLE}

PERIODIC = frozenset({"sin", "cos"})
"""A loud pre-activation is no fault before these: Fourier features and SIREN scale it on purpose."""

ENDING_AT_ZERO = frozenset({"sigmoid", "hard-sigmoid", "softplus", "exp"})
"""What gates go through: for very negative values they are as good as zero, and so are their slopes."""


@cache
def get(name: str) -> Activation:
    """The activation of that name; unknown names behave like the identity."""
    return TABLE.get(name, TABLE["identity"])


_PER_DECADE = 12
_POSITIVE = tuple(math.pow(10.0, step / _PER_DECADE) for step in range(-3 * _PER_DECADE, 2 * _PER_DECADE + 1))
GRID = (*(-z for z in reversed(_POSITIVE)), 0.0, *_POSITIVE)
"""Where functions are evaluated that nobody has named: from 1e-3 to 1e2 on both sides, 12 points a decade. A straight
line between neighbours is off by z^2 |f''| / 200: half a per cent where a curve bends by its own size."""


@cache
def tabulated(values: tuple[float, ...], name: str = "elementwise") -> Activation:
    """The function with these ``values`` on ``GRID``, straight between its points and beyond its ends."""
    return Activation(name, lambda z: _interpolated(values, z))


def _interpolated(values: tuple[float, ...], z: float) -> float:
    right = min(max(bisect_right(GRID, z), 1), len(GRID) - 1)
    left, low, high = right - 1, values[right - 1], values[right]
    return low + (high - low) * (z - GRID[left]) / (GRID[right] - GRID[left])
