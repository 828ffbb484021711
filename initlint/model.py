"""The framework-neutral model: what a loader promises and all that a rule may know of an architecture.

Every class here is frozen. Shapes are in PyTorch's order whatever the file stored: a linear weight is (out, in), a
convolution (out, in / groups, *kernel), a transposed convolution (in, out / groups, *kernel), a table (rows, width).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from . import activations
from .kinds import Kind, Role, Source, Use
from .maker import Maker, plain


@dataclass(frozen=True, slots=True)
class View:
    """The canonical view (groups, units, fan_in) of a weight.

    Units of one group read the same input, hence can be symmetric; units of different groups cannot.
    ``units`` counts per group: a layer has groups * units outputs.
    """

    groups: int
    units: int
    fan_in: int

    @property
    def size(self) -> int:
        return self.groups * self.units * self.fan_in


@dataclass(frozen=True, slots=True)
class Tensor:
    """A stored tensor, or the effective weight that the graph computes from stored ones.

    ``parts`` names the equal blocks along the unit axis of a packed tensor ("i", "f", "g", "o"; "q", "k", "v");
    each has an address of its own. ``dtype`` is the stored type in numpy's or ml_dtypes' spelling ("float32",
    "bfloat16", "int8").
    """

    address: str
    shape: tuple[int, ...]
    dtype: str
    role: Role
    view: View
    trainable: bool = True
    parts: tuple[str, ...] = ()
    computed: bool = False
    """Arithmetic makes it of what is stored: of logarithms, of a direction and a norm, of a mask. Its stored values may
    be drawn as every other weight's, and its own then have whatever distribution the arithmetic gives."""
    repeats: bool = False
    """Rows of what is stored are looked up more than once for it, as for clipped distances: they are tied."""

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def part_addresses(self) -> tuple[str, ...]:
        """Addresses of the packed parts, or the tensor's own where it is not packed."""
        return tuple(f"{self.address}[{part}]" for part in self.parts) or (self.address,)


@dataclass(frozen=True)
class Layer:
    """One weighted operation, listed once however often it is called.

    ``fan_in`` counts the inputs summed into one output (``None`` for tables, norms and PRelu); a transposed
    convolution has in / groups * prod(kernel / stride), rounded, at least 1. ``fan_out`` is its mirror image.
    """

    name: str
    kind: Kind
    weight: Tensor
    bias: Tensor | None = None
    recurrent: Tensor | None = None
    recurrent_bias: Tensor | None = None
    others: tuple[Tensor, ...] = ()
    """Remaining tensors: running statistics, peepholes."""
    fan_in: int | None = None
    fan_out: int | None = None
    activation: str = "identity"
    """Name (see ``activations``) of the non-linearity that consumes the output, looked for behind a norm too."""
    activation_reads: activations.Affine = activations.SAME
    """What of the output ``activation`` reads: tanh(x / 15) a fifteenth; behind a norm, what of the norm's output."""
    gate: str = ""
    """Name of the first function ending at zero that the output, or a part of it, goes through; empty without one."""
    gate_reads: activations.Affine = activations.SAME
    input_activation: str = "identity"
    """Name of the non-linearity that produced the input."""
    input_values: tuple[float, ...] = ()
    """What stands between the nearest layer before it and its input, on ``activations.GRID``, where that is not just
    ``input_activation``: a non-linearity nobody has named, a slope of its own, constant factors."""
    input_known: bool = True
    """False where what stands there is no function of single values: a sum over positions, a learned scale."""
    input_source: Source = Source.MIXED
    norm_after: Kind | None = None
    """The normalisation that reads the output before any non-linearity, sum, product or other layer does, and whose
    reading is the only use of the output: then the weight's scale does not show forwards."""
    bias_removed: bool = False
    """That norm subtracts the mean of each unit over samples or places, and with it what the bias adds."""
    uses: frozenset[Use] = frozenset()
    producers: tuple[str, ...] = ()
    """Names of the layers that feed it directly, through anything without weights."""
    consumers: tuple[str, ...] = ()
    bypassed: bool = False
    """True where some path leads from an input to an output around the layer."""
    shuffles_units: bool = False
    """True where the output's units become positions (pixel shuffle): equal units are then deliberate (ICNR)."""
    multiplies_itself: bool = False
    """Two factors of one product are its own output, as in a packed projection to queries and keys."""
    learnt_input: bool = False
    """It is applied to parameters and constants alone, as to learnt queries: to the same for every sample."""
    reads_inputs: bool = False
    """Something of the model's inputs reaches it past all other layers."""
    calls: int = 1
    segment: str = ""
    """Names the recurrent direction ("forward", "reverse") or is empty."""

    @property
    def flat(self) -> tuple[float, float] | None:
        """Outside of which outputs ``activation`` is flat; None where it is not bounded, or reads what nobody knows."""
        edges, reads = activations.get(self.activation).flat, self.activation_reads
        if edges is None or not reads.known or reads.factor == 0.0:
            return None
        low, high = sorted(float(f"{reads.where(edge):.3g}") for edge in edges)
        return low, high

    @property
    def dead_below(self) -> float | None:
        """The output below which ``activation`` is dead; None where there is none, or it is not known, or is above."""
        edge, reads = activations.get(self.activation).dead_below, self.activation_reads
        return None if edge is None or not reads.known or reads.factor <= 0.0 else reads.where(edge)

    @property
    def activation_bounds_input(self) -> bool:
        """What feeds it came out of a bounded non-linearity, however loud it went in."""
        return activations.get(self.input_activation).bounded

    @property
    def input_function(self) -> activations.Activation:
        """What turns the output of the layer before it into its input."""
        if self.input_values:
            return activations.tabulated(self.input_values, self.input_activation)
        return activations.get(self.input_activation)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        optional = (self.bias, self.recurrent, self.recurrent_bias)
        return (self.weight, *(tensor for tensor in optional if tensor is not None), *self.others)


