"""Initialisation schemes: recognise them from weight statistics, and draw from them.

Recognition needs no weights and no numpy. First the family: uniform, truncated normal and normal are told apart by
their likelihoods, each of which is a function of the count, the mean square and the largest magnitude alone, and kept
only where the kurtosis fits. Then the scale: each scheme predicts one variance from the fans, and is weighed against
the others by the sampling error of the variance (of the largest magnitude, for the uniform).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from .fans import NO_FANS, Fans, fans
from .model import Layer, View
from .stats import WeightStats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Guess:
    """What a tensor looks like; where two schemes coincide, both are named: "xavier_normal|lecun_normal"."""

    scheme: str
    confidence: float


UNRECOGNISED = Guess("unrecognised", 0.0)


def recognise(stats: WeightStats, fans: Fans = NO_FANS) -> Guess:
    """The scheme that ``stats`` looks like, with a confidence between 0 and 1."""
    if stats.count == 0 or stats.nan or stats.inf:
        return UNRECOGNISED
    if stats.constant:
        return Guess(_constant(stats.max), 1.0)
    structured = _identity(stats, fans) or _orthogonal(stats, fans)
    if structured is not None:
        return structured
    if stats.zeros > _SPARSE * stats.count:
        return _sparse(stats)
    return _distribution(stats, fans)


_SPARSE = 0.05
"""Share of exact zeros that no continuous distribution explains; int8 quantisation of a normal leaves about 1 %."""


def _constant(value: float) -> str:
    return {0.0: "zeros", 1.0: "ones"}.get(value, f"constant({value:.4g})")


def _identity(stats: WeightStats, fans: Fans) -> Guess | None:
    """The identity, or a Dirac kernel: one equal entry per row or column (Le et al. 2015, IRNN)."""
    ones = min(fans.matrix)
    if ones < 2 or stats.min != 0.0 or stats.count - stats.zeros != ones:
        return None
    if not math.isclose(stats.mean * stats.count, stats.max * ones, rel_tol=1e-5) or stats.orthogonality > 1e-3:
        return None
    return Guess("identity" if math.isclose(stats.max, 1.0) else f"identity(gain={stats.max:.4g})", 0.99)


_SQUARE = 0.05
"""A mean cosine below this share of what noise shows; with 28 pairs noise itself scatters by 0.13 around 1."""

_TELLING = 4
"""Fewer vectors have too few pairs: that the cosine of 2 is this small has a probability of 4 %."""


def _orthogonal(stats: WeightStats, fans: Fans) -> Guess | None:
    """Semi-orthogonal matrices (Saxe et al. 2014, section 3): the shorter side's vectors are orthonormal."""
    rows, columns = fans.matrix
    if min(rows, columns) < _TELLING or stats.orthogonality > _SQUARE:
        return None
    gain = math.sqrt(stats.mean_square * max(rows, columns))
    if rows <= columns and stats.unit_spread > 1e-3:
        return None
    return Guess("orthogonal" if math.isclose(gain, 1.0, rel_tol=0.01) else f"orthogonal(gain={gain:.3g})", 0.99)


def _sparse(stats: WeightStats) -> Guess:
    """Normal values among zeros (Martens 2010, section 5)."""
    dense = 1.0 - stats.zeros / stats.count
    kurtosis = (stats.kurtosis + 3.0) * dense - 3.0
    if abs(kurtosis) > _FIT * math.sqrt(24.0 / (stats.count * dense)):
        return UNRECOGNISED
    std = math.sqrt(stats.mean_square / dense)
    return Guess(f"sparse(sparsity={1.0 - dense:.2g}, std={std:.3g})", 0.9)


@dataclass(frozen=True, slots=True)
class _Family:
    """A shape of distribution around 0."""

    suffix: str
    kurtosis: float
    kurtosis_spread: float
    """Standard deviation of the sample kurtosis times sqrt(n)."""
    prior: float
    """How common the family is."""


