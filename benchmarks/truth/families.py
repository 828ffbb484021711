"""Families of architectures, each with its task, its healthy twin, and the places that initialisations speak of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor, nn
from training import parts_of

from . import blocks, more_blocks, more_sequences, sequences
from .blocks import mlp

RELU = 2**0.5
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
TABLES = ("positions", "latents")


@dataclass(frozen=True)
class Family:
    """Patterns are of modules' or parameters' names; where a place does not exist, an initialisation does not apply."""

    name: str
    task: str
    """Names one of ``training.tasks()``."""
    make: Callable[[], nn.Module]
    gain: float
    """The twin draws normal weights of this gain over the root of the fan-in, and zero biases; 0: torch's default."""
    heads: tuple[str, ...] = ("head.weight",)
    ends: tuple[str, ...] = ()
    """Last maps of residual branches, of which no norm follows."""
    gains: tuple[str, ...] = ()
    """Last gains of residual branches."""
    branch: tuple[str, ...] = ()
    """All maps of one residual branch, or both of a gate."""
    plain: bool = False
    """Hidden maps follow each other in the order of their names, with nothing beside them."""

    def build(self) -> nn.Module:
        """The healthy twin, drawn from the global generator."""
        module = self.make()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if is_table(module, name):
                    nn.init.normal_(parameter, std=1.0 if self.gain else 0.02)
                elif is_stack(module, name):  # stacked experts have no default of torch's
                    for piece in parameter:
                        nn.init.kaiming_normal_(piece)
            if self.gain:
                draw(module, self, lambda piece: nn.init.normal_(piece, std=self.gain * fan_in(piece) ** -0.5))
        return module


def fan_in(piece: Tensor) -> int:
    return piece[0].numel()


def is_table(module: nn.Module, name: str) -> bool:
    return name.rpartition(".")[2] in TABLES or isinstance(owner(module, name), nn.Embedding)


def is_stack(module: nn.Module, name: str) -> bool:
    return module.get_parameter(name).ndim == 3 and not isinstance(owner(module, name), nn.Conv1d)


def owner(module: nn.Module, name: str) -> nn.Module:
    return module.get_submodule(name.rpartition(".")[0])


def matching(module: nn.Module, patterns: tuple[str, ...]) -> list[str]:
    names = [name for name, _ in module.named_parameters()]
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def maps(module: nn.Module) -> list[str]:
    """Weights that multiply a signal: no tables, norms or biases."""
    return [n for n, p in module.named_parameters() if p.ndim > 1 and not is_table(module, n)]


def hidden(module: nn.Module, family: Family) -> list[str]:
    return [name for name in maps(module) if name not in matching(module, family.heads)]


def biases(module: nn.Module, of: list[str]) -> list[str]:
    """Biases of the maps named in ``of``."""
    names = {name.replace("weight", "bias") for name in of if "weight" in name}
    return [name for name, p in module.named_parameters() if name in names and p.ndim == 1]


def norm_gains(module: nn.Module) -> list[str]:
    return [
        f"{name}.weight" for name, each in module.named_modules() if isinstance(each, NORMS) and each.weight is not None
    ]


def pieces(module: nn.Module, name: str) -> Iterator[Tensor]:
    """Views of a weight as (units, fan-in...): gates and experts apart."""
    weight, parts = module.get_parameter(name), parts_of(module, name)
    if parts:
        yield from weight.chunk(len(parts))
    elif is_stack(module, name):
        yield from weight
    else:
        yield weight


def draw(module: nn.Module, family: Family, drawn: Callable[[Tensor], object]) -> tuple[str, ...]:
    """Redraw all maps, and set the biases to zero."""
    names = maps(module)
    with torch.no_grad():
        for name in names:
            for piece in pieces(module, name):
                drawn(piece)
        for name in biases(module, names):
            module.get_parameter(name).zero_()
    return tuple(names)


