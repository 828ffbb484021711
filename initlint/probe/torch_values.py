"""Values for a module's inputs, made up from its first layers and from the names of forward's parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from ..settings import SEEDS
from .blank_inputs import MASK_NAME

SEQUENCE = 8
"""Inferred sequences have so many positions."""

IMAGES = (64, 224, 32, 28, 84, 96, 128, 256, 299, 512)
"""Heights and widths that are tried: small enough to be quick, then those of well-known data sets."""

LENGTHS = (64, 224, 1024, 16, 128, 256, 4096, 16000)
"""Lengths of one-dimensional signals that are tried."""

VOLUMES = (16, 32, 64, 128)

_STEPS = 1000
"""Time steps of a diffusion model are drawn below this (Ho et al. 2020)."""

_IMAGE_NAME = re.compile(r"^(im|img|imgs|image|images|pixel_values|pixels|video|frames)$")
_TOKEN_NAME = re.compile(r"^(.*_)?(ids|idx|tokens?|input_ids|indices|words|src|tgt|trg)$")
_STEP_NAME = re.compile(r"^(t|ts|time|times|timesteps?|time_steps?|step|steps|sigma|sigmas|noise_level|noise_levels)$")
_LABEL_NAME = re.compile(r"^(y|c|cls|labels?|class_labels?|classes|target|targets|class_ids?)$")
_LENGTH_NAME = re.compile(r"len")
_CONTEXT_NAME = re.compile(r"^(context|cond|condition|conditioning|memory|encoder_hidden_states|ctx|cross)$")

Make = Callable[[int], torch.Tensor]
"""Makes a tensor for a batch of that many samples."""

Variant = Callable[[str, torch.Tensor], object]
"""The value of one more required parameter, by its name and the first one's value."""


def is_token_name(name: str) -> bool:
    """Whether an argument of that name is to be looked up in a table."""
    return bool(_TOKEN_NAME.match(name))


