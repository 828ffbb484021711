"""Computed weights: which of the parameters that make one is to blame, and what a wish for the weight asks of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from .fans import fans
from .fixes import Edit, Fill, Reinit
from .maker import Maker, plain
from .model import Model, Tensor
from .schemes import std_of
from .stats import WeightStats


def to_blame(model: Model, address: str, stats: Mapping[str, WeightStats]) -> str:
    """Address of the one among the makers of the weight at ``address``; empty where none of them stands out.

    Of zeros it is one that is zero itself, a factor before a summand; else the one that the weight goes by.
    """
    maker = _to_blame(model, address, stats)
    return "" if maker is None else maker.address


def _to_blame(model: Model, address: str, stats: Mapping[str, WeightStats]) -> Maker | None:
    makers = model.makers.get(address, ())
    own = [each for each in makers if plain(each.address) == address.partition("#")[0]]
    found = stats.get(address)
    if found is not None and found.all_zero:
        zero = [each for each in (*own, *makers) if each.address in stats and stats[each.address].all_zero]
        return zero[0] if zero else None
    return own[0] if own else makers[0] if len(makers) == 1 else None


def is_formula(model: Model, tensor: Tensor, stats: Mapping[str, WeightStats]) -> bool:
    """Whether fewer values make it, none of which scales it, as a window is made of its width.

    No draw of them gives it another size.
    """
    makers = model.makers.get(tensor.address, ())
    fewer = (each.address in stats and stats[each.address].count < tensor.size for each in makers)
    return bool(makers) and not any(each.linear for each in makers) and all(fewer)


def is_idle(edit: Edit, found: WeightStats | None) -> bool:
    """Whether the tensor, of these statistics, is what ``edit`` would make of it."""
    return isinstance(edit, Fill) and found is not None and found.constant and found.max == edit.value


def settable(model: Model, edits: Iterable[Edit], stats: Mapping[str, WeightStats]) -> list[Edit]:
    """``edits`` of what is stored: of computed weights their makers', one for each; without what nobody can set."""
    found: dict[str, Edit] = {}
    for edit in edits:
        own = _of_maker(model, edit, stats) if edit.tensor in model.makers else edit
        if own is not None and own.tensor not in model.uneditable:
            found.setdefault(own.tensor, own)
    return list(found.values())


def _of_maker(model: Model, edit: Edit, stats: Mapping[str, WeightStats]) -> Edit | None:
    """What gives the weight the wanted scale, where it follows its maker's; whether it does, a trial tells."""
    tensor, blamed = model.tensor(edit.tensor), _to_blame(model, edit.tensor, stats)
    if tensor is None or blamed is None or not isinstance(edit, Reinit):
        return None
    at = blamed.address
    maker, found, made = model.tensor(at), stats.get(at), stats.get(edit.tensor)
    if maker is None or found is None or made is None:
        return None
    wanted = _std(model, tensor, edit)
    if found.all_zero:
        return Fill(at, 1.0) if _is_scale(blamed, maker, tensor) else _awake(maker, tensor, wanted)
    if not math.isfinite(made.mean_square) and maker.size == tensor.size:
        return Reinit(at, "normal", _rounded(wanted))
    if not blamed.linear or not 0.0 < made.mean_square < math.inf or not wanted:
        return None
    ratio = wanted / math.sqrt(made.mean_square)
    if found.min == found.max:
        return Fill(at, _rounded(found.mean * ratio))
    return Reinit(at, "normal", _rounded(math.sqrt(found.mean_square) * ratio))


def _is_scale(blamed: Maker, maker: Tensor, tensor: Tensor) -> bool:
    """Whether it multiplies what another one holds, as a magnitude or a mask does."""
    small = maker.size < tensor.size and (len(maker.shape) < 2 or 1 in maker.shape)
    return small or (blamed.factor and maker.size == tensor.size and plain(blamed.address) != tensor.address)


def _awake(maker: Tensor, tensor: Tensor, wanted: float) -> Edit:
    """Drawn, as it generates the weight or is one up to a factor."""
    inputs = maker.shape[-1] if maker.size > tensor.size else 1  # a map that makes it of that many
    return Reinit(maker.address, "normal", _rounded(wanted / math.sqrt(inputs)))


def _std(model: Model, tensor: Tensor, edit: Reinit) -> float:
    if edit.scheme == "normal":
        return edit.gain
    own = fans(model.owner(tensor.address), tensor)
    inputs, outputs = own.fan_in or tensor.view.fan_in, own.fan_out or tensor.view.units
    scheme = "xavier_normal" if edit.scheme == "orthogonal" else edit.scheme
    return edit.gain * std_of(scheme, inputs, outputs)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
