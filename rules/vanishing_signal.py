"""The part of the signal that depends on the input shrinks layer by layer until nothing is left of it.

## Why it matters

Where every layer keeps a part of the signal, the parts multiply. PyTorch's default initialisation keeps 0.41 per ReLU
layer: 1e-3 after eight, 1e-8 after twenty. Then all inputs look the same to the last layers, and the first layers get
no gradient. Biases hide this: the spread over the batch is measured, not the size.

Only stretches that all of the signal must pass are judged, up to skip connections and normalisations. A single layer
far too small is `variance-mismatch`; some among others, or learned scales between them, are a warning: Adam grows them.
Where no probe can run, the signal is predicted from the statistics of the weights (mean-field theory, within a factor
of 1.2 for half of the nets tried and of 40 for all but a few). A prediction counts one step less, unless beyond doubt.

## Example

    nn.Sequential(*[nn.Sequential(nn.Linear(256, 256), nn.ReLU()) for _ in range(20)])   # default initialisation

## Fix

`nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")` in every layer, or normalisation, or skip connections.

## References

- Glorot & Bengio 2010; He et al. 2015 (arXiv:1502.01852) section 2.2; Schoenholz et al. 2017 (arXiv:1611.01232);
  pytorch/pytorch#18182, #15314: the default scheme and its factor
- `benchmarks/results/`: `calibrate_scale.md`, `calibrate_depth.md`, `drawn.md`, `calibrate_prediction.md`
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from initlint.plugin import Context, Kind, Needs, PlainPath, Severity, Suspicion, outlook, redrawn, rule, spreads_along


@dataclass(frozen=True)
class Options:
    fail: float = 1e-5  # calibrate_scale.md: below 1e-4 1 of 31 ReLU and GELU nets, 0 of 45 with tanh or sigmoid
    deep: int = 10  # layers; calibrate_depth.md: fewer of them make up for more
    deep_fail: float = 5e-4  # calibrate_depth.md: above 1e-4 and below it 0 of 6 nets that deep train, 3 are slow
    sloped_fail: float = 1e-9  # drawn.md: of nets with SiLU, PReLU and the like 6 of 9 train above, 0 of 10 below
    shallow: int = 5  # layers; drawn.md: those six have no more; below 1e-5 five faults of nets with more all fail
    warn: float = 5e-3  # calibrate_scale.md: SGD fails for half of the nets between 1e-3 and 1e-2, for none above 1e-2
    outlier: float = 0.1  # one layer below this share of the others' median gain is the fault of that layer alone
    quiet: float = 0.3  # of a layer; drawn.md: of 8 nets in which two or more keep more than that all train
    few: int = 3  # layers at most that keep less, as in those; of two nets with more of them none trains
    doubtful: float = 1.25e-4  # predicted: ``warn`` over 40, by which a prediction is off at most
    hopeless: float = 1e-8  # predicted: 0 of 21 nets train below 1e-6, and a prediction is off by 40 at most


@rule(
    category="signal",
    needs=Needs.SIGNAL | Needs.WEIGHTS,
    uses=Needs.FORWARD,
    options=Options,
    message={
        "default": "{ratio} of the signal is left after {depth} layers: {outlook}",
        "scales": "{ratio} of the signal is left after {depth} layers: learned scales between them keep {product}",
        "predicted": "the weights predict that {ratio} of the signal is left after {depth} layers: {outlook}",
    },
    explains=("dead-units", "vanishing-signal", "vanishing-gradient", "collapsed-inputs"),
)
def vanishing_signal(context: Context, options: Options) -> Iterator[Suspicion]:
    for path, spreads in _paths(context):
        if len(spreads) < 2 or 0.0 in spreads:
            continue
        gains = [after / before for before, after in zip([path.entry, *spreads], spreads, strict=False)]
        if not (ratio := _ratio(gains, options)) < options.warn:
            continue
        per_layer = ratio ** (1 / len(spreads))
        why = outlook(context.model, path, context.stats, per_layer)
        data = {
            "ratio": ratio,
            "depth": len(spreads),
            "per_layer": per_layer,
            "predicted_per_layer": why.predicted,
            "survives": why.survives(options.warn),
            "outlook": why.fading(options.warn),
            "first": path.hidden[0].name,
            "threshold": options.warn,
        }
        severity, fix = _severity(context, ratio, path, gains, options), redrawn(context.model, path.hidden)
        if (scales := why.scales) is not None and why.is_by_scales(ratio, options.warn):
            data["product"], severity = scales.product, min(severity, Severity.WARNING)
            yield Suspicion(scales.first, severity, data, scales.fix, "scales")
        else:
            yield Suspicion(path.hidden[-1], severity, data, fix, "default" if context.probed else "predicted")


def _paths(context: Context) -> Iterator[tuple[PlainPath, list[float]]]:
    """Paths with the standard deviation over inputs at each hidden layer, as far as measured or else predicted."""
    if not context.probed:
        yield from ((stretch.path, stretch.spreads) for stretch in context.predicted)
        return
    yield from spreads_along(context.model, context.signals)


def _severity(context: Context, ratio: float, path: PlainPath, gains: list[float], options: Options) -> Severity:
    if context.probed:
        lost = [(signal := context.signal(each)) is not None and signal.is_rounding for each in path.hidden]
        faint = sum(gain < options.quiet or each for gain, each in zip(gains, lost, strict=False))
        few = len(gains) < options.deep and faint <= min(options.few, len(gains) - 2)
        sloped = (norm := path.hidden[-1].norm_after) is None and path.is_sloped
        shallow, deep = len(path.hidden) <= options.shallow, len(path.hidden) >= options.deep and not sloped
        limit = options.deep_fail if deep else options.sloped_fail if sloped and shallow else options.fail
        # a batch norm takes away what all samples have in common
        return Severity.ERROR if ratio < limit and not (few or norm is Kind.BATCH_NORM) else Severity.WARNING
    if ratio < options.hopeless:
        return Severity.ERROR
    return Severity.WARNING if ratio < options.doubtful else Severity.NOTE


def _ratio(gains: list[float], options: Options) -> float:
    """What is left at the end; a single layer that stands out is not counted, being reported for itself."""
    usual, ratio = median(gains), math.prod(gains)
    outliers = [gain for gain in gains if gain < options.outlier * usual]
    return ratio / outliers[0] if len(outliers) == 1 else ratio
