"""The weights of an opened graph as a probe reads and moves them: by address, in canonical rows, or as stored."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .payload import Array, to_float32


@dataclass
class Weights:
    """Reads weights through what the loader hands over; an address that it does not know is a value's name."""

    value_of: Mapping[str, str]
    """Address -> name of the value that holds it."""
    read: Callable[[str], Array]
    """Name -> stored values."""
    to_rows: Callable[[str, Array], Array]
    """Address, stored values -> canonical rows."""
    from_rows: Callable[[str, Array, Array], Array]
    """Address, canonical rows, stored values around them -> stored values."""
    overrides: dict[str, Array] = field(default_factory=dict)
    """By name: what stands in for stored values."""

    def name(self, address: str) -> str:
        return self.value_of.get(address, address)

    def values_of(self, addresses: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(map(self.name, addresses)))

    def array(self, value: str) -> Array:
        """What is stored, or what stands in for it, as float32."""
        found = self.overrides.get(value)
        return to_float32(self.read(value)) if found is None else found

    def rows(self, address: str) -> Array:
        """Canonical rows (groups * units, fan_in)."""
        array = self.array(self.name(address))
        return self.to_rows(address, array) if address in self.value_of else array.reshape(1, -1)

    def stored(self, address: str, rows: Array, zero: bool = False) -> dict[str, Array]:
        """Canonical rows as stored, by name; what else the value holds is as it was, or ``zero``."""
        around = self.array(self.name(address))
        around = np.zeros_like(around) if zero else around
        known = address in self.value_of
        return {self.name(address): self.from_rows(address, rows, around) if known else rows.reshape(around.shape)}


def normal(shape: Sequence[int], scale: float, *key: object) -> Array:
    """Normal values of this scale, the same for the same ``key``."""
    generator = np.random.default_rng(zlib.crc32(repr(key).encode()))
    return generator.standard_normal(tuple(shape), np.float32) * np.float32(scale)


def rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0