def dtype_of(module: nn.Module) -> torch.dtype:
    """The type of the module's first floating-point parameter; float32 if it has none."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


@dataclass
class Maker:
    """Draws tensors for one module. Every call starts from the seed, so equal shapes hold equal values."""

    module: nn.Module
    seed: int
    device: torch.device
    sequence: int = SEQUENCE
    tables: list[int] = field(init=False)
    """Rows of its embeddings, in order."""

    def __post_init__(self) -> None:
        self.dtype = dtype_of(self.module)
        kinds = (nn.Embedding, nn.EmbeddingBag)
        self.tables = [each.num_embeddings for each in self.module.modules() if isinstance(each, kinds)]

    def numbers(self, shape: Sequence[int], salt: int = 0) -> torch.Tensor:
        """Standard normal; another ``salt`` draws other values."""
        generator = torch.Generator().manual_seed((self.seed + 7919 * salt) % SEEDS)
        return torch.randn(tuple(shape), generator=generator).to(self.device, self.dtype)

    def integers(self, shape: Sequence[int], limit: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randint(0, max(1, limit), tuple(shape), generator=generator).to(self.device)

    def like(self, tensor: torch.Tensor, salt: int = 0) -> torch.Tensor:
        """Random values in its shape and type: numbers; or rows, of the first table or, with a salt, of any."""
        if tensor.is_floating_point():
            return self.numbers(tensor.shape, salt).to(tensor)
        rows = self.tables if salt else self.tables[:1]
        return self.integers(tensor.shape, min(rows, default=1)).to(tensor)

    def _fractions(self, batch: int) -> torch.Tensor:
        """Times between 0 and 1: where an embedding of large steps is fed these, its scale is the same."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand((batch,), generator=generator).to(self.device, self.dtype)

    # -- the first parameter -----------------------------------------------------------------------------------------

    def primaries(self, name: str) -> Iterator[Make]:
        """What forward's first parameter may be; each shape once."""
        seen: set[tuple[object, ...]] = set()
        for shape, limit in self._shapes(name):
            if (shape, limit) not in seen:
                seen.add((shape, limit))
                yield partial(self._made, shape, limit)

    def fills(self) -> Iterator[Callable[[str, tuple[int, ...]], torch.Tensor]]:
        """How shapes that the user gave may be filled: numbers, or rows of a table where there is one."""
        if self._first_is_table():
            yield self._looked_up
        yield self._named
        if self.tables and not self._first_is_table():
            yield self._looked_up

    def _looked_up(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return self._named(name, shape) if MASK_NAME.search(name) else self.integers(shape, self.tables[0])

    def _named(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if MASK_NAME.search(name):
            return torch.ones(shape, dtype=torch.long, device=self.device)
        if _TOKEN_NAME.match(name) and self.tables:
            return self.integers(shape, self.tables[0])
        if _STEP_NAME.match(name) and len(shape) <= 1:
            return self.integers(shape, _STEPS)
        return self.numbers(shape)

    def _first_is_table(self) -> bool:
        return next((limit for _, limit in self._by_layers()), 0) > 0

    def _made(self, shape: tuple[int, ...], limit: int, batch: int) -> torch.Tensor:
        """-1 stands for the batch."""
        sizes = tuple(batch if size == -1 else size for size in shape)
        return self.integers(sizes, limit) if limit else self.numbers(sizes)

    def _shapes(self, name: str) -> Iterator[tuple[tuple[int, ...], int]]:
        """(shape, exclusive limit of integers or 0 for numbers); -1 is the batch."""
        if _IMAGE_NAME.match(name):
            yield from self._images()
        if _TOKEN_NAME.match(name) and self.tables:
            yield (-1, self.sequence), self.tables[0]
        yield from self._by_layers()
        yield from self._by_parameters()
        yield from self._images()

    def _images(self) -> Iterator[tuple[tuple[int, ...], int]]:
        sizes = [getattr(self.module, name, None) for name in ("image_size", "img_size", "input_resolution")]
        own = tuple(size for size in sizes if isinstance(size, int))
        channels = getattr(self.module, "in_channels", None) or getattr(self.module, "channels", None)
        wide = channels if isinstance(channels, int) else 3
        for size in (*own, 224, *IMAGES):
            yield (-1, wide, size, size), 0

    def _by_layers(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """What the first few layers would take, the very first one's sizes all before the next one's."""
        leaves = [each for each in self.module.modules() if type(each) in _FIRST or isinstance(each, _BASES)]
        for layer in leaves[:4]:
            yield from _shapes_of(layer, self.sequence)

    def _by_parameters(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Bare parameters: a matrix multiplies either way."""
        for parameter in list(self.module.parameters())[:3]:
            for size in dict.fromkeys(reversed(parameter.shape)):
                yield (-1, size), 0
                yield (-1, self.sequence, size), 0

    # -- further parameters -------------------------------------------------------------------------------------------

    def variants(self, names: Sequence[str]) -> Iterator[Variant]:
        """Ways to fill further required parameters; one where there are none."""
        steps = (False, True) if any(_STEP_NAME.match(name) for name in names) else (False,)
        widths = self._widths() if any(_CONTEXT_NAME.match(name) for name in names) else []
        for width in (*widths, 0):
            for whole in steps:
                yield partial(self._further, whole_steps=whole, width=width)

    def _widths(self) -> list[int]:
        """Widths that a context may have: what keys and values are made from."""
        keyed = re.compile(r"(to_k|to_v|to_kv|key|value|k_proj|v_proj|context\w*|cond\w*)(\.|$)")
        linear = [(name, each) for name, each in self.module.named_modules() if isinstance(each, nn.Linear)]
        wanted = [each.in_features for name, each in linear if keyed.search(name)]
        attended = [each.kdim for each in self.module.modules() if isinstance(each, nn.MultiheadAttention)]
        return list(dict.fromkeys([*attended, *wanted, *(each.in_features for _, each in linear)]))[:4]

    def _further(self, name: str, first: torch.Tensor, *, whole_steps: bool, width: int) -> torch.Tensor:
        batch = first.shape[0] if first.ndim else 1
        if MASK_NAME.search(name):
            shape = first.shape[:2] if first.ndim > 1 else first.shape
            return torch.ones(tuple(shape), dtype=torch.long, device=self.device)
        if _STEP_NAME.match(name):
            return self.integers((batch,), _STEPS) if whole_steps else self._fractions(batch)
        if _LABEL_NAME.match(name) and self.tables:
            return self.integers((batch,), min(self.tables))
        if _LENGTH_NAME.search(name):
            return torch.full((batch,), first.shape[1] if first.ndim > 1 else 1, dtype=torch.long)
        if _TOKEN_NAME.match(name) and self.tables:
            return self.integers((batch, self.sequence), self.tables[-1] if "t" in name[:3] else self.tables[0])
        if width:
            return self.numbers((batch, self.sequence, width), salt=1)
        if first.is_floating_point():
            return self.numbers(first.shape, salt=1)
        return first.clone()


_FIRST = {nn.Embedding, nn.EmbeddingBag, nn.Linear, nn.Bilinear, nn.MultiheadAttention, nn.LayerNorm, nn.GroupNorm}
_BASES = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.Linear,
    nn.Embedding,
)


def _shapes_of(layer: nn.Module, sequence: int) -> Iterator[tuple[tuple[int, ...], int]]:
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        yield (-1, sequence), layer.num_embeddings
        yield (-1,), layer.num_embeddings
    elif isinstance(layer, nn.modules.conv._ConvNd):
        rank = len(layer.kernel_size)
        for size in {1: LENGTHS, 2: IMAGES, 3: VOLUMES}[rank]:
            yield (-1, layer.in_channels, *(size,) * rank), 0
    elif isinstance(layer, nn.Linear):
        yield (-1, layer.in_features), 0
        yield (-1, sequence, layer.in_features), 0
        if (side := round(layer.in_features**0.5)) ** 2 == layer.in_features:  # flattened images of digits
            yield (-1, 1, side, side), 0
        if (side := round((layer.in_features / 3) ** 0.5)) ** 2 * 3 == layer.in_features:
            yield (-1, 3, side, side), 0
    elif isinstance(layer, nn.RNNBase):
        batch_first = (-1, sequence, layer.input_size)
        yield (batch_first if layer.batch_first else (sequence, -1, layer.input_size)), 0
    elif isinstance(layer, nn.RNNCellBase):
        yield (-1, layer.input_size), 0
        yield (-1, sequence, layer.input_size), 0
    else:
        yield from _normed_shapes(layer, sequence)


def _normed_shapes(layer: nn.Module, sequence: int) -> Iterator[tuple[tuple[int, ...], int]]:
    if isinstance(layer, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        layer = layer.self_attn
    if isinstance(layer, nn.MultiheadAttention):
        yield ((-1, sequence, layer.embed_dim) if layer.batch_first else (sequence, -1, layer.embed_dim)), 0
    elif isinstance(layer, nn.LayerNorm):
        yield (-1, sequence, *layer.normalized_shape), 0
        yield (-1, *layer.normalized_shape), 0
    elif isinstance(layer, nn.Bilinear):
        yield (-1, layer.in1_features), 0
    elif isinstance(layer, nn.modules.batchnorm._NormBase | nn.GroupNorm):
        channels = layer.num_channels if isinstance(layer, nn.GroupNorm) else layer.num_features
        rank = next((int(digit) for digit in type(layer).__name__ if digit.isdigit()), 2)
        if rank == 1:
            yield (-1, channels), 0
        yield (-1, channels, *(16,) * rank), 0
