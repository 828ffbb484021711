"""All that a rule imports.

A rule is a generator of suspicions over a read-only context::

    @rule(category="symmetry", needs=Needs.WEIGHTS, message="{duplicates} of {units} units start identical")
    def duplicate_units(context: Context, options: Options) -> Iterator[Suspicion]: ...

``rule`` is pure: it returns a frozen ``Rule`` and registers nothing; the catalog finds rules by walking packages that
packs announce under the entry-point group ``initlint.rules``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Flag, IntEnum, auto
from functools import cached_property
from typing import Any

from . import activations
from .biases import gives_data, is_taken_away, passed_on
from .builds import NOT_BUILT, Builds, Fixed, Reading, Unwritten
from .deadlock import all_maps_zero, stuck_at_zero, uses_at_the_end, zeros_in_a_row
from .equal_units import biases_tell_apart, constant_neighbour, divided_by_nothing, is_constant, is_one_row
from .fixes import Advice, Fill, Fix, Reinit, Several
from .gating import Gate, held_back, shut
from .heads import heads, is_alone, is_spread, loudest_end, made_by, measured_heads, share_apart, to_blame
from .kinds import Kind, Role, Source, Use
from .made import is_formula
from .model import FoldedNorm, Layer, Model, Tensor, View
from .paths import (
    PlainPath,
    expected_gain,
    maps_up_to,
    measured_gain,
    peers,
    perturbation_growth,
    plain_paths,
    spreads_along,
    washes_out,
    ways,
)
from .prediction import Outlook, Stretch, outlook, predict, predicted_heads, why_loud
from .probe.signals import (
    Alike,
    Backward,
    Forward,
    GradientSignal,
    LayerSignal,
    Liveness,
    Loss,
    NonFiniteOrigin,
    Signals,
    Twin,
)
from .redraw import FAR, again, fresh, fresh_at, is_far, named_role, redrawn, tame, tame_all
from .saturation import held_flat
from .schemes import misfit
from .sensitivity import Sensitivity, sensitivities
from .stats import WeightStats
from .zero_starts import zero_on_purpose

__all__ = [
    "biases_tell_apart",
    "constant_neighbour",
    "divided_by_nothing",
    "is_constant",
    "FAR",
    "Advice",
    "Alike",
    "Backward",
    "Builds",
    "Context",
    "Fill",
    "Finding",
    "Fix",
    "Fixed",
    "FoldedNorm",
    "Forward",
    "Gate",
    "GradientSignal",
    "Kind",
    "Layer",
    "LayerSignal",
    "Liveness",
    "Loss",
    "Model",
    "Needs",
    "NoOptions",
    "NonFiniteOrigin",
    "Outlook",
    "PlainPath",
    "Reading",
    "Reinit",
    "Role",
    "Rule",
    "Sensitivity",
    "Several",
    "Severity",
    "Signals",
    "Source",
    "Stretch",
    "Suspicion",
    "Tensor",
    "Twin",
    "Unwritten",
    "Use",
    "View",
    "WeightStats",
    "activations",
    "again",
    "all_maps_zero",
    "expected_gain",
    "fresh",
    "fresh_at",
    "gives_data",
    "heads",
    "held_back",
    "held_flat",
    "is_alone",
    "is_formula",
    "is_one_row",
    "is_spread",
    "is_taken_away",
    "loudest_end",
    "is_far",
    "made_by",
    "maps_up_to",
    "measured_gain",
    "measured_heads",
    "misfit",
    "named_role",
    "outlook",
    "passed_on",
    "peers",
    "perturbation_growth",
    "plain_paths",
    "spreads_along",
    "predicted_heads",
    "redrawn",
    "rule",
    "sensitivities",
    "share_apart",
    "shut",
    "stuck_at_zero",
    "tame",
    "tame_all",
    "to_blame",
    "washes_out",
    "ways",
    "why_loud",
    "uses_at_the_end",
    "zero_on_purpose",
    "zeros_in_a_row",
]

Value = str | int | float | bool | list[str]
"""What a finding's data may hold: JSON scalars, or a list of addresses."""


class Severity(IntEnum):
    """Ordered: a severity is at or above another if it compares greater or equal."""

    NOTE = 1
    WARNING = 2
    ERROR = 3

    def __str__(self) -> str:
        return self.name.lower()


class Needs(Flag):
    """What a rule reads, and so what has to be measured."""

    STRUCTURE = 0
    WEIGHTS = auto()
    SIGNAL = auto()
    """The signal from layer to layer: measured, or where no probe could run predicted from the weights."""
    PROBED = auto()
    FORWARD = SIGNAL | PROBED
    """The signal as measured, and nothing else."""
    BACKWARD = auto()
    LIVENESS = auto()
    BUILDS = auto()
    """The model built once more, which only a builder allows."""


@dataclass(frozen=True, slots=True)
class NoOptions:
    """A rule without numbers."""


