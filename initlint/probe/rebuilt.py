"""Building a model again, from another seed and in memory full of NaN, and comparing it with the one that is checked.

One more build answers both questions; a second one follows where the first raises, where the builder hands out the
tensors of the checked model again, so that it leaves them as its first call did, or where both builds hold NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils.deterministic
from torch import nn

from ..builds import Builds, Fixed, Reading, Unwritten
from ..drawn import Nature, nature
from ..errors import TargetError
from ..fixes import Fix
from ..foreign import described
from ..load.from_torch import to_numpy
from ..model import Model, NotChecked
from ..settings import ProbeSettings
from ..stats import WeightStats
from .on_torch import TorchSession
from .poison import Poison, is_nan, quietly, stored_tensors
from .signals import Signals
from .torch_run import Call
from .unrun import UnrunSession

Rebuild = Callable[[int], nn.Module]
"""Builds the model from a seed; raises whatever the user's code raises."""

OTHER_SEED = 7919
"""Added to the seed of the checked build."""

MAX_BYTES = 4 * 2**30
"""Larger models are not built again: it takes as much memory as the model itself, which may not be there."""

_MEMORY: Any = torch.utils.deterministic
"""The module, whose settings are attributes that its stubs do not know."""

_UNWRITTEN = "memory that nobody wrote"


@dataclass(frozen=True)
class BuilderSession:
    """A module that can be built again; ``opened`` answers for everything else."""

    opened: TorchSession | UnrunSession
    module: nn.Module
    rebuild: Rebuild
    seed: int

    @property
    def model(self) -> Model:
        return self.opened.model

    def stats(self) -> Mapping[str, WeightStats]:
        return self.opened.stats()

    def edited_stats(self, edits: Sequence[Fix], seed: int) -> Mapping[str, WeightStats]:
        return self.opened.edited_stats(edits, seed)

    def probe(self, settings: ProbeSettings, edits: Sequence[Fix] = ()) -> Signals:
        return self.opened.probe(settings, edits)

    def builds(self) -> Builds:
        """Call the builder again, up to twice."""
        call = self.opened.call if isinstance(self.opened, TorchSession) else None
        return compare(self.module, self.rebuild, self.seed, call)

    def close(self) -> None:
        self.opened.close()

    def __enter__(self) -> BuilderSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def compare(module: nn.Module, rebuild: Rebuild, seed: int, call: Call | None) -> Builds:
    """Build ``module`` again and compare; random states and the handling of fresh memory are put back."""
    if (size := sum(each.nbytes for each in stored_tensors(module).values())) > MAX_BYTES:
        return Builds(f"building it again takes another {size / 2**30:.0f} GB of memory, more than is risked")
    was_filled = torch.get_deterministic_debug_mode() > 0 and _MEMORY.fill_uninitialized_memory
    notes: list[NotChecked] = []
    filled = True
    try:
        with filled_memory():
            other = rebuild(seed + OTHER_SEED)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        filled = False
        notes.append(NotChecked(_UNWRITTEN, f"with fresh memory full of NaN, {_said(error)}"))
        try:
            with quietly():
                other = rebuild(seed + OTHER_SEED)
        except (Exception, SystemExit) as second:  # noqa: BLE001
            return Builds(f"when called again, {_said(second)}", not_checked=tuple(notes))
    ours, theirs = stored_tensors(module), stored_tensors(other)
    shared = _shared(ours, theirs)
    if shared:
        try:
            with quietly():
                rebuild(seed)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
            text = f"it keeps its model, and when called again, {_said(error)}; the weights may be of another seed now"
            notes.append(NotChecked("the builder", text))
    found = _Comparison(filled, was_filled, notes)
    for address in ours.keys() & theirs.keys() - shared:
        found.add(address, ours[address], theirs[address])
    if found.doubtful:
        found.settle(rebuild, seed + OTHER_SEED)
    readings = found.readings(other, None if shared else call)
    order = list(ours)
    return Builds(
        unwritten=tuple(found.unwritten_at(address, readings) for address in order if address in found.masks),
        fixed=tuple(found.fixed[address] for address in order if address in found.fixed),
        varying=found.varying,
        learned=found.learned,
        shared=len(shared),
        not_checked=tuple(notes),
    )


@contextmanager
def filled_memory() -> Iterator[None]:
    """Fresh tensors hold NaN, or the largest integer, inside; nothing is said about it."""
    mode, fill = torch.get_deterministic_debug_mode(), _MEMORY.fill_uninitialized_memory
    with quietly():
        try:
            torch.set_deterministic_debug_mode("warn")
            _MEMORY.fill_uninitialized_memory = True
            yield
        finally:
            torch.set_deterministic_debug_mode(mode)
            _MEMORY.fill_uninitialized_memory = fill


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, TargetError) else f"it raised {described(error)}"


