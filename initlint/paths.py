"""Plain paths: stretches of a network that all of the signal has to pass, with nothing that resets its scale.

Along such a stretch the gains multiply; a skip connection around it or a normalisation in it would end the product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, takewhile

from . import activations
from .kinds import Source, Use
from .model import Layer, Model
from .probe.signals import LayerSignal, Signals
from .stats import WeightStats

SILENCE = 1e-30
"""Below this a signal counts as absent; the smallest float32 that is not denormal is 1e-38."""


@dataclass(frozen=True)
class PlainPath:
    """Linear maps in a row; ``entry`` is the root mean square of what enters the first one, where it was measured."""

    layers: tuple[Layer, ...]
    entry: float

    @cached_property
    def hidden(self) -> tuple[Layer, ...]:
        """Without a last layer that leaves the graph: its scale is the loss's affair."""
        return self.layers[:-1] if Use.OUTPUT in self.layers[-1].uses else self.layers

    @property
    def is_sloped(self) -> bool:
        """Whether each layer is known to meet a non-linearity that passes both sides on, as SiLU and PReLU do."""
        met = [each.activation for each in self.hidden]
        return not any(name == "identity" or activations.get(name).has_flat_side for name in met)

    def __len__(self) -> int:
        return len(self.layers)


def plain_paths(model: Model, signals: Signals) -> tuple[PlainPath, ...]:
    """All maximal plain paths, in execution order."""
    found: list[PlainPath] = []
    taken: set[str] = set()
    for layer in model.layers:
        if layer.name in taken or not layer.kind.is_map or layer.bypassed:
            continue
        chain = [layer]
        while (after := _next(model, chain[-1])) is not None and after.name not in taken:
            chain.append(after)
            taken.add(after.name)
        taken.add(layer.name)
        found.append(PlainPath(tuple(chain), entry_rms(model, layer, signals)))
    return tuple(found)


def stages(model: Model) -> tuple[tuple[Layer, ...], ...]:
    """Maps side by side, stage behind stage, where all of the signal passes one after the other; empty if it does not.

    So it is in message passing, relu(A x W + x U): each of the two maps leads around the other, and nothing around both
    of them. Empty for plain nets too, which are paths, and where a norm stands anywhere.
    """
    place = {layer.name: number for number, layer in enumerate(model.layers)}
    found: dict[str, int] = {}
    for layer in model.layers:
        if not layer.kind.is_map or layer.norm_after is not None or layer.input_source is Source.NORM:
            return ()
        if _is_looked_through(layer):
            continue
        before, through = _trained_before(model, layer, place)
        known = {found[name] for name in before} if before <= found.keys() else set()
        if (before and not known) or (layer.reads_inputs and before) or (len(known) > 1 and not through):
            return ()
        found[layer.name] = max(known, default=-1) + 1
    depth = max(found.values(), default=-1) + 1
    made = tuple(tuple(each for each in model.layers if found.get(each.name) == number) for number in range(depth))
    beside = [each for stage in made[:-1] if len(stage) > 1 for each in stage]
    return made if beside and all(each.bypassed for each in beside) else ()


def spreads_along(model: Model, signals: Signals) -> Iterator[tuple[PlainPath, list[float]]]:
    """Paths with the standard deviation over inputs at each hidden layer, as far as it was measured.

    Of maps side by side, as in message passing, the loudest of each stage: their outputs are summed or joined.
    """
    for path in plain_paths(model, signals):
        known = (_std(signals, layer) for layer in path.hidden)
        yield path, list(takewhile(math.isfinite, known))
    if hidden := stages(model)[:-1]:  # the last one is heads, whose scale is the loss's affair
        layers, fed = tuple(each for stage in hidden for each in stage), any(each.reads_inputs for each in hidden[0])
        path = PlainPath(layers, signals.input_rms or 1.0 if fed else entry_rms(model, hidden[0][0], signals))
        spreads = [max(_std(signals, each) for each in stage) for stage in hidden]
        if all(map(math.isfinite, spreads)):
            yield path, spreads


def _std(signals: Signals, layer: Layer) -> float:
    return signals.layers[layer.name].std if layer.name in signals.layers else math.nan


def _is_looked_through(layer: Layer) -> bool:
    """What is applied to every stage, as a graph's adjacency is: a fixed map, in a file any that is used again."""
    return not layer.weight.trainable or layer.calls > 1


def _trained_before(model: Model, layer: Layer, place: Mapping[str, int]) -> tuple[set[str], bool]:
    """Names of the maps before ``layer``, and whether one that is used again is between: it reads earlier ones too."""
    found: set[str] = set()
    pending, seen, again = [layer], {layer.name}, False
    while pending:
        for each in model.producers(pending.pop()):
            if each.name in seen or (not _is_looked_through(each) and place[each.name] > place[layer.name]):
                continue
            seen.add(each.name)
            if _is_looked_through(each):
                again |= each.calls > 1
                pending.append(each)
            else:
                found.add(each.name)
    return found, again


