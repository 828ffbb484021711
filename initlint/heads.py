"""The layers that outputs leave through, and which of them to blame where the outputs are too loud."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from .fixes import Fill, Fix
from .kinds import Kind, Use
from .model import Layer, Model, Tensor
from .paths import entry_rms, maps_up_to, measured_gain
from .probe.signals import Signals
from .redraw import fresh
from .stats import WeightStats

HE = math.sqrt(2.0)
"""The gain of a redrawn head, at most (He et al. 2015, equation 10)."""

OF_MASKED = 0.1
"""Of an output's rms: the largest of values around zero exceeds that, the largest one of a mask is 0."""


def heads(model: Model) -> list[Layer]:
    """Layers whose output leaves the network, by itself or as part of what does."""
    return [layer for layer in model.layers if Use.OUTPUT in layer.uses]


def measured_heads(model: Model, signals: Signals) -> Iterator[tuple[Layer, float]]:
    """Maps that outputs leave through, and their root mean square."""
    for layer in heads(model):
        signal = signals.layers.get(layer.name)
        if signal is not None and layer.kind.is_map:
            yield layer, signal.rms if math.isfinite(signal.rms) else math.inf


def loudest_end(model: Model, signals: Signals) -> tuple[float, Layer] | None:
    """(root mean square of the loudest output, the loudest layer that no layer reads); None without such a layer.

    Products, sums and exponentials may stand between the two. Of outputs only those count that are large on the
    positive side too: masks, and logits behind them, go down to -1e9 and further.
    """
    positive = [o.rms for o in signals.outputs.values() if max(o.unit_max, default=0.0) > OF_MASKED * o.rms]
    ends = [each for each in model.layers if not each.consumers and each.name in signals.layers]
    if not positive or not ends:
        return None
    return max(positive), max(ends, key=lambda each: signals.layers[each.name].rms)


def is_spread(model: Model, signals: Signals, layer: Layer, ratio: float, share: float, but_for: int = 1) -> bool:
    """Whether the ``but_for`` loudest layers up to ``layer`` do not make all but a ``share``-th of ``ratio``."""
    gains = [measured_gain(model, each, signals) or 0.0 for each in maps_up_to(model, layer)]
    gains += [
        signals.layers[each.name].rms
        for each in model.layers
        if each.kind is Kind.EMBEDDING and each.name in signals.layers
    ]
    loudest = sorted((max(1.0, gain) for gain in gains), reverse=True)[:but_for]
    return ratio >= share * math.prod(loudest)


def is_alone(model: Model, signals: Signals, layer: Layer, share: float) -> bool:
    """Whether the weights of the head ``layer`` alone make it loud.

    What it reads is not ``share`` times as loud as the input, and what it gives depends on the input more than it is
    offset.
    """
    signal = signals.layers.get(layer.name)
    if signal is None or entry_rms(model, layer, signals) >= share * max(1.0, signals.input_rms):
        return False
    common = signal.mean if layer.weight.view.units > 1 else 0.0
    offset = sum((mean - common) ** 2 for mean in signal.unit_mean)
    return offset < sum(std**2 for std in signal.unit_std)


def share_apart(signals: Signals, layer: Layer) -> float:
    """The share of a head's root mean square that is not common to all outputs; 1 where it has but one."""
    signal = signals.layers.get(layer.name)
    if signal is None or layer.weight.view.units == 1 or not 0 < signal.rms < math.inf:
        return 1.0
    return math.sqrt(max(0.0, 1 - (signal.mean / signal.rms) ** 2))


def made_by(model: Model, addresses: Iterable[str], but_for: Iterable[Kind]) -> bool:
    """Whether all that the outputs are made of comes through the weights at ``addresses``, two in a row at least.

    Shortcuts included: every map that the heads read, and every one that these read, but for maps of the inputs. A norm
    of the kinds ``but_for`` in front of a head, or of one of these, interrupts the row.
    """
    known = set(addresses)
    ends = [layer for layer in heads(model) if layer.kind.is_map]
    last = _inner(model, ends)
    before = {each.name: each for reader in last for each in model.maps_before(reader)}.values()
    interrupted = any(each.kind in but_for for reader in (*ends, *last) for each in model.producers(reader))
    through = all(each.weight.address in known for each in (*last, *_inner(model, last)))
    return bool(last) and through and not interrupted and any(each.weight.address in known for each in before)


def _inner(model: Model, readers: Iterable[Layer]) -> list[Layer]:
    """The maps in front of ``readers`` that have maps in front of them too."""
    writers = {each.name: each for reader in readers for each in model.maps_before(reader)}.values()
    return [each for each in writers if model.maps_before(each)]


def to_blame(
    model: Model,
    signals: Signals,
    stats: Mapping[str, WeightStats],
    among: Iterable[Layer],
    louder: float,
    quieter: float | None = None,
) -> tuple[Tensor | Layer | Model, Fix | None]:
    """Of the loudest head its bias, or its weight if its output is ``louder`` times its input; else the layer itself.

    ``quieter``: how many times, where it is known. What the biases of all units have in common counts then; otherwise
    a softmax takes it away. A head that no redraw makes as quiet as that, since it and its input are of normal size
    and the targets are small, is to start at zero. The model, without a fix, where no head was measured.
    """
    measured = [head for head in among if head.name in signals.layers]
    head = max(measured, key=lambda each: signals.layers[each.name].rms, default=None)
    if head is None:
        return model, None
    bias = stats.get(head.bias.address) if head.bias is not None else None
    if head.bias is not None and bias is not None:
        size = bias.std if quieter is None else math.hypot(bias.mean, bias.std)
        if size > signals.layers[head.name].std:
            return head.bias, Fill(head.bias.address, 0.0)
    if not head.kind.is_map:
        return head, None
    gain = measured_gain(model, head, signals) or 0.0
    normal = entry_rms(model, head, signals) < louder * (signals.input_rms or 1.0)
    beyond = quieter is not None and normal and gain < quieter * HE
    fix = Fill(head.weight.address, 0.0) if beyond else fresh(model, head.weight)
    return head.weight if gain >= louder else head, fix