# Truncation at 2 sigma, as Keras, JAX and TensorFlow do it: mass 0.9545, standard deviation 0.8796 sigma, excess
# kurtosis -0.634. Spreads of the sample kurtosis: sqrt(24) for the normal (Fisher 1930), the others by simulation.
_UNIFORM = _Family("uniform", -1.2, 1.16, 1.0)
_TRUNCATED = _Family("truncated_normal", -0.634, 1.95, 0.3)
_NORMAL = _Family("normal", 0.0, math.sqrt(24.0), 1.0)
_TRUNCATED_MASS = 0.9544997

_FIT = 5.0
"""Standard errors that a kurtosis or a mean may be off; at 5 one tensor in a million is misjudged."""

_SMALL_SAMPLE = 3.0
"""Added to the kurtosis' error bar as this over n: the sample kurtosis is biased by about -6/(n+1) for a normal."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a recognised distribution around 0 is told apart by."""

    family: _Family
    share: float
    """Probability that it is this family."""
    count: int
    log_variance: float
    peak: float


def _distribution(stats: WeightStats, fans: Fans) -> Guess:
    found = _shape(stats)
    if found is None:
        return UNRECOGNISED
    if not _is_centred(stats):
        return Guess(_shifted(found.family, stats), found.share)
    name, certainty = _scheme(found, fans)
    return Guess(name, found.share * certainty)


def _is_centred(stats: WeightStats) -> bool:
    return abs(stats.mean) <= _FIT * stats.std / math.sqrt(stats.count)


def _shape(stats: WeightStats) -> _Shape | None:
    n = stats.count
    centred = _is_centred(stats)
    middle = 0.0 if centred else _middle(stats)
    peak = max(stats.max - middle, middle - stats.min)
    square = stats.mean_square if centred else stats.std * stats.std
    if square <= 0.0 or peak <= 0.0 or n < 3:
        return None
    family, share = _family(n, square, peak, stats)
    return None if family is None else _Shape(family, share, n, math.log(square), peak)


@dataclass(frozen=True, slots=True)
class Misfit:
    """A scheme drawn with other fans than the layer's own."""

    scheme: str
    factor: float
    """The variance it has over the one it would have with the layer's own fans."""


def misfit(layer: Layer, stats: WeightStats) -> Misfit | None:
    """Whether the layer's weight fits a scheme with some ``alternatives`` of its fans, and none with its own.

    What PyTorch draws by default fits, whatever fans it was drawn with.
    """
    if stats.count == 0 or stats.nan or stats.inf or stats.constant or layer.weight.parts:
        return None
    found, known = _shape(stats), fans(layer, layer.weight)
    if found is None or not known.alternatives or not _is_centred(stats) or not (known.fan_in and known.fan_out):
        return None
    suffix, own = found.family.suffix, (known.fan_in, known.fan_out)
    proper = {each.name: each.variance for each in _fan_schemes(suffix, *own, 1.0, both=True)}
    fitting = max(_likelihood(each, found) for each in _candidates(found.family, known) if not each.foreign)
    ranked = [
        (_likelihood(each, found), each.name, each.variance / proper[each.name])
        for pair in known.alternatives
        for each in _fan_schemes(suffix, *pair, 0.5, both=True)
        if "gain" not in each.name  # too many numbers to tell a coincidence from a cause
    ]
    likelihood, scheme, factor = max(ranked)
    return Misfit(scheme, factor) if likelihood >= _OTHER and fitting < _ALIKE * likelihood else None


def _middle(stats: WeightStats) -> float:
    """The centre of a shifted distribution: between the ends where it fills its range evenly, else the mean."""
    flat = stats.kurtosis < (_UNIFORM.kurtosis + _TRUNCATED.kurtosis) / 2.0
    return (stats.min + stats.max) / 2.0 if flat else stats.mean


def _shifted(family: _Family, stats: WeightStats) -> str:
    if family is _UNIFORM:
        return f"uniform({stats.min:.2g}, {stats.max:.2g})"
    return f"{family.suffix}(mean={stats.mean:.3g}, std={stats.std:.3g})"


