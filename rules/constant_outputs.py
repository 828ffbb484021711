"""The outputs are the same for all inputs, and training does not change that.

## Why it matters

A net that answers the same whatever it is asked has learnt nothing but an average, and where nothing of the input gets
through, nothing of the loss comes back. That may be so at the start: a zero head answers alike for all inputs, and
differs after the first step. initlint takes a few steps. Where the outputs still agree after them, the way is blocked
by what no step changes: a frozen table of zeros, a mask that was never set, a norm whose epsilon outweighs what comes
in, a rounding to a grid that is too coarse, units that are off for every input.

Where another finding tells why, this one is folded under it.

## Example

    nn.Embedding.from_pretrained(torch.zeros(vocabulary, dim), freeze=True)   # the file was not read
    nn.BatchNorm1d(64, eps=1e5)                                               # meant was 1e-5

## Fix

Look at the first layer where nothing depends on the input any more, and at what stands right before it.

## References

- Schoenholz et al. 2017 (arXiv:1611.01232): signals must propagate for a network to train
- `benchmarks/results/calibrate_bias.md`: nets in which less than a thousandth depends on the input fail
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Fill, Layer, Liveness, Needs, Several, Severity, Suspicion, Tensor, Use, rule


@dataclass(frozen=True)
class Options:
    share: float = 1e-4  # calibrate_bias.md: a tenth of the share below which both optimisers fail for every net
    norm: float = 1e-2  # of its gain: three times the root of the usual epsilon of 1e-5, as in single-value-norm


@rule(
    category="signal",
    needs=Needs.LIVENESS,
    uses=Needs.FORWARD | Needs.WEIGHTS,
    options=Options,
    message={
        "default": "the outputs are the same for all inputs, and training does not change that",
        "layer": "the outputs are the same for all inputs, and training does not change that: from here on nothing "
        "depends on the input",
        "shut": "the outputs are the same for all inputs of the probe, and its steps did not change that: "
        "{biases} biases, all negative, shut what follows",
        "still": "the outputs are the same for all inputs of the probe, and its steps moved no weight: "
        "no gradient reaches one",
        "norm": "the outputs are the same for all inputs, and training does not change that: this norm gives {share} "
        "of its gain, as its epsilon outweighs what comes in",
    },
    explains=("unused-parameters", "dead-units", "vanishing-signal", "collapsed-inputs"),
)
def constant_outputs(context: Context, options: Options) -> Iterator[Suspicion]:
    alike, shut = context.signals.outputs_alike, _shutting(context)
    if shut and (alike or context.signals.outputs_shut):
        fix = Several(tuple(Fill(each.address, 0.0) for each in shut))
        yield Suspicion(shut[0], Severity.ERROR, {"biases": len(shut)}, fix, "shut")
        return
    if context.signals.outputs_shut and not alike and _nothing_learns(context):
        yield Suspicion(context.model, Severity.WARNING, message="still", proven=True)
    if not alike:
        return  # another batch, a code book once it is filled, a loss of its own may let the inputs through
    blind = [layer for layer in context.model.layers if _is_blind(context, layer, options)]
    for layer in blind:
        before = context.model.producers(layer)
        if layer.learnt_input or (before and all(each in blind for each in before)):
            continue
        if layer.kind.is_norm and (share := _share_of_gain(context, layer)) is not None and share > 0:
            yield Suspicion(layer, Severity.ERROR, {"share": share}, message="norm", proven=True)
        else:
            yield Suspicion(layer, Severity.ERROR, message="layer", proven=True)
        return
    yield Suspicion(context.model, Severity.ERROR, proven=True)


def _is_blind(context: Context, layer: Layer, options: Options) -> bool:
    """Nothing of what it gives depends on the input; or it is a norm that does not bring what comes in to its gain."""
    signal = context.signal(layer)
    if signal is None or signal.samples < 2 or layer.bypassed:
        return False
    share = _share_of_gain(context, layer) if layer.kind.is_norm else None
    return signal.std <= options.share * signal.rms or (share is not None and share <= options.norm)


def _nothing_learns(context: Context) -> bool:
    """No weight has got a gradient at any step, although some would want one."""
    weights = [layer.weight for layer in context.model.layers if not layer.kind.is_norm]
    verdicts = {context.liveness(each) for each in weights if each.trainable}
    return Liveness.UNREACHED in verdicts and Liveness.LIVE not in verdicts


def _shutting(context: Context) -> list[Tensor]:
    """Hidden biases that are negative throughout, and beyond PyTorch's default bound."""
    found = []
    for layer in context.model.layers:
        stats = context.stats.get(layer.bias.address) if layer.bias is not None else None
        hidden = layer.kind.is_map and layer.fan_in and not layer.uses & {Use.OUTPUT, Use.PRODUCT}
        if layer.bias is not None and stats is not None and hidden and stats.max < -1 / math.sqrt(layer.fan_in or 1):
            found.append(layer.bias)
    return found


def _share_of_gain(context: Context, layer: Layer) -> float | None:
    stats, signal = context.stats.get(layer.weight.address), context.signal(layer)
    if stats is None or signal is None or not stats.mean_square:
        return None
    return float(signal.std / stats.mean_square**0.5)