def ways(model: Model, layer: Layer) -> tuple[int, int]:
    """How many maps and recurrences lie on the shortest and on the longest way to ``layer``, itself included.

    A shortcut leads around what a plain net has to pass, so that gradients reach the first layers undisturbed.
    """
    known: dict[str, tuple[int, int]] = {}
    for each in model.layers:
        before = [known[one.name] for one in model.maps_before(each) if one.name in known]
        fewest, most = min((one[0] for one in before), default=0), max((one[1] for one in before), default=0)
        known[each.name] = fewest + 1, most + 1
        if each is layer:
            break
    return known[layer.name]


def maps_up_to(model: Model, layer: Layer) -> list[Layer]:
    """All maps that ``layer`` depends on, and itself, in execution order."""
    maps = (each for each in model.layers if each.kind.is_map)
    return [each for each in maps if each is layer or model.is_upstream(each.name, layer.name)]


def _next(model: Model, layer: Layer) -> Layer | None:
    """The map behind ``layer`` that all of the signal passes next, unless a norm stands between."""
    if layer.norm_after is not None:
        return None
    direct = set(layer.consumers) | {
        name for each in model.consumers(layer) if each.kind == "prelu" for name in each.consumers
    }
    for after in model.maps_after(layer):
        if after.name in direct and after.kind.is_map and not after.bypassed and after.input_source is not Source.NORM:
            return after
    return None


FAINT = 1 / 30
"""Of the scale that the fan-in asks for; drawn.md: what starts fainter, steps of any optimiser outweigh at once."""


def washes_out(model: Model, layer: Layer, stats: WeightStats) -> bool:
    """Whether the weights start next to zero where that is no harm: beside a shortcut, or read by norms alone."""
    faint = stats.mean_square * (layer.fan_in or 1) < FAINT**2
    return faint and (layer.bypassed or model.read_by_norms(layer))


def entry_rms(model: Model, layer: Layer, signals: Signals) -> float:
    """Root mean square of what feeds ``layer``: the loudest of its producers, or the model's input; at least 1e-30.

    Behind a non-linearity the producer's pre-activation stands for its output: both are of order one if either is.
    """
    measured = [
        signal.rms
        for producer in model.producers(layer)
        if (signal := signals.layers.get(producer.name)) is not None and math.isfinite(signal.rms)
    ]
    if layer.activation_bounds_input:
        return min(1.0, max(measured, default=1.0))
    if not measured:
        return signals.input_rms or 1.0
    return max(*measured, SILENCE)


def expected_gain(layer: Layer, stats: WeightStats) -> float:
    """Predicted rms out over rms in of a linear map: sqrt(fan_in * E[w^2] * E[phi(z)^2]) at z ~ N(0, 1).

    He et al. 2015, equations 6 to 10, with any non-linearity in front instead of ReLU's 1/2. 1 keeps the scale; He
    initialisation gives 1 behind ReLU, PyTorch's default 0.41.
    """
    nameless = layer.input_activation == "elementwise"
    function = layer.input_function if nameless else activations.get(layer.input_activation)
    power = function.standard_moments[1]
    return math.sqrt((layer.fan_in or 1) * stats.mean_square * power)


def measured_gain(model: Model, layer: Layer, signals: Signals) -> float | None:
    """Measured rms out over rms in; None where the probe did not reach the layer, nothing arrived to be scaled, or what
    arrived was not measured, being no layer's output and no input."""
    signal: LayerSignal | None = signals.layers.get(layer.name)
    if layer.learnt_input and not layer.producers:
        return None
    entry = entry_rms(model, layer, signals)
    if signal is None or not math.isfinite(signal.rms) or signal.rms == 0 or entry <= SILENCE:
        return None
    return signal.rms / entry


def perturbation_growth(path: PlainPath, stats: Mapping[str, WeightStats], signals: Signals) -> float:
    """How much faster a small perturbation grows along the hidden layers than the signal itself; 0 where unknown.

    One link multiplies a perturbation by sqrt(fan_in * E[w^2] * E[phi'(z)^2]), z as the probe measured it (Poole et al.
    2016, arXiv:1606.05340, section 2.2), and the signal by its measured spread over the batch. Links that leave fewer
    positions may average over them: the spread that this costs is given back.
    """
    growth = 1.0
    for layer, after in pairwise(path.hidden):
        before, behind = signals.layers.get(layer.name), signals.layers.get(after.name)
        weights = stats.get(after.weight.address)
        if before is None or behind is None or weights is None or not 0.0 < behind.std < math.inf:
            return 0.0
        width = math.sqrt(max(0.0, before.rms**2 - before.mean**2))
        same = layer.activation == after.input_activation
        function = after.input_function if same else activations.get(layer.activation)
        slope = function.slope_power(before.mean, width)
        link = math.sqrt((after.fan_in or 1) * weights.mean_square * slope)
        growth *= link * before.std / behind.std * math.sqrt(min(1.0, behind.samples / max(1, before.samples)))
    return growth if math.isfinite(growth) else 0.0


def peers(model: Model, layer: Layer, stats: Mapping[str, WeightStats]) -> list[float]:
    """Expected gains of the other layers of the same kind and shape: what this model calls normal."""
    return sorted(
        expected_gain(other, stats[other.weight.address])
        for other in model.layers
        if other.kind is layer.kind
        and other.weight.shape == layer.weight.shape
        and other.weight.address != layer.weight.address
        and other.weight.address in stats
    )
