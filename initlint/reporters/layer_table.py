"""The layer table: one line per layer, with as many columns as the width carries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..report import LayerRow
from .layout import Layout, Signs
from .wording import number, printable, shortened

Cells = dict[str, str]

_GAP = 2
_LEAST_NAME = 16
_TIGHT_SCHEME = 26
"""Columns for the scheme where space is short."""
_EXPENDABLE = ("fan_in", "kind", "then", "std")
"""Columns that go, in this order, where the names would get fewer than _LEAST_NAME columns."""

_RIGHT = frozenset({"fan_in", "std", "signal"})
_NONE = "-"


def layer_table(rows: Sequence[LayerRow], layout: Layout) -> list[str]:
    """A heading and one line per layer, none wider than the layout. What was not measured is a dash or no column.

    ``then`` is the non-linearity that consumes the output, ``std`` the weight's, ``signal`` the output's rms before it.
    """
    table = [{name: cell(row, layout.signs) for name, cell in _COLUMNS.items()} for row in rows]
    columns = [name for name in _COLUMNS if any(cells[name] != _NONE for cells in table)]
    widths = {name: max(len(name), *(len(cells[name]) for cells in table)) for name in columns}
    _fit(widths, layout.width)
    heading = _line({name: name for name in widths}, widths, layout.signs)
    return [heading, *(_line(cells, widths, layout.signs) for cells in table)]


def _fit(widths: dict[str, int], width: int) -> None:
    """Drop expendable columns, then narrow the name's, until a line is no wider than ``width``."""
    natural = widths["layer"]

    def room() -> int:
        return width - sum(size + _GAP for name, size in widths.items() if name != "layer")

    if room() < min(natural, _LEAST_NAME) and "scheme" in widths:
        widths["scheme"] = min(widths["scheme"], _TIGHT_SCHEME)
    for name in _EXPENDABLE:
        if room() < min(natural, _LEAST_NAME):
            widths.pop(name, None)
    widths["layer"] = max(min(natural, room()), 4)


def _line(cells: Cells, widths: Mapping[str, int], signs: Signs) -> str:
    shown = []
    for name, width in widths.items():
        text = shortened(cells[name], width, signs.ellipsis)
        shown.append(text.rjust(width) if name in _RIGHT else text.ljust(width))
    return (" " * _GAP).join(shown).rstrip()


def shape(row: LayerRow, signs: Signs) -> str:
    """The weight's shape, as in 64x3x7x7."""
    return signs.times.join(str(size) for size in row.layer.weight.shape) or "scalar"


def _scheme(row: LayerRow) -> str:
    if row.stats is None:
        return _NONE
    if not row.stats.scheme_confidence:
        return printable(row.stats.scheme)
    return f"{printable(row.stats.scheme)} {row.stats.scheme_confidence:.0%}"


_COLUMNS: Mapping[str, Callable[[LayerRow, Signs], str]] = {
    "layer": lambda row, signs: printable(row.layer.name),
    "kind": lambda row, signs: str(row.layer.kind),
    "shape": shape,
    "fan_in": lambda row, signs: _NONE if row.layer.fan_in is None else str(row.layer.fan_in),
    "then": lambda row, signs: printable(row.layer.activation),
    "scheme": lambda row, signs: _scheme(row),
    "std": lambda row, signs: _NONE if row.stats is None else number(row.stats.std),
    "signal": lambda row, signs: _NONE if row.signal is None else number(row.signal.rms),
}
