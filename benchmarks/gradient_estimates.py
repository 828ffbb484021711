"""Estimated gradients of files beside the true ones of the modules they were exported from.

    python benchmarks/gradient_estimates.py [--only GLOB] [--write benchmarks/results/gradient_estimates.md]

The healthy models of ``tests/models`` and the chains below, which cover ten decades either way, are checked as modules
and as honest exports (newer exporter) on the same batch. Compared are, layer by layer, sensitivities over that of the
last layer (``initlint.sensitivity``): of the module by autograd, of the file by growth (one run) and by directions
(``initlint.probe.estimates``). Errors are absolute differences of decimal logarithms.

Chains    64 -> 64 -> ... -> 10 with ``depth`` weight layers, weights normal with std gain / sqrt(fan_in), batch 32.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import models

from initlint.load.from_onnx import open_onnx
from initlint.probe.estimates import Estimator
from initlint.probe.inputs import feeder_of
from initlint.probe.on_onnx import OnnxProbe
from initlint.probe.on_torch import TorchSession
from initlint.probe.setup import Setup
from initlint.probe.signals import GradientSignal
from initlint.probe.weights import rms
from initlint.settings import ProbeSettings
from initlint.testing import honest_export

Gradients = Mapping[str, GradientSignal]


def chain(activation: Callable[[], nn.Module], depth: int, gain: float, norm: bool = False) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for number in range(depth):
        linear = nn.Linear(64, 10 if number == depth - 1 else 64)
        nn.init.normal_(linear.weight, std=gain / 8)
        nn.init.zeros_(linear.bias)
        layers.append(linear)
        if number < depth - 1:
            layers += [nn.BatchNorm1d(64), activation()] if norm else [activation()]
    return nn.Sequential(*layers), torch.randn(32, 64)


CHAINS = {
    "relu-20": partial(chain, nn.ReLU, 20, 1.41),
    "relu-20 quiet": partial(chain, nn.ReLU, 20, 0.58),
    "relu-20 batch norm": partial(chain, nn.ReLU, 20, 1.41, True),
    "relu-50 batch norm": partial(chain, nn.ReLU, 50, 1.41, True),
    "tanh-20": partial(chain, nn.Tanh, 20, 1.0),
    "tanh-20 loud": partial(chain, nn.Tanh, 20, 3.0),
    "tanh-8 very loud": partial(chain, nn.Tanh, 8, 10.0),
    "sigmoid-8": partial(chain, nn.Sigmoid, 8, 1.0),
    "sigmoid-12": partial(chain, nn.Sigmoid, 12, 1.0),
    "sigmoid-8 loud": partial(chain, nn.Sigmoid, 8, 8.0),
    "gelu-12": partial(chain, nn.GELU, 12, 1.5),
}
HEALTHY = (
    "relu_mlp", "tanh_mlp", "sigmoid_mlp", "selu_mlp", "relu_cnn", "normed_cnn", "batchnorm_resnet", "vit", "gpt",
    "torch_encoder", "lstm", "gru", "identity_rnn", "mobilenet", "unet", "autoencoder", "highway",
)  # fmt: skip


def nets() -> Iterator[tuple[str, Callable[[], tuple[nn.Module, Any]]]]:
    yield from CHAINS.items()
    for name in HEALTHY:
        yield name, partial(getattr(models, name), seed=0)


def measured(module: nn.Module, inputs: Any) -> tuple[list[str], Gradients, Gradients, Gradients, dict[str, int]]:
    """Weights in execution order, gradients: true, by growth, by directions; and the weights' sizes."""
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    with TorchSession(module, args, {}) as session:
        truth = session.probe(ProbeSettings(backward=True)).gradients
    proto = honest_export(module, inputs, "dynamo")
    opened = open_onnx(proto.SerializeToString())
    fed = {value.name: tensor.numpy() for value, tensor in zip(proto.graph.input, args, strict=True)}
    settings = ProbeSettings(inputs=fed)
    probe = OnnxProbe(opened)
    forward = probe.run(settings, {})
    graph = probe._rewritten()
    feeder = feeder_of(graph, settings)
    setup = Setup(graph, feeder, next(iter(feeder.attempts())), {}, None)
    setup.prepare()
    chosen = [next(iter(forward.outputs))]
    estimator = Estimator(setup, opened.model, opened.taps, opened.weights, chosen)
    growth = estimator.growth()
    layers = [layer for layer in opened.model.layers if layer.kind.is_map or layer.kind.is_recurrent]
    sizes = {layer.weight.address: rms(opened.weights.rows(layer.weight.address)) for layer in layers}
    grown = estimator.by_growth(growth, forward.layers, sizes) if growth is not None else {}
    aimed = dict(estimator.by_directions([layer.weight for layer in layers]))
    addresses = [layer.weight.address for layer in layers if layer.weight.address in truth]
    return addresses, truth, grown, aimed, {tensor.address: tensor.size for tensor in opened.model.tensors}


def errors(addresses: list[str], truth: Gradients, found: Gradients, sizes: Mapping[str, int]) -> list[float]:
    """Decades, for every layer but the last one."""
    last = addresses[-1]

    def ratio(gradients: Gradients, address: str) -> float:
        one, end = gradients[address], gradients[last]
        return (one.rms * one.weight_rms * sizes[address] ** 0.5) / (end.rms * end.weight_rms * sizes[last] ** 0.5)

    both = [each for each in addresses[:-1] if each in found and found[each].rms > 0 and truth[each].rms > 0]
    if last not in found or found[last].rms == 0:
        return []
    return [abs(math.log10(ratio(found, each) / ratio(truth, each))) for each in both]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="*")
    parser.add_argument("--write", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lines = ["# Estimated gradients beside the true ones", "", "| net | layers | first / last, true | growth: worst | "
             "directions: worst |", "|---|---:|---:|---:|---:|"]  # fmt: skip
    collected: dict[str, list[float]] = {"growth": [], "directions": []}
    for name, build in nets():
        if not fnmatchcase(name, arguments.only):
            continue
        addresses, truth, grown, aimed, sizes = measured(*build())
        first, last = truth[addresses[0]], truth[addresses[-1]]
        ratio = first.rms * first.weight_rms * sizes[addresses[0]] ** 0.5
        ratio /= last.rms * last.weight_rms * sizes[addresses[-1]] ** 0.5
        by = {"growth": errors(addresses, truth, grown, sizes), "directions": errors(addresses, truth, aimed, sizes)}
        for way, values in by.items():
            collected[way] += values
        worst = [f"{max(values):.2f}" if values else "-" for values in by.values()]
        lines.append(f"| {name} | {len(addresses)} | {ratio:.2g} | {worst[0]} | {worst[1]} |")
        print(lines[-1], flush=True)
    lines.append("")
    for way, values in collected.items():
        ordered = sorted(values)
        median, most = statistics.median(ordered), ordered[int(0.95 * len(ordered))]
        lines.append(f"- {way}: median {median:.2f} decades, 95 % within {most:.2f}, worst {ordered[-1]:.2f}")
    print("\n".join(lines[-2:]))
    if arguments.write:
        arguments.write.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
