"""How far are predictions from the weights alone off? A calibration of what unprobed models are told.

    python benchmarks/calibrate_prediction.py [--quick] [--write FILE.md]   # 4 minutes

Nets        "mlp": 64 wide, of 2, 8 and 20 hidden layers and a head; "max pool" and "average pool": 3x3 convolutions
            with padding, 16 channels, on 32x32 noise, of 2 and 8 layers, pooled 2x2 behind every second one.
Functions   relu, gelu, silu, selu, tanh, sigmoid.
Weights     PyTorch's default with its biases; He; Xavier; normal of std 0.01; normal of twice He's std; Xavier with
            biases of N(0.3, 0.5^2); Xavier shifted by half a standard deviation; uniform(0, 1). Two seeds each.
Compared    the root mean square and the spread of the last hidden layer, as theory predicts them, with the same in
            float64: the standard deviation over a batch of 64, root mean square over units and positions. (The probe
            takes positions for samples: where padding makes borders different, it sees a spread that no input has
            caused.) Left out: signals below 1e-30 or beyond 1e30, spreads below 1e-13 of the rms.
Factor      the larger one of predicted / measured and measured / predicted.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from initlint.prediction import predict
from initlint.probe.on_torch import TorchSession

WIDTH, CHANNELS, SIDE, BATCH = 64, 16, 32, 64
SEEDS = 2
FUNCTIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "selu": nn.SELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
FAINT, LOUD, ROUNDING = 1e-30, 1e30, 1e-13


def default(weight: Tensor, bias: Tensor, fan_in: int) -> None:
    weight.uniform_(-1, 1).mul_(fan_in**-0.5)
    bias.uniform_(-1, 1).mul_(fan_in**-0.5)


def normal(std: Callable[[int], float], mean: float = 0.0, biased: bool = False) -> Draw:
    """``mean`` is in units of the standard deviation."""

    def draw(weight: Tensor, bias: Tensor, fan_in: int) -> None:
        weight.normal_(mean, 1.0).mul_(std(fan_in))
        bias.normal_(0.3, 0.5) if biased else bias.zero_()

    return draw


def positive(weight: Tensor, bias: Tensor, fan_in: int) -> None:
    weight.uniform_(0, 1)
    bias.zero_()


Draw = Callable[[Tensor, Tensor, int], None]
DRAWS: dict[str, Draw] = {
    "PyTorch's default": default,
    "He": normal(lambda n: math.sqrt(2 / n)),
    "Xavier": normal(lambda n: math.sqrt(1 / n)),
    "std 0.01": normal(lambda n: 0.01),
    "twice He": normal(lambda n: 2 * math.sqrt(2 / n)),
    "Xavier and biases": normal(lambda n: math.sqrt(1 / n), biased=True),
    "Xavier, shifted": normal(lambda n: math.sqrt(1 / n), mean=0.5),
    "uniform(0, 1)": positive,
}
NETS = {"mlp": (2, 8, 20), "max pool": (2, 8), "average pool": (2, 8)}


@dataclass(frozen=True)
class Outcome:
    net: str
    depth: int
    function: str
    draw: str
    rms: float
    """Factor by which the rms is off; NaN where it was left out or not predicted."""
    spread: float


def build(net: str, depth: int, function: str, draw: str, seed: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for index in range(depth):
        if net == "mlp":
            layers += [nn.Linear(WIDTH, WIDTH), FUNCTIONS[function]()]
            continue
        layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), FUNCTIONS[function]()]
        if index % 2:
            layers.append(nn.MaxPool2d(2) if net == "max pool" else nn.AvgPool2d(2))
    inputs = torch.randn(BATCH, WIDTH) if net == "mlp" else torch.randn(BATCH, CHANNELS, SIDE, SIDE)
    head = nn.Linear(WIDTH, 10) if net == "mlp" else nn.Conv2d(CHANNELS, 10, 1)
    module = nn.Sequential(*layers, head)
    with torch.no_grad():
        for each in module:
            if isinstance(each, nn.Linear | nn.Conv2d):
                assert each.bias is not None
                DRAWS[draw](each.weight, each.bias, each.weight[0].numel())
    return module, inputs


def compare(net: str, depth: int, function: str, draw: str, seed: int) -> Outcome:
    module, inputs = build(net, depth, function, draw, seed)
    session = TorchSession(module, (inputs,), {})
    hidden = session.model.layers[-2].name
    stretches = predict(session.model, session.stats())
    fields = {layer.name: f for s in stretches for layer, f in zip(s.path.layers, s.fields, strict=False)}
    rms, spread = measure(module, hidden, inputs)
    if hidden not in fields or not (spread > FAINT and rms < LOUD):
        return Outcome(net, depth, function, draw, math.nan, math.nan)
    off = math.nan if spread < ROUNDING * rms else factor(fields[hidden].spread, spread)
    return Outcome(net, depth, function, draw, factor(fields[hidden].rms, rms), off)


def measure(module: nn.Module, layer: str, inputs: Tensor) -> tuple[float, float]:
    """The rms and the spread of the output of ``layer``."""
    kept: list[Tensor] = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        module.double()(inputs.double())
    handle.remove()
    (output,) = kept
    return float(output.square().mean().sqrt()), float(output.var(0).mean().sqrt())


def factor(a: float, b: float) -> float:
    return max(a / b, b / a)


def table(outcomes: list[Outcome], key: Callable[[Outcome], str]) -> Iterator[str]:
    yield "| | nets | rms: median | worst | spread: median | worst |"
    yield "|---|---|---|---|---|---|"
    for group in dict.fromkeys(map(key, outcomes)):
        mine = [o for o in outcomes if key(o) == group]
        cells = []
        for values in ([o.rms for o in mine], [o.spread for o in mine]):
            known = sorted(value for value in values if not math.isnan(value))
            cells += [f"{known[len(known) // 2]:.2f}", f"{known[-1]:.3g}"] if known else ["", ""]
        yield f"| {group} | {sum(not math.isnan(o.rms) for o in mine)} | {' | '.join(cells)} |"


def report(outcomes: list[Outcome]) -> str:
    lines = [
        "# How far predictions are off",
        "",
        "Written by `benchmarks/calibrate_prediction.py`, whose docstring is the protocol.",
        "Factors between prediction and measurement.",
        "",
        *table(outcomes, lambda o: "all"),
        "",
        *table(outcomes, lambda o: f"{o.net}, {o.depth} layers"),
        "",
        *table(outcomes, lambda o: o.draw),
        "",
        *table(outcomes, lambda o: o.function),
        "",
        *table([o for o in outcomes if o.net == "mlp"], lambda o: f"mlp, {o.function}"),
        "",
        "The worst ten spreads:",
        "",
    ]
    worst = sorted((o for o in outcomes if not math.isnan(o.spread)), key=lambda o: -o.spread)[:10]
    lines += [f"- {o.net}, {o.depth} layers, {o.function}, {o.draw}: {o.spread:.3g}" for o in worst]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="relu and tanh, one seed")
    parser.add_argument("--write", type=Path, help="also write the tables to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    functions, seeds = (("relu", "tanh"), 1) if arguments.quick else (tuple(FUNCTIONS), SEEDS)
    outcomes = [
        compare(net, depth, function, draw, seed)
        for net, depths in NETS.items()
        for depth in depths
        for function in functions
        for draw in DRAWS
        for seed in range(seeds)
    ]
    text = report(outcomes)
    print(text)
    if arguments.write:
        arguments.write.write_text(text)


if __name__ == "__main__":
    main()
