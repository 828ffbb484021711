"""What a graph tells of its sizes is right, or is not told."""

from __future__ import annotations

import numpy as np
import pytest
from probing import graph

from initlint.load.constants import Constants
from initlint.load.graph import build
from initlint.load.sizes import SizeReader


def read(steps: str) -> tuple[SizeReader, str]:
    """Sizes in a graph of x and z whose last result is r."""
    numbers = {"ones": np.array([1]), "zeros": np.array([0]), "pair": np.array([0, 1]), "minus": np.array([-1])}
    numbers |= {"two": np.array(2), "ends": np.array([3]), "backwards": np.array([-7])}
    vector = np.ones(16, np.float32)
    text = f"g (float[b, 5, 16] x, float[5, 1] z) => (float[] r) {{ {steps} }}"
    built = build(graph(text, vector=vector, **numbers))
    sizes = SizeReader(built, Constants(built, None))
    for node in built.nodes:
        sizes.see(node)
    return sizes, "r"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("r = Add(x, vector)", (0, 5, 16)),
        ("r = Mul(z, x)", (0, 5, 16)),
        ("r = Mul(z, vector)", (5, 16)),
        ('r = Einsum<equation = "bnd,d->bn">(x, vector)', (0, 5)),
        ('e = Einsum<equation = "...d,d->...">(x, vector)  r = Add(e, vector)', None),
        ("m = ReduceMean<keepdims = 0>(x, ones)  r = Softmax(m)", None),
        ("m = ReduceMean(x, ones)  r = Sub(x, m)", (0, 5, 16)),
        ("t = Transpose<perm = [0, 2, 1]>(x)  r = MatMul(x, t)", (0, 5, 5)),
        ("t = Transpose<perm = [1, 0]>(z)  r = MatMul(t, x)", (0, 1, 16)),
        ("r = MatMul(x, vector)", None),
        ("s = Shape(x)  r = Unsqueeze(x, s)", None),
        ("r, places = TopK(x, ones)", None),
    ],
)
def test_the_sizes_of_a_result(steps: str, expected: tuple[int, ...] | None) -> None:
    sizes, result = read(steps)
    assert sizes.of(result) == expected


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("r = Slice(s, ones, ends)", [5, 16]),
        ("r = Slice(s, pair, pair)", None),
        ("r = Slice(s, minus, backwards, zeros, minus)", None),
        ("n = Gather(s, two)  m = Mul(n, minus)  r = Div(m, ends)", [-5]),
        ("r = Div(s, pair)", None),
        ("m = Mod(minus, ends)  e = Reshape(m, ones)  r = Slice(s, ones, e)", [5]),
        ("r = Div(s, zeros)", [np.nan] * 3),
        ("r = Mul(s, two)", [np.nan, 10, 32]),
    ],
)
def test_integers_made_of_sizes(steps: str, expected: list[float] | None) -> None:
    sizes, result = read(f"s = Shape(x)  {steps}")
    numbers = sizes.numbers(result)
    if expected is None:
        assert numbers is None
    else:
        assert numbers is not None
        np.testing.assert_equal(numbers.reshape(-1), expected)