FAMILIES = (
    Family("relu-3", "flat", partial(mlp, 64, 32, 32, 32, 10), RELU, plain=True),
    Family("relu-8", "flat", partial(mlp, 64, *[32] * 8, 10), RELU, plain=True),
    Family("tanh-5", "flat", partial(mlp, 64, *[32] * 5, 10, act=nn.Tanh), 1.0, plain=True),
    Family("gelu-wave-4", "wave", partial(mlp, 2, *[32] * 4, 1, act=nn.GELU), RELU, plain=True),
    Family("selu-6", "flat", partial(mlp, 64, *[32] * 6, 10, act=nn.SELU), 1.0, plain=True),
    Family("batch-norm-4", "flat", partial(mlp, 64, *[32] * 4, 10, norm=nn.BatchNorm1d), RELU, plain=True),
    Family("layer-norm-3", "flat", partial(mlp, 64, *[32] * 3, 10, act=nn.SiLU, norm=nn.LayerNorm), 0, plain=True),
    Family(
        "residual",
        "flat",
        partial(blocks.Residual, 64, 10),
        0,
        ends=("blocks.*.fc2.weight",),
        branch=("blocks.1.fc*.weight",),
    ),
    Family(
        "residual-unnormed",
        "flat",
        partial(blocks.Residual, 64, 10, norm=False),
        0,
        ends=("blocks.*.fc2.weight",),
        branch=("blocks.1.fc*.weight",),
    ),
    Family(
        "gated",
        "flat",
        blocks.Gated,
        0,
        ends=("blocks.*.down.weight",),
        branch=("blocks.1.gate.weight", "blocks.1.up.weight"),
    ),
    Family("convolutional", "image", blocks.convolutional, RELU, heads=("9.weight",), plain=True),
    Family("resnet", "image", blocks.ResNet, 0, gains=("blocks.*.bn2.weight",), branch=("blocks.1.conv*.weight",)),
    Family("depthwise", "image", blocks.depthwise, RELU, heads=("11.weight",), plain=True),
    Family("autoencoder", "restore", blocks.Autoencoder, RELU, plain=True),
    Family("experts", "flat", blocks.Experts, 0, ends=("down",), branch=("up", "down")),
    Family("graph", "image", blocks.Graph, 0, branch=("messages.1.weight", "own.1.weight")),
    Family("heads", "flat", blocks.Heads, 0, heads=("left.2.weight", "right.2.weight")),
    Family(
        "conditioned",
        "denoise",
        blocks.Conditioned,
        0,
        ends=("blocks.*.fc2.weight",),
        branch=("blocks.1.modulation.weight", "blocks.1.fc2.weight"),
    ),
    Family(
        "encoder",
        "rows",
        sequences.Encoder,
        0,
        ends=("blocks.*.proj.weight", "blocks.*.fc2.weight"),
        branch=("blocks.0.attention.query.weight", "blocks.0.attention.key.weight"),
    ),
    Family(
        "decoder",
        "echo",
        sequences.Decoder,
        0,
        ends=("blocks.*.proj.weight", "blocks.*.fc2.weight"),
        branch=("blocks.0.fc*.weight",),
    ),
    Family("lstm", "rows", sequences.Lstm, 0),
    # of the second split
    Family("mish-6", "binary", partial(mlp, 64, *[32] * 6, 1, act=nn.Mish), RELU, plain=True),
    Family("sigmoid-2", "flat", partial(mlp, 64, 32, 32, 10, act=nn.Sigmoid), 1.0, plain=True),
    Family("weight-norm", "flat", more_blocks.weight_normed, RELU, plain=True),
    Family("highway", "flat", more_blocks.Highway, 0, branch=("transforms.2.weight", "gates.2.weight")),
    Family(
        "switch",
        "flat",
        more_blocks.Switch,
        0,
        ends=("experts.*.2.weight",),
        branch=("experts.1.*.weight",),
    ),
    Family("exits", "flat", more_blocks.Exits, 0, heads=("exits.*.weight",)),
    Family("siamese", "critic", more_blocks.Siamese, 0),
    Family("factorised", "flat", more_blocks.Factorised, 0, branch=("left.weight", "right.weight")),
    Family("hypernetwork", "denoise", more_blocks.Hypernetwork, 0, branch=("hyper.*.weight",)),
    Family("u-net", "denoise", more_blocks.UNet, 0, branch=("bottom.weight", "up.weight")),
    Family("deconvolutional", "restore-image", more_blocks.deconvolutional, 0, heads=("8.weight",), plain=True),
    Family("dense", "image", more_blocks.Dense, 0),
    Family("inception", "image", more_blocks.inception, RELU, heads=("6.weight",), branch=("2.reduce3*", "2.three*")),
    Family(
        "squeeze-excite",
        "image",
        more_blocks.SqueezeExciteNet,
        0,
        gains=("blocks.*.norm2.weight",),
        branch=("blocks.1.squeeze.weight", "blocks.1.excite.weight"),
    ),
    Family(
        "mixer",
        "image",
        more_blocks.Mixer,
        0,
        ends=("blocks.*.places2.weight", "blocks.*.fc2.weight"),
        gains=("blocks.*.scale?",),
        branch=("blocks.1.places?.weight",),
    ),
    Family("graph-attention", "image", more_blocks.GraphAttention, 0, branch=("sources.1.weight", "targets.1.weight")),
    Family(
        "vit",
        "image",
        more_sequences.VisionTransformer,
        0,
        ends=("blocks.*.out_proj.weight", "blocks.*.fc2.weight"),
        branch=("blocks.0.fc?.weight",),
    ),
    Family(
        "post-norm",
        "tokens",
        more_sequences.PostNorm,
        0,
        ends=("blocks.*.proj.weight", "blocks.*.fc2.weight"),
        branch=("blocks.1.fc?.weight",),
    ),
    Family(
        "reader",
        "rows",
        more_sequences.Reader,
        0,
        ends=("reads.*.proj.weight",),
        branch=("reads.0.query.weight", "reads.0.key.weight"),
    ),
    Family("recurrent", "rows", more_sequences.Recurrent, 0),
    Family("gru-attention", "rows", more_sequences.Pooled, 0, branch=("inner.weight", "score.weight")),
    Family(
        "state-space",
        "rows",
        more_sequences.StateSpace,
        0,
        ends=("blocks.*.leave.weight",),
        branch=("blocks.1.enter.weight", "blocks.1.gate.weight"),
    ),
    Family(
        "temporal",
        "echo",
        more_sequences.Temporal,
        0,
        ends=("blocks.*.fc.weight",),
        branch=("blocks.1.*.weight",),
    ),
    Family("bag", "tokens", more_sequences.Bag, 0),
    Family(
        "gated-decoder",
        "echo",
        more_sequences.GatedDecoder,
        0,
        heads=(),
        ends=("blocks.*.proj.weight", "blocks.*.down.weight"),
        branch=("blocks.0.gate.weight", "blocks.0.up.weight"),
    ),
)
