"""Faults planted into one tensor of a healthy model, and where each of them is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from . import attention, normed, plain, recurrent
from .initialised import Built


class Fault(StrEnum):
    ZEROS = "zeros"
    CONSTANT = "constant"
    HALF_DUPLICATED = "half-duplicated"
    NAN = "nan"
    LOUD = "x100"
    QUIET = "x0.01"
    RELU_BIAS = "relu-bias-10"
    SIGMOID_BIAS = "sigmoid-bias+10"


RECURRENT_GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}
WEIGHTED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding, nn.LSTM, nn.GRU, nn.RNN, nn.MultiheadAttention)


def plant(module: nn.Module, address: str, fault: Fault | str) -> None:
    """Break the parameter at ``address`` ("blocks.0.fc1.weight") in place."""
    fault = Fault(fault)
    tensor = module.get_parameter(address)
    with torch.no_grad():
        if fault is Fault.ZEROS:
            tensor.zero_()
        elif fault is Fault.CONSTANT:
            # its own rms: the scale stays, so that nothing but the symmetry is wrong
            tensor.fill_(float(tensor.square().mean().sqrt()) or 0.05)
        elif fault is Fault.HALF_DUPLICATED:
            for units in unit_blocks(module, address):
                half = units.shape[0] // 2
                units[half : 2 * half] = units[:half]
        elif fault is Fault.NAN:
            tensor.view(-1)[0] = torch.nan
        elif fault is Fault.LOUD:
            tensor.mul_(100.0)
        elif fault is Fault.QUIET:
            tensor.mul_(0.01)
        else:
            tensor.fill_(-10.0 if fault is Fault.RELU_BIAS else 10.0)


def unit_blocks(module: nn.Module, address: str) -> Iterator[Tensor]:
    """Views of a weight with units first, one per group, gate or packed projection: where units can be twins."""
    owner = module.get_submodule(address.rpartition(".")[0])
    weight = module.get_parameter(address).data
    if isinstance(owner, nn.ConvTranspose2d):
        yield from (block.transpose(0, 1) for block in weight.chunk(owner.groups))
    elif isinstance(owner, nn.Conv2d):
        yield from weight.chunk(owner.groups)
    elif isinstance(owner, nn.LSTM | nn.GRU | nn.RNN):
        yield from weight.chunk(RECURRENT_GATES[type(owner)])
    elif address.endswith(("qkv.weight", "in_proj_weight")):
        yield from weight.chunk(3)
    else:
        yield weight


@dataclass(frozen=True)
class Healthy:
    """A healthy model and what is known of its layers; patterns match parameter addresses."""

    name: str
    build: Callable[..., Built]
    unnormed: tuple[str, ...] = ()
    """Weights with no normalisation anywhere behind them: x100 shows."""
    deep_plain: tuple[str, ...] = ()
    """Weights of a plain net so deep that x0.01 in one of them counts."""
    into_relu: tuple[str, ...] = ()
    """Biases (and shifts of norms) that a ReLU reads directly."""
    into_sigmoid: tuple[str, ...] = ()
    """Biases that a sigmoid reads directly and that are no gates."""
    zero_is_idiom: tuple[str, ...] = ()
    """Weights that are zeroed on purpose: ends of residual branches, heads. A note suffices there."""

    def faults(self) -> Iterator[tuple[str, Fault]]:
        """Every (address, fault) that is a fault of this model."""
        module, _ = self.build(seed=0)
        for address, parameter in module.named_parameters():
            if _matches(address, self.into_relu):
                yield address, Fault.RELU_BIAS
            if _matches(address, self.into_sigmoid):
                yield address, Fault.SIGMOID_BIAS
            owner = module.get_submodule(address.rpartition(".")[0])
            if parameter.ndim < 2 or not isinstance(owner, WEIGHTED):
                continue
            yield from ((address, fault) for fault in (Fault.ZEROS, Fault.CONSTANT, Fault.NAN))
            # rows of a table are no units: which of them are read differs from sample to sample
            if not isinstance(owner, nn.Embedding) and next(unit_blocks(module, address)).shape[0] > 1:
                yield address, Fault.HALF_DUPLICATED
            if _matches(address, self.unnormed):
                yield address, Fault.LOUD
            if _matches(address, self.deep_plain):
                yield address, Fault.QUIET

    def zero_suffices_as_note(self, address: str) -> bool:
        return _matches(address, self.zero_is_idiom)


def _matches(address: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(address, pattern) for pattern in patterns)


def _deep(build: Callable[..., Built], depth: int) -> Callable[..., Built]:
    def deep(seed: int = 0) -> Built:
        return build(seed=seed, depth=depth)

    return deep


def _hidden(suffix: str, *indices: int) -> tuple[str, ...]:
    return tuple(f"{index}.{suffix}" for index in indices)


HEALTHY = (
    Healthy(
        "relu-mlp",
        plain.relu_mlp,
        unnormed=("*.weight",),
        into_relu=_hidden("bias", 0, 2, 4),
        zero_is_idiom=("6.weight",),
    ),
    Healthy(
        "relu-mlp-deep",
        _deep(plain.relu_mlp, 10),
        unnormed=("*.weight",),
        deep_plain=_hidden("weight", *range(0, 18, 2)),
        into_relu=_hidden("bias", *range(0, 18, 2)),
        zero_is_idiom=("18.weight",),
    ),
    Healthy(
        "relu-cnn",
        plain.relu_cnn,
        unnormed=("*.weight",),
        into_relu=_hidden("bias", 0, 2, 4, 6, 8),
        zero_is_idiom=("11.weight",),
    ),
    Healthy("tanh-mlp", plain.tanh_mlp, unnormed=("*.weight",), zero_is_idiom=("6.weight",)),
    Healthy(
        "tanh-mlp-deep",
        _deep(plain.tanh_mlp, 10),
        unnormed=("*.weight",),
        deep_plain=_hidden("weight", *range(0, 18, 2)),
        zero_is_idiom=("18.weight",),
    ),
    Healthy(
        "sigmoid-mlp",
        plain.sigmoid_mlp,
        unnormed=("*.weight",),
        into_sigmoid=_hidden("bias", 0, 2),
        zero_is_idiom=("4.weight",),
    ),
    Healthy(
        "batchnorm-resnet",
        normed.batchnorm_resnet,
        unnormed=("head.weight",),
        into_relu=("norm.bias", "blocks.*.bn1.bias"),
        zero_is_idiom=("head.weight", "blocks.*.conv2.weight"),
    ),
    Healthy(
        "vit",
        attention.vit,
        unnormed=("head.weight",),
        zero_is_idiom=("head.weight", "blocks.*.proj.weight", "blocks.*.fc2.weight"),
    ),
    Healthy(
        "gpt",
        attention.gpt,
        unnormed=("head.weight",),
        zero_is_idiom=("head.weight", "blocks.*.proj.weight", "blocks.*.fc2.weight", "positions.weight"),
    ),
    Healthy(
        "lstm-classifier",
        recurrent.lstm,
        unnormed=("embedding.weight", "cell.weight_*", "head.weight"),
        zero_is_idiom=("head.weight",),
    ),
)
"""The models whose silence and whose planted faults are the first bars; ``benchmarks/first_light.py`` measures them."""
