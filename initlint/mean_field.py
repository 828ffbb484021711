"""What becomes of a signal on its way through random layers, predicted from statistics of the weights alone.

Mean-field theory (Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2017, arXiv:1611.01232), here with weights
and biases of any mean. Pure ``math``: no weights, no framework.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .activations import Activation

LOUDEST = 3.4e38
"""The largest float32: beyond it a signal is infinite."""

FAINTEST = 1e-290
"""Variances do not fall below it while something is left, so that a signal that fades is told from one that is cut."""

_END, _STEP = 5.0, 0.2
"""The trapezoidal rule over five standard deviations, 51 points: 1e-4 of a Gaussian's second moment."""

_LINEAR = 1e-10
"""A spread below this share of what surrounds it sees a straight line; differences would lose their digits."""

_NO_MEAN = 1e-3
"""Below this share of the power the mean of the weights does not show; chance alone gives 1 / units."""


@dataclass(frozen=True, slots=True)
class Field:
    """The pre-activations z of one layer, over units and inputs: the sum of a number and three independent Gaussians.

    ``mean``    is the number;
    ``shared``  the variance of what differs from input to input and is the same in all units;
    ``own``     the variance of what differs from input to input and from unit to unit;
    ``common``  the variance of what differs from unit to unit and is the same for all inputs.
    """

    mean: float = 0.0
    shared: float = 0.0
    own: float = 0.0
    common: float = 0.0

    @property
    def variance(self) -> float:
        return self.shared + self.own + self.common

    @property
    def rms(self) -> float:
        return math.sqrt(self.mean**2 + self.variance) if self.is_finite else math.inf

    @property
    def spread(self) -> float:
        """Standard deviation over inputs, as ``LayerSignal.std`` measures it."""
        return math.sqrt(self.shared + self.own) if self.is_finite else math.inf

    @property
    def is_finite(self) -> bool:
        return abs(self.mean) < LOUDEST and self.variance < LOUDEST**2


LOST = Field(math.inf, math.inf, math.inf, math.inf)
"""Beyond float32."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A linear map as the theory sees it: every weight drawn by itself with this mean and variance."""

    fan_in: int
    mean: float
    variance: float
    bias_mean: float = 0.0
    bias_variance: float = 0.0

    @property
    def power(self) -> float:
        """fan_in * E[w^2]: what the map multiplies a mean square by, where nothing has a mean."""
        return self.fan_in * (self.mean**2 + self.variance)

    @property
    def has_mean(self) -> bool:
        """Whether what all units get in common, n^2 mu^2 of n E[w^2], is worth following."""
        return self.mean**2 * self.fan_in > _NO_MEAN * (self.mean**2 + self.variance)


@dataclass(frozen=True, slots=True)
class Response:
    """A non-linearity's output h = f(z)."""

    mean: float
    power: float
    """E[h^2]."""
    spread: float
    """Variance over inputs within a unit, averaged over units."""
    shared: float
    """Variance over inputs of the average over units."""


def response(field: Field, function: Activation, has_mean: bool = True) -> Response:
    """What ``function`` makes of ``field``; ``shared`` is left at 0 unless the next layer's weights have a mean.

    With z = m + g + s + c (shared, own, common) and E over what an index names::

        mean = E[f(z)]     power = E[f(z)^2]     spread = E_c Var_gs f(z)     shared = Var_g E_sc f(z)

    The last two are nested integrals. Each inner variance is taken around its own mean, so that a spread of 1e-10
    beside a common part of 1 keeps its digits; a still smaller one sees the slope, spread = E[f'(z)^2] Var_gs z.
    """
    total, varying = field.variance, field.shared + field.own
    first, second = function.moments(field.mean, math.sqrt(total))
    if varying <= _LINEAR * (field.mean**2 + total):
        slope = function.slope_power(field.mean, math.sqrt(total))
        shared = slope_mean(function, field.mean, math.sqrt(total)) ** 2 * field.shared
        return Response(first, second, slope * varying, shared if has_mean else 0.0)
    spread = _inner_variance(function, field.mean, field.common, varying)
    shared = _outer_variance(function, field.mean, field.shared, field.own + field.common) if has_mean else 0.0
    return Response(first, second, spread, shared)


