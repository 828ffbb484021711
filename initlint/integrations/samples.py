"""A batch of a loader's own data, without touching the loader, its sampler, its workers, or any random state."""

from __future__ import annotations

from typing import Any

from ..errors import InitlintError
from ..foreign import described
from ..load.python_object import seeded

SAMPLES = 32
"""At most so many: the probe's statistics ask for no more, and a check takes up to 1.75 times a step's memory."""


class NoBatch(InitlintError):
    """The loader's data can only be had by consuming them."""


def batch_of(loader: Any) -> Any:
    """Samples spread evenly over the data set (it may be sorted by class), collated as the loader would.

    Raises NoBatch for what only gives its data one after the other, or to its own sampler alone.
    """
    data, collate = getattr(loader, "dataset", None), getattr(loader, "collate_fn", None)
    if data is None or collate is None:
        raise NoBatch(f"a {type(loader).__name__} is not one loader with a dataset and a collate_fn")
    if not _is_indexed(data):
        raise NoBatch(f"its data set ({type(data).__name__}) gives its samples only one after the other, or has none")
    size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    try:
        with seeded(0):
            if size is None and getattr(loader, "batch_sampler", None) is None:  # an item is a batch already
                return collate(data[0])
            count = min(size or SAMPLES, SAMPLES, len(data))
            return collate(_items(data, [number * len(data) // count for number in range(count)]))
    except Exception as error:  # the user's own data set: its keys may be names that only its sampler knows
        raise NoBatch(f"its data set ({type(data).__name__}) gave none: {described(error)}") from error


def _is_indexed(data: Any) -> bool:
    from torch.utils.data import IterableDataset

    listed = hasattr(type(data), "__getitem__") and hasattr(type(data), "__len__")
    return listed and not isinstance(data, IterableDataset) and len(data) > 0


def _items(data: Any, indices: list[int]) -> Any:
    """As PyTorch's own loader fetches them."""
    several = getattr(data, "__getitems__", None)
    return several(indices) if several else [data[index] for index in indices]