def _shared(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> set[str]:
    """Addresses whose memory the two builds have in common."""
    memory = {_memory(tensor) for tensor in ours.values()} - {0}
    return {address for address, tensor in theirs.items() if _memory(tensor) in memory}


def _memory(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_meta else int(tensor.untyped_storage().data_ptr())


@dataclass
class _Comparison:
    filled: bool
    was_filled: bool
    """The checked model was built in filled memory as well: the caller works that way."""
    notes: list[NotChecked]
    """What could not be found out, and why, is added here."""
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    """By address: where values were never written."""
    doubtful: dict[str, torch.Tensor] = field(default_factory=dict)
    """By address: where both builds have NaN, which somebody wrote, or which lay in the memory of the first one too."""
    parameters: set[str] = field(default_factory=set)
    fixed: dict[str, Fixed] = field(default_factory=dict)
    varying: int = 0
    learned: int = 0

    def add(self, address: str, our: torch.Tensor, their: torch.Tensor) -> None:
        comparable = our.shape == their.shape and our.dtype == their.dtype and our.layout is torch.strided
        if not comparable or our.is_meta or their.is_meta or not our.numel():
            return
        one, other = our.detach().cpu(), their.detach().cpu()
        mask = self._never_written(one, other) if self.filled else None
        if isinstance(our, nn.Parameter):
            self.parameters.add(address)
        if mask is not None and self._is_doubtful(one, mask):
            self.doubtful[address] = mask
        elif mask is not None:
            self.masks[address] = mask
        elif our.requires_grad:
            self._judge(address, one, other)

    def _never_written(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor | None:
        if other.is_floating_point() or other.is_complex():
            mask = is_nan(other)
            return mask if mask.any() else None
        if other.dtype is torch.bool:
            return None
        mask = other == torch.iinfo(other.dtype).max
        if other.element_size() < 4 and not (mask.all() and other.numel() >= _CERTAIN):
            return None
        return mask if mask.any() and not (one[mask] == other[mask]).any() else None

    def _is_doubtful(self, one: torch.Tensor, mask: torch.Tensor) -> bool:
        nans = one.is_floating_point() or one.is_complex()
        return nans and not self.was_filled and bool((is_nan(one) | ~mask).all())

    def settle(self, rebuild: Rebuild, seed: int) -> None:
        """One more build, after memory of the sizes in doubt was filled with zeros and given back."""
        zeros = [torch.zeros(mask.shape) for mask in self.doubtful.values() for _ in range(_COPIES)]
        del zeros
        try:
            with quietly():
                third = stored_tensors(rebuild(seed))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
            self.notes.extend(NotChecked(at, f"whether its NaN were written: {_said(error)}") for at in self.doubtful)
            return
        for address, mask in self.doubtful.items():
            values = third.get(address)
            if values is None or values.shape != mask.shape:
                continue
            if not bool((is_nan(values.detach().cpu()) | ~mask).all()):
                self.masks[address] = mask

    def _judge(self, address: str, one: torch.Tensor, other: torch.Tensor) -> None:
        if not torch.equal(one, other):
            self.varying += 1
            return
        values = to_numpy(one)
        kind = Nature.COMPUTED if values is None else nature(values)
        if kind is Nature.DRAWN:
            self.fixed[address] = Fixed(address, one.numel())
        elif kind is Nature.UNDECIDED:
            self.learned += 1

    def unwritten_at(self, address: str, readings: Mapping[str, Reading]) -> Unwritten:
        mask = self.masks[address]
        reading = readings.get(address, Reading.UNKNOWN)
        return Unwritten(address, int(mask.sum()), mask.numel(), address in self.parameters, reading)

    def readings(self, other: nn.Module, call: Call | None) -> dict[str, Reading]:
        """What the outputs of ``other``, which is nobody's, make of NaN in each tensor alone."""
        if not self.masks or call is None:
            return {}
        poison = Poison(other, call, self.masks)
        try:
            return poison.readings()
        except Exception as error:  # noqa: BLE001 - whatever the user's forward raises
            text = f"whether the outputs depend on it: with numbers in it the forward raised {described(error)}"
            self.notes.append(NotChecked(_UNWRITTEN, text))
            return {}


_COPIES = 8
"""A module's own temporary tensors take some of the memory before the tensor in doubt does."""

_CERTAIN = 8
"""Small integers are often as large as they can be; so many of them in a row, and nothing else, are not."""
