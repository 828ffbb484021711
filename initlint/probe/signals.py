"""What a probe measures. Plain frozen data: no runtime, no framework."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ..model import NotChecked


class Forward(StrEnum):
    """How the forward signals were got."""

    MEASURED = "measured"
    NONE = "none"


class Backward(StrEnum):
    """How the gradients were got."""

    EXACT = "exact"
    ESTIMATED = "estimated"
    NONE = "none"


class Loss(StrEnum):
    """Which loss drove the backward pass."""

    GIVEN = "given"
    RANDOM_LINEAR = "random-linear"
    NONE = "none"


class Liveness(StrEnum):
    """Whether a tensor can learn, as a few scaled gradient steps show it."""

    LIVE = "live"
    """Its gradient is not zero, at the start or after a few steps."""
    STUCK = "stuck"
    """Its gradient is exactly zero at every step, whatever the input, although the outputs depend on it."""
    DETACHED = "detached"
    """The forward itself reads it past autograd (``weight.detach()``, ``.data``), so that it never gets a gradient."""
    STOPPED = "stopped"
    """All that is made of it is detached on the way: a stop-gradient, as around a code book or a target."""
    UNREACHED = "unreached"
    """The probe batches or the loss did not reach it: units that are off, experts that were not chosen."""
    UNUSED = "unused"
    """No output depends on it, be it that nothing reads it, or that no value of it changes a bit of the outputs."""
    INVARIANT = "invariant"
    """The outputs do not change along it: a bias that a normalisation or a softmax takes away again."""
    FROZEN = "frozen"
    """On purpose: ``requires_grad`` is off, or it is read under ``torch.no_grad`` only."""


@dataclass(frozen=True, slots=True)
class GradientSignal:
    """The gradient of one parameter, or of one part of a packed one, at initialisation."""

    rms: float
    zero_share: float
    """Share of entries that are exactly zero."""
    weight_rms: float


@dataclass(frozen=True, slots=True)
class Twin:
    """Two weights, not tied, that start equal bit for bit."""

    tensor: str
    other: str
    """The first one in the order of the parameters."""
    separated: bool
    """Whether the probe's steps made them differ."""


@dataclass(frozen=True, slots=True)
class Members:
    """A tensor that stacks ``count`` maps, critics, experts or heads, some of them equal bit for bit."""

    tensor: str
    count: int
    equal: int
    """How many start equal to another one."""
    together: int
    """How many of these were moved by the probe's steps and are equal still."""


@dataclass(frozen=True, slots=True)
class Alike:
    """A parameter outside of maps (tokens, prompts, latents, queries, slots), some rows of which stay equal."""

    tensor: str
    axis: int
    """Along which the rows are counted."""
    count: int
    """Rows that had a gradient: of a table, those that the batch names."""
    together: int
    """How many of these start equal to another one and get equal gradients, whatever the loss and the data."""
    by_noise: bool
    """The noise of training, such as dropout's, tells them apart, or it is not known whether it does."""


ROUNDING = 1e-5
"""Relative to the rms: a spread below may be rounding, which is 6e-8 in float32 and adds up in sums (2e-6 was seen)."""


@dataclass(frozen=True)
class LayerSignal:
    """The output of one layer before its non-linearity, over the probe batch.

    Per-unit arrays have one float32 per unit (channel or feature), statistics being taken over samples and positions.
    A non-finite statistic means that the unit's values were non-finite or overflowed float32.
    """

    samples: int
    """Values per unit that the statistics rest on: batch times positions, summed over runs."""
    rms: float
    """Root of the mean square of all values."""
    mean: float
    std: float
    """Root of the mean over units of the variance within a unit: the part of the signal that depends on the input."""
    absmax: float
    nonfinite: float
    """Share of values that are NaN or infinite, 0 to 1."""
    saturated: float
    """Share of values in the flat part of the consuming non-linearity (``activations``); 0 where it has none."""
    unit_mean: array[float]
    unit_std: array[float]
    unit_max: array[float]
    unit_saturated: array[float]
    """Empty where the consuming non-linearity does not saturate."""
    sample_std: float = math.inf
    """Root of the mean variance from sample to sample at the same place; infinite where that was not looked at."""

    @property
    def is_rounding(self) -> bool:
        """What depends on the input is no more than the rounding of the rest."""
        return self.std <= ROUNDING * self.rms


@dataclass(frozen=True, slots=True)
class SoftmaxSignal:
    """The rows that one softmax normalises, by a sample of them; entries that a mask takes out do not count."""

    layers: tuple[str, ...]
    """Names of the layers that the logits come from directly: a head, or queries and keys."""
    attention: bool
    """The logits are a product of two live tensors."""
    at_output: bool
    """What it gives leaves the network."""
    rows: int
    """Rows with two or more entries that were looked at."""
    length: float
    """Mean number of entries of a row."""
    entropy: float
    """Mean over rows of the entropy over the log of the row's length: 1 where all are alike, 0 where one has it all."""
    certain: float
    """Share of rows in which one entry has all but a thousandth."""
    excess: float
    """Mean cross-entropy, in nats, of entries drawn at random, above that of even rows."""
    joining: tuple[str, ...] = ()
    """Addresses of the tensors that join the logits on the way from these layers: scales, biases by position."""