def _family(n: int, square: float, peak: float, stats: WeightStats) -> tuple[_Family | None, float]:
    """The likeliest family whose kurtosis fits, and its posterior probability."""
    relative = peak * peak / square
    sigma = peak / 2.0  # the truncated normal's own parameter, before truncation
    truncated = math.log(math.sqrt(2.0 * math.pi) * _TRUNCATED_MASS * sigma) + 2.0 / relative
    # Log-likelihoods at the best scale, plus the log width of the range of log scales that is nearly as likely.
    evidence = {
        _UNIFORM: -n * math.log(2.0 * peak) - math.log(n),
        _TRUNCATED: -n * truncated - math.log(n * max(1.0 - 4.0 / relative, 1.0 / n)),
        _NORMAL: -0.5 * n * math.log(2.0 * math.pi * math.e * square) + 0.5 * math.log(math.pi / n),
    }
    most = max(evidence.values())
    weights = {family: family.prior * math.exp(max(each - most, -700.0)) for family, each in evidence.items()}
    family = max(weights, key=lambda each: weights[each])
    slack = _FIT * (family.kurtosis_spread / math.sqrt(n)) + 2.0 * _SMALL_SAMPLE / n
    if abs(stats.kurtosis - family.kurtosis) > slack:
        return None, 0.0
    return family, weights[family] / sum(weights.values())


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    variance: float
    prior: float
    foreign: bool = False
    """Of fans that are not the layer's own; not so of PyTorch's default, which is what it is."""


_FIXED = (0.02, 0.01, 1.0, 0.001, 0.005, 0.05, 0.1, 0.2)
"""Standard deviations that people write; 0.02 is GPT-2's (Radford et al. 2019) and BERT's."""

_OTHER = 0.05
"""Weight of "some other scale", per unit of log variance: nobody's scheme, spread over twenty e-foldings."""

_ROUNDING = 1e-3
"""Relative error of a variance that storing as bfloat16 or quantising to 8 bits may leave."""

_ALIKE = 0.25
"""Two schemes are both named where one is at least this likely relative to the other."""


def _scheme(found: _Shape, fans: Fans) -> tuple[str, float]:
    weights: dict[str, float] = {}
    for candidate in _candidates(found.family, fans):
        weights[candidate.name] = max(weights.get(candidate.name, 0.0), _likelihood(candidate, found))
    ranked = sorted(weights, key=lambda name: -weights[name])
    if not ranked or weights[ranked[0]] < _OTHER:
        by_scale = _by_scale(found.family, found.log_variance, found.peak)
        return by_scale, _OTHER / (sum(weights.values()) + _OTHER)
    names = [name for name in ranked[:2] if weights[name] >= _ALIKE * weights[ranked[0]]]
    return "|".join(names), sum(weights[name] for name in names) / (sum(weights.values()) + _OTHER)


def _likelihood(candidate: _Candidate, found: _Shape) -> float:
    """Per unit of log variance, times the prior."""
    if found.family is _UNIFORM:
        return candidate.prior * _bound_density(found.count, found.peak, math.sqrt(3.0 * candidate.variance))
    error = max(math.sqrt((found.family.kurtosis + 2.0) / found.count), _ROUNDING)
    z = (found.log_variance - math.log(candidate.variance)) / error
    return candidate.prior * math.exp(-0.5 * min(z * z, 1400.0)) / (error * math.sqrt(2.0 * math.pi))


def _bound_density(n: int, peak: float, bound: float) -> float:
    """Density of the log of the largest of n uniform magnitudes: n (peak / bound)^n, nothing beyond the bound."""
    effective = min(n, 1.0 / _ROUNDING)
    short = math.log(bound / peak)
    return effective * math.exp(-effective * min(short, 0.7)) if short > -_ROUNDING else 0.0


def _by_scale(family: _Family, log_variance: float, peak: float) -> str:
    if family is _UNIFORM:
        return f"uniform(±{peak:.2g})"
    return f"{family.suffix}(std={math.exp(0.5 * log_variance):.3g})"


@lru_cache(maxsize=256)
def _candidates(family: _Family, fans: Fans) -> tuple[_Candidate, ...]:
    """Variances that the schemes predict; priors say how common a scheme is, to a factor of two or so."""
    return tuple(_predicted(family, fans))