@dataclass(frozen=True)
class Suspicion:
    """What a rule believes it has seen.

    ``at`` is a tensor, a layer, an address (a packed part) or the model; ``message`` picks one of the rule's message
    templates, filled from ``data``.
    """

    at: Tensor | Layer | Model | str
    severity: Severity
    data: Mapping[str, object] = field(default_factory=dict)
    """Only what JSON can hold (``Value``): the engine refuses anything else."""
    fix: Fix | None = None
    message: str = "default"
    is_cause: bool = True
    """False where it has no consequences, although the rule explains others' findings."""
    proven: bool = False
    """It holds of this tensor whatever another initialisation of the others would do: it is not finite, provably stuck,
    symmetric for good, unregistered. A trial never lowers its severity."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The finding that another one is a consequence of."""

    rule: str
    address: str


@dataclass(frozen=True)
class Finding:
    """A suspicion that was judged and put into words."""

    rule: str
    category: str
    severity: Severity
    layer: str | None
    tensor: str | None
    message: str
    data: Mapping[str, Value]
    caused_by: Cause | None = None
    fix: Fix | None = None
    verified: bool = False
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    url: str = ""
    is_cause: bool = True
    proven: bool = False

    @property
    def address(self) -> str:
        """The tensor, else the layer, else empty: the whole model."""
        return self.tensor or self.layer or ""


@dataclass(frozen=True)
class Context:
    """All a rule may see: structure, statistics of weights, signals. Weights themselves stay in the session."""

    model: Model
    stats: Mapping[str, WeightStats]
    """By address, packed parts included; empty unless some selected rule needs or uses WEIGHTS."""
    signals: Signals
    builds: Builds = NOT_BUILT

    @property
    def probed(self) -> bool:
        return self.signals.forward is Forward.MEASURED

    @cached_property
    def predicted(self) -> tuple[Stretch, ...]:
        """The signal along every plain path as the weights alone predict it, for models that could not be probed."""
        return predict(self.model, self.stats)

    def signal(self, layer: Layer) -> LayerSignal | None:
        """What the probe measured at the layer's output; None where it did not get there."""
        return self.signals.layers.get(layer.name)

    def liveness(self, tensor: Tensor | str) -> Liveness | None:
        """Whether the tensor, or packed part, can learn; None where that was not measured."""
        return self.signals.liveness.get(tensor if isinstance(tensor, str) else tensor.address)

    @cached_property
    def alike(self) -> Mapping[str, Alike]:
        """By address: rows outside of maps that start equal and that training does not tell apart.

        Of a table that the data look up the probe shows a few rows, in the company of one batch: that tells nothing.
        """
        return {each.tensor: each for each in self.signals.alike if not self._is_drawn_from(each)}

    def _is_drawn_from(self, alike: Alike) -> bool:
        owner, tensor = self.model.owner(alike.tensor), self.model.tensor(alike.tensor)
        looked_up = owner is not None and owner.kind is Kind.EMBEDDING and owner.input_source is Source.INPUT
        return looked_up and tensor is not None and alike.count < tensor.view.groups * tensor.view.units

    def learns_until(self, layer: Layer) -> bool:
        """Whether ``layer`` or one upstream of it has anything to learn, so that gradients have to get there."""
        return any(
            tensor.trainable and self.liveness(tensor) is not Liveness.FROZEN
            for each in self.model.layers
            if each is layer or self.model.is_upstream(each.name, layer.name)
            for tensor in each.tensors
        )

    def measured_stuck(self, tensor: Tensor | str) -> str:
        """How its gradient was found to stay zero, for messages; empty where it did not, or was not measured."""
        if self.liveness(tensor) is not Liveness.STUCK:
            return ""
        batches = "one batch" if self.signals.batches == 1 else f"{self.signals.batches} batches"
        return f"no gradient in {self.signals.steps} steps on {batches}"


Generator = Callable[..., Iterator[Suspicion]]


@dataclass(frozen=True)
class Rule:
    """One check. ``name`` is its identity; ``doc`` its page."""

    name: str
    category: str
    needs: Needs
    uses: Needs
    options: type[Any]
    messages: Mapping[str, str]
    explains: tuple[str, ...]
    """Rules whose findings downstream of one of ours are its consequences."""
    overrides: tuple[str, ...]
    """Rules that stay silent at an address where this one speaks: one fault, one finding."""
    mutes: tuple[str, ...]
    """Categories, or rules by name, that mean nothing for a model in which this rule speaks."""
    generate: Generator
    doc: str

    @property
    def summary(self) -> str:
        """The first line of its page."""
        return self.doc.partition("\n")[0]


def rule(
    *,
    category: str,
    message: str | Mapping[str, str],
    needs: Needs = Needs.STRUCTURE,
    uses: Needs = Needs.STRUCTURE,
    options: type[Any] = NoOptions,
    explains: tuple[str, ...] = (),
    overrides: tuple[str, ...] = (),
    mutes: tuple[str, ...] = (),
) -> Callable[[Generator], Rule]:
    """Make a rule of a generator function: its name, with dashes, is the rule's; its module's docstring is the page."""

    def make(generate: Generator) -> Rule:
        module = inspect.getmodule(generate)
        return Rule(
            name=generate.__name__.replace("_", "-"),
            category=category,
            needs=needs,
            uses=uses,
            options=options,
            messages={"default": message} if isinstance(message, str) else dict(message),
            explains=explains,
            overrides=overrides,
            mutes=mutes,
            generate=generate,
            doc=inspect.cleandoc((module.__doc__ if module else None) or ""),
        )

    return make