@dataclass(frozen=True, slots=True)
class NotChecked:
    """Something in the target that could not be judged, and why."""

    at: str
    reason: str


@dataclass(frozen=True, slots=True)
class Factor:
    """A tensor that no layer owns and the signal is multiplied by, or by a function of it: a scale, a gate."""

    address: str
    function: str
    """Name of the function (see ``activations``)."""
    consumers: tuple[str, ...]
    """Names of the layers that the product feeds directly."""


@dataclass(frozen=True, slots=True)
class FoldedNorm:
    """A batch normalisation that an exporter multiplied into ``layer``."""

    layer: str
    evidence: str


SCATTERED = -1
"""Stands for an axis where the parts of a packed tensor are no blocks along one, or are not known to be."""


@dataclass(frozen=True)
class Model:
    """A loaded model: layers in execution order, and every float tensor with its address."""

    format: str
    """"onnx", "torch" or "weights"."""
    layers: tuple[Layer, ...]
    tensors: tuple[Tensor, ...]
    """All floating-point tensors, those of the layers included, each once."""
    parameters: int
    """Number of trainable values."""
    not_checked: tuple[NotChecked, ...] = ()
    folded_norms: tuple[FoldedNorm, ...] = ()
    factors: tuple[Factor, ...] = ()
    """Learned scales and gates that are no layers."""
    producer: str = ""
    """The program that wrote the file, where it says so ("pytorch 2.13.0")."""
    valueless: tuple[str, ...] = ()
    """Addresses of tensors that have no values yet: those on PyTorch's meta device."""
    buffers: frozenset[str] = frozenset()
    """Addresses of the tensors that a module holds as buffers; unknown of files."""
    reordered: frozenset[str] = frozenset()
    """Addresses of what a module holds in another shape than ``shape``, as the (in, out) of a product."""
    packed_along: Mapping[str, int] = field(default_factory=dict)
    """By address of a packed tensor: the axis of what a module holds along which its parts are blocks. The first one
    where none is told; ``SCATTERED`` where they are no blocks."""
    uneditable: frozenset[str] = frozenset()
    """Addresses whose values the model computes from others, as behind a parametrisation: they cannot be set."""
    pieces: Mapping[str, str] = field(default_factory=dict)
    """By address of what is cut out of a stored tensor: where, as Python would write it ("[32:96]", "[2]")."""
    makers: Mapping[str, tuple[Maker, ...]] = field(default_factory=dict)
    """By address of a computed weight: the named tensors that it is made of, factors first."""
    leaves: tuple[Tensor, ...] = ()
    """Those of them that are not among ``tensors``, with addresses of their own."""
    tied: tuple[tuple[str, str], ...] = field(default=())
    """Pairs (layer name, address) of layers that share a tensor which another layer also uses."""

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    def layer(self, name: str) -> Layer:
        """The layer of that name; raises KeyError where there is none."""
        return self._by_name[name]

    @cached_property
    def _owners(self) -> dict[str, Layer]:
        owners: dict[str, Layer] = {}
        for layer in self.layers:
            for tensor in layer.tensors:
                for address in (tensor.address, *tensor.part_addresses):
                    owners.setdefault(address, layer)
        return owners

    @cached_property
    def _places(self) -> dict[str, Tensor]:
        every = (*self.tensors, *self.leaves)
        return {address: each for each in every for address in (*each.part_addresses, each.address)}

    def tensor(self, address: str) -> Tensor | None:
        """The tensor at ``address``, or that has a packed part there; None where there is none."""
        return self._places.get(address)

    def owner(self, address: str) -> Layer | None:
        """The first layer that uses the tensor (or part) at ``address``; None for a tensor outside every layer."""
        return self._owners.get(address)

    def is_sealed(self, address: str) -> bool:
        """Whether neither the tensor nor anything that makes it can be set."""
        return address in self.uneditable and address not in self.makers

    @cached_property
    def _upstream(self) -> dict[str, frozenset[str]]:
        upstream: dict[str, frozenset[str]] = {}
        for layer in self.layers:  # execution order: producers come first, save in recurrent loops
            known = [upstream.get(name, frozenset()) | {name} for name in layer.producers]
            upstream[layer.name] = frozenset().union(*known) if known else frozenset()
        return upstream

    @property
    def tells_frozen(self) -> bool:
        """Whether it is known which parameters are frozen: no file says so."""
        return self.format == "torch"

    @cached_property
    def has_dataflow(self) -> bool:
        """Whether it is known where outputs go; not so of weights alone, nor of a module that was not run."""
        return any(layer.uses for layer in self.layers)

    def is_buffer(self, address: str) -> bool:
        """Whether a module holds the tensor as a buffer, as every module does with running statistics."""
        running = (Role.RUNNING_MEAN, Role.RUNNING_VARIANCE)
        owner = self.owner(address)
        return plain(address) in self.buffers or (
            owner is not None and any(each.address == address and each.role in running for each in owner.others)
        )

    def is_upstream(self, earlier: str, later: str) -> bool:
        """Whether data flows from layer ``earlier`` to layer ``later`` (a layer is not upstream of itself)."""
        return earlier in self._upstream.get(later, frozenset())

    def maps_after(self, layer: Layer) -> tuple[Layer, ...]:
        """The next linear maps or recurrences that its output reaches, looked for behind norms and PRelus."""
        return self._maps(layer, lambda each: each.consumers)

    def maps_before(self, layer: Layer) -> tuple[Layer, ...]:
        """The last linear maps or recurrences before it, looked for behind norms and PRelus."""
        return self._maps(layer, lambda each: each.producers)

    def _maps(self, start: Layer, follow: Callable[[Layer], tuple[str, ...]]) -> tuple[Layer, ...]:
        found: dict[str, Layer] = {}
        pending, seen = list(follow(start)), {start.name}
        while pending:
            layer = self._by_name[pending.pop()]
            if layer.name in seen:
                continue
            seen.add(layer.name)
            if layer.kind.is_norm or layer.kind is Kind.PRELU:
                pending.extend(follow(layer))
            else:
                found[layer.name] = layer
        return tuple(found.values())

    def final_uses(self, layer: Layer) -> frozenset[Use]:
        """Its uses, looked for behind fixed maps too, as behind the grid of places that an affine map is applied to."""
        uses, pending, seen = frozenset[Use](), [layer], {layer.name}
        while pending:
            each = pending.pop()
            behind = list(self.consumers(each))
            fixed = behind and all(one.kind.is_map and not any(t.trainable for t in one.tensors) for one in behind)
            uses |= each.uses - {Use.LAYER} if fixed else each.uses
            pending += [one for one in behind if fixed and one.name not in seen]
            seen.update(one.name for one in behind)
        return uses

    def consumers(self, layer: Layer) -> Iterator[Layer]:
        return (self._by_name[name] for name in layer.consumers)

    def read_by_norms(self, layer: Layer) -> bool:
        """Whether norms alone read its output, be it at once or behind a sum."""
        behind = list(self.consumers(layer))
        return layer.norm_after is not None or (bool(behind) and all(each.kind.is_norm for each in behind))

    def producers(self, layer: Layer) -> Iterator[Layer]:
        return (self._by_name[name] for name in layer.producers)