@dataclass(frozen=True, slots=True)
class TrainingNoise:
    """What a module's own noise, which it draws in training mode, does to the outputs. Dropout is off meanwhile."""

    share: float
    """Root mean square of what it adds, over that of the outputs in evaluation mode, or over 1 where these are less;
    infinite where outputs are not finite, that are without it."""
    place: str = ""
    """Of what is not finite: name of the first module to give that of finite inputs."""


@dataclass(frozen=True, slots=True)
class LossStart:
    """The user's loss before the first step."""

    value: float
    at_zero: float
    """What it says of outputs that are all zero; NaN where it refuses them."""
    classes: int
    """The C for which ``at_zero`` is ln C per term, as it is of a cross-entropy; 0 where there is none."""
    terms: int
    """How many terms were added up; 1 of a mean."""
    refusal: str = ""
    """What it raised for outputs that are all zero."""


@dataclass(frozen=True, slots=True)
class NonFiniteOrigin:
    """The first operation that turned finite values into NaN or infinity."""

    layer: str
    """The first layer that shows it, or empty."""
    operation: str
    """Operator and place, as in "Div at /weight_norm/Div"."""
    tensors: tuple[str, ...]
    """Addresses of the stored tensors that reach the operation without passing an activation."""
    kind: str
    """"nan", "inf", "overflow" (values outgrew float32), or "masked" (a softmax of a row of nothing but -inf)."""
    behind: tuple[str, ...] = ()
    """Where none reaches it: addresses of the tensors of the layers next before it."""


@dataclass(frozen=True)
class Signals:
    """One probe's measurements; ``forward`` is NONE with a ``reason`` where it could not run."""

    forward: Forward
    reason: str = ""
    batch: int = 0
    runs: int = 0
    seed: int = 0
    layers: Mapping[str, LayerSignal] = field(default_factory=dict)
    """By layer name; a layer that is missing was not reached or not measurable (see ``not_probed``)."""
    outputs: Mapping[str, LayerSignal] = field(default_factory=dict)
    """By graph output name."""
    softmaxes: Mapping[str, SoftmaxSignal] = field(default_factory=dict)
    """By place in the network; those that could not be looked at are left out."""
    input_rms: float = 0.0
    """Root mean square of the floating-point inputs; 0 where all inputs are integers."""
    origin: NonFiniteOrigin | None = None
    gradient_origin: NonFiniteOrigin | None = None
    """Of the backward pass, where the forward gives finite values; of modules only. ``tensors`` are all parameters
    whose gradient is not finite, ``layer`` the last layer among them."""
    not_probed: tuple[NotChecked, ...] = ()
    fed: str = ""
    """What went in, by name: shape, type, and whether initlint made it up."""
    backward: Backward = Backward.NONE
    backward_reason: str = ""
    """Why there are no gradients, or no steps."""
    loss: Loss = Loss.NONE
    loss_start: LossStart | None = None
    """None unless the user gave a loss and it could be computed."""
    gradients: Mapping[str, GradientSignal] = field(default_factory=dict)
    """By address of every parameter that got a gradient, packed parts included."""
    activation_gradients: Mapping[str, float] = field(default_factory=dict)
    """Root mean square of the gradient at the layer's output, by layer name."""
    liveness: Mapping[str, Liveness] = field(default_factory=dict)
    """By address of every parameter, packed parts included; empty where liveness was not measured."""
    still_equal: Mapping[str, int] = field(default_factory=dict)
    """By address of the weights that had equal units: how many still equal another one after the steps."""
    stuck_rows: Mapping[str, int] = field(default_factory=dict)
    """By address of the weights that have them: rows (units, experts) that start at zero and never get a gradient."""
    outputs_alike: bool = False
    """The outputs are the same for all inputs, up to rounding, and the steps have not changed that."""
    outputs_shut: bool = False
    """The same, but something was not reached that another batch, or a loss of its own, may open."""
    twins: tuple[Twin, ...] = ()
    members: tuple[Members, ...] = ()
    alike: tuple[Alike, ...] = ()
    unregistered: tuple[str, ...] = ()
    """Addresses of leaf tensors that require a gradient and belong to no module."""
    unwatched: tuple[str, ...] = ()
    """Addresses of parameters that require a gradient and are read under ``torch.no_grad`` only."""
    in_training: tuple[str, ...] = ()
    """Addresses of parameters that no output depends on in evaluation mode, as the probe runs, but one in training mode
    does."""
    switched_off: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By address of a parameter that no output depends on while buffers of zeros multiply it, which no forward in
    training mode writes: the names of these buffers."""
    single_softmax: tuple[str, ...] = ()
    """Addresses of parameters that no output depends on as they feed a softmax over one value, which is 1."""
    as_numbers: tuple[str, ...] = ()
    """Addresses of parameters that no output depends on in a way to differentiate: they are read as plain numbers."""
    training_noise: TrainingNoise | None = None
    """None where the module draws none in training mode, or nothing could be compared."""
    dropped: tuple[str, ...] = ()
    """Addresses of parameters whose gradient a dropout with p = 1 takes away in training."""
    dropped_at: tuple[str, ...] = ()
    """Names of the modules that call such a dropout."""
    unmoved_statistics: tuple[str, ...] = ()
    """Addresses of running means at zero beside variances of one which a momentum of 0 keeps there in training."""
    overlapping: tuple[str, ...] = ()
    """Addresses of trainable parameters of which several values stand at one place in memory."""
    steps: int = 0
    """Scaled steps that liveness took, on ``batches`` different batches and with ``draws`` draws of the loss."""
    batches: int = 0
    draws: int = 0
