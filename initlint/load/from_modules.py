"""A PyTorch module as a Model without running it: the layers of the classes it knows, their weights, no dataflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..kinds import Kind, Role
from ..model import Layer, Model, NotChecked, Tensor, View
from .blocks import blocks
from .eager import untouched
from .folding import Array
from .from_torch import to_numpy
from .stored import Stored, StoredTransposedConv

_NORMS: Mapping[type[nn.Module], Kind] = {
    nn.modules.batchnorm._BatchNorm: Kind.BATCH_NORM,
    nn.modules.instancenorm._InstanceNorm: Kind.INSTANCE_NORM,
    nn.LayerNorm: Kind.LAYER_NORM,
    nn.GroupNorm: Kind.GROUP_NORM,
    nn.RMSNorm: Kind.RMS_NORM,
}
_RECURRENT = {"LSTM": (Kind.LSTM, ("i", "f", "g", "o")), "GRU": (Kind.GRU, ("r", "z", "n")), "RNN": (Kind.RNN, ())}

_QKV = ("q", "k", "v")


@dataclass(frozen=True)
class StaticModule:
    """The neutral model and access to weights by address."""

    model: Model
    values: Mapping[str, torch.Tensor]
    stored_at: Mapping[str, Stored]

    def chunks(self, address: str) -> Iterator[Array]:
        """Rows (n, fan_in) of the canonical view, in order."""
        array = to_numpy(self.values[address])
        if array is not None and array.size:
            stored = self.stored_at[address]
            yield from blocks(stored.rows(array), stored.view.fan_in, lambda: None)


def read(module: nn.Module) -> StaticModule:
    """Every layer of a known class in the order of registration, and every other floating-point tensor."""
    reader = _Reader()
    with untouched(module), torch.no_grad():  # a parametrised weight is computed when it is asked for
        for name, each in module.named_modules():
            reader.visit(name, each)
        reader.take_the_rest(module)
    tensors = tuple(reader.tensors.values())
    model = Model(
        format="torch",
        layers=tuple(reader.layers),
        tensors=tensors,
        parameters=sum(tensor.size for tensor in tensors if tensor.trainable),
        not_checked=tuple(reader.not_checked),
        valueless=tuple(address for address, value in reader.values.items() if value.is_meta),
        buffers=frozenset(name for name, _ in module.named_buffers()),
        producer=f"pytorch {torch.__version__}",
    )
    return StaticModule(model, reader.values, reader.stored)


@dataclass
class _Reader:
    layers: list[Layer] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, torch.Tensor] = field(default_factory=dict)
    stored: dict[str, Stored] = field(default_factory=dict)
    not_checked: list[NotChecked] = field(default_factory=list)
    _address_of: dict[int, str] = field(default_factory=dict)

    def visit(self, name: str, module: nn.Module) -> None:
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if any(is_lazy(tensor) for tensor in own):
            self.not_checked.append(
                NotChecked(name or "the module", "it is lazy and has no weights before a first run")
            )
        elif isinstance(module, nn.Linear):
            out, inputs = module.out_features, module.in_features
            self._map(name, module, Kind.LINEAR, View(1, out, inputs), inputs, out)
        elif isinstance(module, nn.modules.conv._ConvTransposeNd):
            self._transposed(name, module)
        elif isinstance(module, nn.modules.conv._ConvNd):
            units, kernel = module.out_channels // module.groups, prod(module.kernel_size)
            fan_in = module.in_channels // module.groups * kernel
            self._map(name, module, Kind.CONV, View(module.groups, units, fan_in), fan_in, units * kernel)
        elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
            rows, width = module.num_embeddings, module.embedding_dim
            weight = self._take(_at(name, "weight"), module.weight, Role.TABLE, View(1, rows, width))
            self.layers.append(Layer(name, Kind.EMBEDDING, weight, fan_out=width))
        elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
            self._recurrences(name, module)
        elif isinstance(module, nn.MultiheadAttention):
            self._attention(name, module)
        elif isinstance(module, nn.PReLU):
            slope = self._vector(_at(name, "weight"), module.weight, Role.SLOPE)
            self.layers.append(Layer(name, Kind.PRELU, slope))
        else:
            self._norm(name, module)

    def _map(self, name: str, module: nn.Module, kind: Kind, view: View, fan_in: int, fan_out: int) -> None:
        weight = self._take(_at(name, "weight"), _tensor(module, "weight"), Role.WEIGHT, view)
        bias = self._optional(name, module, "bias", Role.BIAS)
        self.layers.append(Layer(name, kind, weight, bias, fan_in=fan_in, fan_out=fan_out))

    def _transposed(self, name: str, module: nn.modules.conv._ConvTransposeNd) -> None:
        groups, kernel = module.groups, prod(module.kernel_size)
        inputs, units = module.in_channels // groups, module.out_channels // groups
        fan_in = max(1, round(inputs * kernel / max(1, prod(module.stride))))
        self._map(name, module, Kind.CONV_TRANSPOSE, View(groups, units, inputs * kernel), fan_in, units * kernel)

    def _recurrences(self, name: str, module: nn.RNNBase | nn.RNNCellBase) -> None:
        kind, parts = _RECURRENT[type(module).__name__.removesuffix("Cell")] if _is_plain(module) else (Kind.RNN, ())
        cells = [key.removeprefix("weight_ih") for key, _ in module.named_parameters() if key.startswith("weight_ih")]
        for tail in cells or ([""] if hasattr(module, "weight_ih") else []):
            matrix, recurrent = _tensor(module, f"weight_ih{tail}"), _tensor(module, f"weight_hh{tail}")
            rows, inputs = matrix.shape
            hidden = recurrent.shape[1]
            at = _at(name, f"weight_ih{tail}"), _at(name, f"weight_hh{tail}")
            short = tail.removeprefix("_")
            self.layers.append(
                Layer(
                    name if short in ("", "l0") else f"{name}.{short}",
                    kind,
                    self._take(at[0], matrix, Role.WEIGHT, View(1, rows, inputs), parts),
                    self._optional(name, module, f"bias_ih{tail}", Role.BIAS, parts),
                    self._take(at[1], recurrent, Role.RECURRENT_WEIGHT, View(1, rows, hidden), parts),
                    self._optional(name, module, f"bias_hh{tail}", Role.RECURRENT_BIAS, parts),
                    fan_in=inputs,
                    fan_out=hidden,
                    segment="reverse" if tail.endswith("_reverse") else "forward",
                )
            )

    def _attention(self, name: str, module: nn.MultiheadAttention) -> None:
        """The packed projection is a layer of its own; the one to the outputs is a module that is visited anyway."""
        keys = ["in_proj_weight"] if module.in_proj_weight is not None else [f"{x}_proj_weight" for x in _QKV]
        bias = self._optional(name, module, "in_proj_bias", Role.BIAS, _QKV)
        for position, key in enumerate(keys):
            tensor, parts = _tensor(module, key), _QKV if len(keys) == 1 else ()
            out, inputs = tensor.shape
            weight = self._take(_at(name, key), tensor, Role.WEIGHT, View(1, out, inputs), parts)
            layer = name if len(keys) == 1 else _at(name, key)
            own_bias = bias if position == 0 else None
            self.layers.append(Layer(layer, Kind.LINEAR, weight, own_bias, fan_in=inputs, fan_out=out))

    def _norm(self, name: str, module: nn.Module) -> None:
        kind = next((kind for base, kind in _NORMS.items() if isinstance(module, base)), None)
        gain = getattr(module, "weight", None)
        if kind is None or gain is None:
            return
        running = (("running_mean", Role.RUNNING_MEAN), ("running_var", Role.RUNNING_VARIANCE))
        found = (self._optional(name, module, key, role) for key, role in running)
        others = tuple(tensor for tensor in found if tensor is not None)
        weight, shift = self._vector(_at(name, "weight"), gain, Role.GAIN), None
        shift = self._optional(name, module, "bias", Role.SHIFT)
        self.layers.append(Layer(name, kind, weight, shift, others=others))

    def take_the_rest(self, module: nn.Module) -> None:
        """Positions, tokens, scales, masks: what no known layer owns."""
        taken = {id(value) for value in self.values.values()}
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if id(tensor) in taken or name in self.values or is_lazy(tensor) or ".parametrizations." in f".{name}":
                continue
            if tensor.is_floating_point() and tensor.numel() > 1:
                trainable = isinstance(tensor, nn.Parameter)
                self._take(name, tensor, Role.OTHER, View(1, tensor.numel(), 1), trainable=trainable)

    def _optional(
        self, name: str, module: nn.Module, key: str, role: Role, parts: tuple[str, ...] = ()
    ) -> Tensor | None:
        value = getattr(module, key, None)
        return self._vector(_at(name, key), value, role, parts) if isinstance(value, torch.Tensor) else None

    def _vector(self, address: str, tensor: torch.Tensor, role: Role, parts: tuple[str, ...] = ()) -> Tensor:
        trainable = role not in (Role.RUNNING_MEAN, Role.RUNNING_VARIANCE)
        return self._take(address, tensor, role, View(1, tensor.numel(), 1), parts, trainable)

    def _take(
        self,
        address: str,
        tensor: torch.Tensor,
        role: Role,
        view: View,
        parts: tuple[str, ...] = (),
        trainable: bool = True,
    ) -> Tensor:
        """The tensor at ``address``; a tied one keeps the address under which it was seen first."""
        first = self._address_of.get(id(tensor))
        if first is not None and self.tensors[first].view == view:
            return self.tensors[first]
        shape = tuple(tensor.shape)
        dtype = str(tensor.dtype).removeprefix("torch.")
        self.tensors[address] = Tensor(address, shape, dtype, role, view, trainable, parts)
        self.values[address] = tensor
        self._address_of[id(tensor)] = address
        transposed = role is Role.WEIGHT and len(shape) > 2 and prod(shape[:1]) != view.groups * view.units
        square = role is Role.WEIGHT and len(shape) > 2 and view.fan_in != prod(shape[1:])
        stored = StoredTransposedConv if transposed or square else Stored
        self.stored[address] = stored(address, role, shape, view)
        if tensor.is_meta:
            self.not_checked.append(NotChecked(address, "it is on the meta device, so it has no values yet"))
        return self.tensors[address]


def _at(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _tensor(module: nn.Module, key: str) -> torch.Tensor:
    value = getattr(module, key)
    assert isinstance(value, torch.Tensor)
    return value


def _is_plain(module: nn.Module) -> bool:
    return type(module).__name__.removesuffix("Cell") in _RECURRENT