def _predicted(family: _Family, fans: Fans) -> Iterator[_Candidate]:
    pairs = ((fans.fan_in, fans.fan_out), *fans.alternatives)
    for rank, (fan_in, fan_out) in enumerate(pairs):
        share = 1.0 if rank == 0 else 0.5
        if fan_in and fan_out:
            yield from _fan_schemes(family.suffix, fan_in, fan_out, share, foreign=rank > 0)
        if fan_in and family is _UNIFORM:
            # kaiming_uniform_(a=sqrt(5)): bound sqrt(6 / (6 fan_in)); torch.nn.Linear.reset_parameters
            yield _Candidate("pytorch_default", 1.0 / (3.0 * fan_in), share)
    if family is _UNIFORM:
        if fans.hidden:  # torch.nn.RNNBase.reset_parameters
            yield _Candidate("pytorch_default", 1.0 / (3.0 * fans.hidden), 1.0)
    else:
        for std in _FIXED:
            yield _Candidate(f"{family.suffix}(std={std:g})", std * std, 0.3)


def _fan_schemes(
    suffix: str, fan_in: int, fan_out: int, share: float, both: bool = False, foreign: bool = False
) -> Iterator[_Candidate]:
    """``both``: He's two modes also where they are the same."""

    def scheme(name: str, variance: float, prior: float) -> _Candidate:
        return _Candidate(name, variance, prior * share, foreign)

    yield scheme(f"he_{suffix}(fan_in)", 2.0 / fan_in, 1.0)  # He et al. 2015, equation 10
    if both or fan_out != fan_in:
        yield scheme(f"he_{suffix}(fan_out)", 2.0 / fan_out, 0.5)  # equation 14
    glorot = 2.0 / (fan_in + fan_out)  # Glorot & Bengio 2010, equation 12
    yield scheme(f"xavier_{suffix}", glorot, 1.0)
    for gain in (5.0 / 3.0, math.sqrt(2.0)):  # torch.nn.init.calculate_gain: tanh, relu
        yield scheme(f"xavier_{suffix}(gain={gain:.3g})", gain * gain * glorot, 0.1)
    yield scheme(f"lecun_{suffix}", 1.0 / fan_in, 0.5)  # LeCun et al. 1998, equation 16


def draw(scheme: str, view: View, fans: Fans, gain: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Values of ``scheme`` times ``gain`` in the canonical layout (groups * units, fan_in), as float32.

    Raises KeyError for a scheme that no fix names.
    """
    import numpy as np

    shape = (view.groups * view.units, view.fan_in)
    if scheme == "zeros":
        return np.zeros(shape, np.float32)
    if scheme == "orthogonal":
        return (gain * _draw_orthogonal(view, rng)).astype(np.float32)
    scale = np.float32(gain * std_of(scheme, fans.fan_in or view.fan_in, fans.fan_out or view.units))
    if scheme.endswith(("_uniform", "_default")):
        return (rng.random(shape, np.float32) * 2 - 1) * np.float32(math.sqrt(3.0)) * scale
    return rng.standard_normal(shape, np.float32) * scale


def std_of(scheme: str, fan_in: int, fan_out: int) -> float:
    """Standard deviation of independent values of ``scheme``; raises KeyError for another one, as orthogonal."""
    inputs, outputs = max(1, fan_in), max(1, fan_out)
    variance = {
        "normal": 1.0,
        "pytorch_default": 1.0 / (3.0 * inputs),
        "he_normal": 2.0 / inputs,
        "he_uniform": 2.0 / inputs,
        "lecun_normal": 1.0 / inputs,
        "lecun_uniform": 1.0 / inputs,
        "xavier_normal": 2.0 / (inputs + outputs),
        "xavier_uniform": 2.0 / (inputs + outputs),
    }[scheme]
    return math.sqrt(variance)


def _draw_orthogonal(view: View, rng: np.random.Generator) -> NDArray[np.float64]:
    """Uniformly distributed semi-orthogonal matrices, one per group (Mezzadri 2007, section 5)."""
    import numpy as np

    tall, wide = max(view.units, view.fan_in), min(view.units, view.fan_in)
    q, r = np.linalg.qr(rng.standard_normal((view.groups, tall, wide)))
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    made: NDArray[np.float64] = q if view.units >= view.fan_in else q.transpose(0, 2, 1)
    return made.reshape(view.groups * view.units, view.fan_in)