def forwards(before: Response, weights: Weights) -> Field:
    """The next layer's pre-activations z_i = sum_j w_ij h_j + b_i.

    With w = mu + w~ the sum splits into mu * sum_j h_j, the same in all units, and sum_j w~_ij h_j, a Gaussian of
    variance n Var[w] h^2 over the units (n = fan_in). Let A, P, V, U be mean, power, spread and shared of h, and
    C = P - A^2 - V what of h differs from unit to unit for all inputs alike. Then

        mean    = n mu A + E[b]
        shared  = mu^2 (n^2 U + n (V - U))        the sum over j, as it differs from input to input
        own     = n Var[w] V
        common  = n Var[w] (P - V) + n mu^2 C + Var[b]

    All parts together give E[z^2] = n Var[w] P + (n mu A + E[b])^2 + n mu^2 Var[h] + Var[b] where units are
    independent (U = 0). Without the n^2 U, the n mu A and the n mu^2 terms this is equation 3 of Poole et al. 2016;
    He et al. 2015 (equation 8) have no biases either. The means matter: of 64 inputs weights from uniform(0, 1) carry
    n mu A = 16 E[h] forwards, where their variance alone gives 1.6 of the rms of h.
    """
    n, mu, variance = weights.fan_in, weights.mean if weights.has_mean else 0.0, weights.variance
    if not weights.has_mean:
        variance += weights.mean**2
    rest = max(0.0, before.power - before.mean**2 - before.spread)
    own_units = max(0.0, before.spread - before.shared)
    field = Field(
        mean=n * mu * before.mean + weights.bias_mean,
        shared=mu**2 * (n * n * before.shared + n * own_units),
        own=max(n * variance * before.spread, FAINTEST) if variance > 0 and before.spread > 0 else 0.0,
        common=n * variance * max(0.0, before.power - before.spread) + n * mu**2 * rest + weights.bias_variance,
    )
    return field if field.is_finite else LOST


def predict(start: Field, layers: Iterable[tuple[Activation, Weights]]) -> Iterator[Field]:
    """The pre-activations of each layer in turn; ``start`` is what the first one's function makes its input of.

    Ends where the signal has outgrown float32, where a function cannot be evaluated so far out, and behind weights of
    negative mean, if what all units share is then most of the signal: it is one-sided, and a Gaussian's other tail,
    which a rectifier would let through, is not there: predictions are off by 1e6 after 20 layers.
    """
    field = start
    for function, weights in layers:
        try:
            field = forwards(response(field, function, weights.has_mean), weights)
        except OverflowError:
            field = LOST
        if math.isnan(field.rms):
            return
        yield field
        one_sided = weights.has_mean and weights.mean < 0 and field.shared > field.own + field.common
        if one_sided or not field.is_finite:
            return


def slope_power(field: Field, function: Activation, weights: Weights) -> float:
    """chi = n E[w^2] E[f'(z)^2]: what one layer multiplies the square of a small perturbation by.

    Poole et al. 2016, equation 6. Above 1 close inputs part (chaos), below 1 they meet; squared gradients feel the
    same factor on their way back.
    """
    return weights.power * function.slope_power(field.mean, math.sqrt(field.variance))


def depth_scale(factor: float) -> float:
    """Layers in which a power falls to 1/e, or grows e-fold, if each multiplies it by ``factor``: 1 / |ln factor|.

    Schoenholz et al. 2017, section 3: nets train up to about 6 of them deep. Infinite at 1, 0 where nothing is left.
    """
    if factor <= 0 or math.isinf(factor):
        return 0.0
    return math.inf if factor == 1 else 1 / abs(math.log(factor))


def layers_until(share: float, per_layer: float) -> int:
    """After how many layers, each of which keeps ``per_layer``, less than ``share`` is left; 0 if that never comes."""
    if not 0 < per_layer < 1:
        return 0 if per_layer >= 1 else 1
    return math.floor(math.log(share) / math.log(per_layer)) + 1


def slope_mean(function: Activation, mean: float, std: float) -> float:
    """E[f'(z)] for z ~ N(mean, std^2)."""
    points = _gaussian(mean, std)
    return sum(weight * function.slope(z) for z, weight in points)


def _inner_variance(function: Activation, mean: float, outer: float, inner: float) -> float:
    """The mean over the outer Gaussian of the variance over the inner one."""
    return sum(weight * _moments(function, at, math.sqrt(inner))[1] for at, weight in _gaussian(mean, math.sqrt(outer)))


def _outer_variance(function: Activation, mean: float, outer: float, inner: float) -> float:
    """The variance over the outer Gaussian of the mean over the inner one."""
    if outer == 0.0:
        return 0.0
    points = _gaussian(mean, math.sqrt(outer))
    means = [_moments(function, at, math.sqrt(inner))[0] for at, _ in points]
    middle = sum(weight * each for (_, weight), each in zip(points, means, strict=True))
    return sum(weight * (each - middle) ** 2 for (_, weight), each in zip(points, means, strict=True))


def _moments(function: Activation, mean: float, std: float) -> tuple[float, float]:
    """Mean and variance of f over N(mean, std^2)."""
    points = _gaussian(mean, std)
    values = [function(z) for z, _ in points]
    middle = sum(weight * value for (_, weight), value in zip(points, values, strict=True))
    return middle, sum(w * (value - middle) ** 2 for (_, w), value in zip(points, values, strict=True))


_COUNT = round(_END / _STEP)
_NODES = tuple(_STEP * k for k in range(-_COUNT, _COUNT + 1))
_TOTAL = sum(math.exp(-0.5 * t * t) for t in _NODES)
_MASSES = tuple(math.exp(-0.5 * t * t) / _TOTAL for t in _NODES)


def _gaussian(mean: float, std: float) -> list[tuple[float, float]]:
    """Points and masses of N(mean, std^2); a single one where it has no width."""
    if std == 0.0:
        return [(mean, 1.0)]
    return [(mean + std * t, mass) for t, mass in zip(_NODES, _MASSES, strict=True)]
