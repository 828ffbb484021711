"""Speed of the weight statistics against a bare read of the same bytes.

    OPENBLAS_NUM_THREADS=1 python benchmarks/statistics_speed.py

The first line is a ResNet-50 (102 MB, 161 tensors); then single small tensors. Times are the least CPU time of many
runs, so that other work on the machine disturbs them little.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np

from initlint import measure
from initlint.kinds import Role
from initlint.model import Tensor, View

Shape = tuple[int, int]


def resnet50() -> Iterator[Shape]:
    """(units, fan_in) of every parameter; gains and shifts of the norms have a fan-in of 1."""

    def conv(units: int, fan_in: int) -> Iterator[Shape]:
        yield from ((units, fan_in), (units, 1), (units, 1))

    yield from conv(64, 3 * 49)
    width_in = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            yield from conv(width, width_in)
            yield from conv(width, width * 9)
            yield from conv(4 * width, width)
            if block == 0:
                yield from conv(4 * width, width_in)
            width_in = 4 * width
    yield from ((1000, 2048), (1000, 1))


def seconds(work: Callable[[], object], runs: int) -> float:
    """The least CPU time of one run."""
    best = math.inf
    for _ in range(runs):
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return best


def tensor(shape: Shape) -> Tensor:
    return Tensor("w", shape, "float32", Role.WEIGHT, View(1, *shape))


def main() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape, np.float32) for shape in resnet50()]
    pairs = [(tensor((len(values), values.shape[1])), values) for values in weights]
    size = sum(values.nbytes for values in weights)
    bare = seconds(lambda: [values.sum() for values in weights], 20)
    full = seconds(lambda: [measure.measure(each, lambda values=values: [values]) for each, values in pairs], 20)
    print(
        f"ResNet-50, {len(weights)} tensors, {size / 1e6:.0f} MB: {full * 1e3:.0f} ms ({size / full / 1e9:.1f} GB/s);"
    )
    print(f"  bare sum {bare * 1e3:.0f} ms ({size / bare / 1e9:.1f} GB/s): {full / bare:.1f} times")
    for shape in ((64, 1), (16, 8), (64, 64), (64, 9)):
        values, each = rng.standard_normal(shape, np.float32), tensor(shape)
        spent = seconds(lambda each=each, values=values: measure.measure(each, lambda: [values]), 500)
        print(f"one tensor {shape}: {spent * 1e6:.0f} microseconds")


if __name__ == "__main__":
    main()
