"""What mean-field theory says of a model: its signal where no probe could run, and why a measured one is what it is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from . import activations, mean_field
from .fixes import Reinit, edits_of
from .kinds import Kind, Source, Use
from .mean_field import Field, Weights
from .model import Layer, Model
from .paths import PlainPath, maps_up_to, plain_paths
from .probe.signals import Forward, Signals
from .redraw import redrawn
from .scales import QuietScales, quiet_scales
from .stats import WeightStats

UNPROBED = Signals(Forward.NONE)

Statistics = Mapping[str, WeightStats]

_NAMES = {
    "he_normal": "He initialisation",
    "xavier_normal": "Xavier initialisation",
}

_FOLLOWED = frozenset({Source.ACTIVATION, Source.LAYER})
"""What may stand between two layers of a predicted stretch; sums and products bring in what the weights do not tell."""


@dataclass(frozen=True)
class Stretch:
    """The layers of a plain path as far as theory can follow, with the pre-activations that it predicts."""

    path: PlainPath
    fields: tuple[Field, ...]
    """Of the first layers of the path."""

    @property
    def spreads(self) -> list[float]:
        """Of the hidden layers, as far as predicted."""
        return [field.spread for field in self.fields[: len(self.path.hidden)]]


def predict(model: Model, stats: Statistics) -> tuple[Stretch, ...]:
    """All stretches of two layers and more, and outputs, in execution order; none where the dataflow is not known.

    What enters a stretch is taken for a standard normal, as the probe's inputs are and as norms make it; rows of a
    table for what they are. Nothing is said of what reads a sum, a product or a mean over positions.
    """
    if not model.has_dataflow:
        return ()
    cut = [path for path in _cut(model, stats) if len(path) > 1 or Use.OUTPUT in path.layers[-1].uses]
    found = [follow(path, stats) for path in cut if path.layers[0].input_known]
    return tuple(stretch for stretch in found if stretch.fields)


def predicted_heads(stretches: Iterable[Stretch]) -> Iterator[tuple[Layer, float]]:
    """Maps that outputs leave through, or at which the signal overflows, and the root mean square that is predicted."""
    for stretch in stretches:
        last = stretch.path.layers[min(len(stretch.fields), len(stretch.path)) - 1]
        if Use.OUTPUT in last.uses or not stretch.fields[-1].is_finite:
            yield last, stretch.fields[-1].rms


def follow(path: PlainPath, stats: Statistics, redraws: Mapping[str, float] | None = None) -> Stretch:
    """Predict along ``path``; ``redraws`` has the variances of weights, by address, that are to be drawn anew."""
    known = []
    for position, layer in enumerate(path.layers):
        weights = _weights(layer, stats, (redraws or {}).get(layer.weight.address))
        if weights is None or (position and not _is_followed(path.layers[position - 1], layer)):
            break
        known.append((layer.input_function if layer.input_known else activations.get("identity"), weights))
    return Stretch(path, tuple(mean_field.predict(Field(own=path.entry**2), known)))


def _cut(model: Model, stats: Statistics) -> Iterator[PlainPath]:
    for path in plain_paths(model, UNPROBED):
        start = 0
        for position, (before, after) in enumerate(pairwise(path.layers), start=1):
            if not _is_followed(before, after):
                yield _from(model, stats, path.layers[start:position])
                start = position
        yield _from(model, stats, path.layers[start:])


def _is_followed(before: Layer, after: Layer) -> bool:
    """Whether the one's output is the other's input but for a function of single values."""
    return (
        after.input_known
        and after.input_source in _FOLLOWED
        and before.activation == after.input_activation
        and before.activation not in ("softmax", "log-softmax")
        and before.calls == after.calls == 1
    )


def _from(model: Model, stats: Statistics, layers: tuple[Layer, ...]) -> PlainPath:
    tables = [stats.get(each.weight.address) for each in model.producers(layers[0]) if each.kind is Kind.EMBEDDING]
    known = [math.sqrt(each.mean_square) for each in tables if each is not None and 0 < each.mean_square < math.inf]
    return PlainPath(layers, known[0] if layers[0].input_source is Source.LAYER and len(known) == 1 else 1.0)


def _weights(layer: Layer, stats: Statistics, variance: float | None = None) -> Weights | None:
    """What theory needs to know of a layer; None where that is not finite or not known."""
    weight = stats.get(layer.weight.address)
    bias = stats.get(layer.bias.address) if layer.bias is not None else None
    if weight is None or layer.fan_in is None or not math.isfinite(weight.mean_square) or weight.nan or weight.inf:
        return None
    mean, spread = (weight.mean, weight.std**2) if variance is None else (0.0, variance)
    if weight.scheme.startswith("identity"):  # carries every unit over, in which it is unlike any independent draw
        mean, spread = 0.0, weight.mean_square
    found = Weights(layer.fan_in, mean, spread)
    if bias is None or not math.isfinite(bias.mean_square):
        return found if layer.bias is None else None
    return replace(found, bias_mean=bias.mean, bias_variance=bias.std**2)


@dataclass(frozen=True)
class Outlook:
    """Why the signal becomes what it becomes, per layer, and what another initialisation would make of it."""

    per_layer: float
    """What a layer multiplies the signal by, measured where it was measured."""
    predicted: float
    """The same as the weights predict it; 0 where they do not."""
    scheme: str
    """Of the recommended redraw; empty where there is none, or none that theory knows."""
    kept: float
    """What a layer would multiply the signal by after it."""
    scales: QuietScales | None = None
    """Learned scales below one along the path."""

    def is_by_scales(self, left: float, enough: float) -> bool:
        """Whether, but for them, ``enough`` would be left where ``left`` is."""
        return self.scales is not None and left >= enough * self.scales.product

    def survives(self, share: float) -> int:
        """The first layer behind which less than ``share`` of the signal is left; 0 if that never comes."""
        return mean_field.layers_until(share, self.per_layer)

    @property
    def instead(self) -> str:
        """ "; He initialisation keeps 1", or nothing where that is not known or no better."""
        better = abs(math.log(self.kept)) < abs(math.log(self.per_layer)) if self.kept and self.per_layer else False
        return f"; {self.scheme} keeps {self.kept:.2g}" if better and self.scheme else ""

    def fading(self, share: float) -> str:
        """For a signal that shrinks: "at 0.41 per layer less than 0.5 % is left from layer 6 on; He ... keeps 1"."""
        reached = self.survives(share)
        end = f" less than {100 * share:.2g} % is left from layer {reached} on" if reached else " it stays"
        return f"at {self.per_layer:.2g} per layer{end}{self.instead}"

    def growing(self) -> str:
        """For a signal that grows: "each layer multiplies it by 3.2; He initialisation keeps 1"."""
        return f"each layer multiplies it by {self.per_layer:.2g}{self.instead}"


def outlook(model: Model, path: PlainPath, stats: Statistics, per_layer: float) -> Outlook:
    """The outlook of a path along which each layer multiplies the signal by ``per_layer``."""
    edits = [edit for edit in edits_of(redrawn(model, path.hidden)) if isinstance(edit, Reinit)]
    variances = {edit.tensor: _variance(edit, model.owner(edit.tensor)) for edit in edits}
    names = {_NAMES.get(edit.scheme, "") for edit in edits}
    known = bool(edits) and all(names) and all(variances.values())
    return Outlook(
        per_layer=per_layer,
        predicted=_factor(follow(path, stats)),
        scheme=(names.pop() if len(names) == 1 else "the recommended initialisation") if known else "",
        kept=_factor(follow(path, stats, variances)) if known else 0.0,
        scales=quiet_scales(model, path, stats),
    )


def why_loud(model: Model, signals: Signals, stats: Statistics, layer: Layer, rms: float) -> str:
    """How the signal grew, where all of it passes several layers in a row before ``layer``; else nothing."""
    for path in plain_paths(model, signals):
        if path.layers[-1] is layer and len(path) > 1 and path.entry < rms < math.inf:
            calls = _calls(model, path)
            growth = float((rms / path.entry) ** (1 / calls))
            if calls > len(path):
                return f": on average each of them multiplies it by {growth:.2g}"
            return f": {outlook(model, path, stats, growth).growing()}"
    return ""


def _calls(model: Model, path: PlainPath) -> int:
    """Of the maps from the first layer of ``path`` to its last: branches count, and every call of a shared one."""
    first, maps = path.layers[0], maps_up_to(model, path.layers[-1])
    between = (each for each in maps if each is first or model.is_upstream(first.name, each.name))
    return max(len(path), sum(each.calls for each in between))


def _factor(stretch: Stretch) -> float:
    """Of the spread per layer; 0 where it was not followed to the end of the path."""
    spreads, depth = stretch.spreads, len(stretch.path.hidden)
    if not depth or len(spreads) < depth or not 0.0 < spreads[-1] < math.inf:
        return 0.0
    return float((spreads[-1] / stretch.path.entry) ** (1 / depth))


def _variance(edit: Reinit, layer: Layer | None) -> float:
    """Of the weights it draws; 0 where that is not known."""
    fan_in, fan_out = (layer.fan_in or 0, layer.fan_out or 0) if layer is not None else (0, 0)
    if edit.scheme == "he_normal" and fan_in:
        return edit.gain**2 * 2.0 / fan_in
    if edit.scheme == "xavier_normal" and fan_in + fan_out:
        return edit.gain**2 * 2.0 / (fan_in + fan_out)
    return 0.0
