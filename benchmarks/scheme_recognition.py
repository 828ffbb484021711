"""How often initialisation schemes are recognised: a table over schemes and layer shapes.

    python benchmarks/scheme_recognition.py

Draws each scheme with PyTorch's own initialisers where it has them, and counts a guess as right if it names the scheme
(alone or as one of two that coincide). ``sure`` is the share of guesses that name it alone; ``claimed`` the mean
confidence, which should not exceed ``right`` by much.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from initlint import measure, schemes
from initlint.kinds import Kind, Role
from initlint.model import Layer, Tensor, View

SHAPES = (
    (10, 64),
    (64, 64),
    (256, 64),
    (64, 784),
    (512, 512),
    (1024, 256),
    (16, 3, 3, 3),
    (64, 3, 7, 7),
    (64, 64, 1, 1),
    (128, 64, 3, 3),
)


@dataclass(frozen=True)
class Scheme:
    """``name`` is what recognition should say."""

    name: str
    fill: Callable[[torch.Tensor], object]


def _he_fan_out(weight: torch.Tensor) -> None:
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")


def _truncated_lecun(weight: torch.Tensor) -> None:
    """As JAX does it: truncated at two sigma, then widened to the wanted variance."""
    sigma = math.sqrt(1.0 / weight[0].numel()) / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=sigma, a=-2 * sigma, b=2 * sigma)


SCHEMES = (
    Scheme("zeros", nn.init.zeros_),
    Scheme("he_normal(fan_in)", lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
    Scheme("he_uniform(fan_in)", lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu")),
    Scheme("he_normal(fan_out)", _he_fan_out),
    Scheme("xavier_normal", nn.init.xavier_normal_),
    Scheme("xavier_uniform", nn.init.xavier_uniform_),
    Scheme("lecun_normal", lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear")),
    Scheme("lecun_truncated_normal", _truncated_lecun),
    Scheme("pytorch_default", lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5))),
    Scheme("normal(std=0.02)", lambda w: nn.init.normal_(w, std=0.02)),
    Scheme("normal(std=0.037", lambda w: nn.init.normal_(w, std=0.037)),
    Scheme("uniform(±0.05", lambda w: nn.init.uniform_(w, -0.05, 0.05)),
    Scheme("uniform(", nn.init.uniform_),
    Scheme("orthogonal", nn.init.orthogonal_),
    Scheme("unrecognised", lambda w: w.copy_(torch.distributions.StudentT(3.0).sample(w.shape))),
)


def guess(scheme: Scheme, shape: tuple[int, ...], seed: int) -> schemes.Guess:
    """Fill a weight of PyTorch shape ``shape`` and recognise it as the weight of a linear map or convolution."""
    torch.manual_seed(seed)
    weight = torch.empty(shape)
    with torch.no_grad():
        scheme.fill(weight)
    fan_in, receptive = math.prod(shape[1:]), math.prod(shape[2:])
    tensor = Tensor("w", shape, "float32", Role.WEIGHT, View(1, shape[0], fan_in))
    layer = Layer("l", Kind.LINEAR, tensor, fan_in=fan_in, fan_out=shape[0] * receptive)
    values = weight.numpy().reshape(shape[0], fan_in)
    stats = measure.measure(tensor, lambda: [values])["w"]
    return schemes.recognise(stats, schemes.fans(layer, tensor))


def says(guessed: schemes.Guess, scheme: Scheme, shape: tuple[int, ...]) -> bool:
    """Scales that belong to no scheme (names with an open bracket) are compared to one digit."""
    if scheme.name == "he_normal(fan_out)" and shape[0] == shape[1]:  # then it is the same as fan_in
        return guessed.scheme.startswith("he_normal")
    if scheme.name.endswith("037"):
        return any(f"normal(std={std}" in guessed.scheme for std in ("0.036", "0.037", "0.038"))
    return any(name.startswith(scheme.name) for name in guessed.scheme.split("|"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=50)
    seeds = parser.parse_args().seeds
    warnings.simplefilter("ignore")
    print(f"{'scheme':24s} right   sure  claimed  worst shape ({seeds} seeds, {len(SHAPES)} shapes)")
    shares = []
    for scheme in SCHEMES:
        rows = {shape: [guess(scheme, shape, seed) for seed in range(seeds)] for shape in SHAPES}
        right = {shape: np.mean([says(each, scheme, shape) for each in guesses]) for shape, guesses in rows.items()}
        every = [(each, shape) for shape, guesses in rows.items() for each in guesses]
        worst = min(right, key=lambda shape: right[shape])
        sure = np.mean([says(each, scheme, shape) and "|" not in each.scheme for each, shape in every])
        claimed = np.mean([each.confidence for each, _ in every])
        share = float(np.mean(list(right.values())))
        shares.append(share)
        wrong = [each.scheme for each in rows[worst] if not says(each, scheme, worst)]
        told = f"{worst} {right[worst]:.0%}, e.g. {wrong[0]}" if wrong else "-"
        print(f"{scheme.name:24s} {share:5.1%} {sure:6.1%} {claimed:7.1%}  {told}")
    print(f"{'all':24s} {np.mean(shares):5.1%}")


if __name__ == "__main__":
    main()
