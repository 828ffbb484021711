"""Fixes as data: printed as PyTorch code today, tried and applied by whoever holds a session."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from .maker import plain


@dataclass(frozen=True, slots=True)
class Held:
    """What code has to know of how a module holds a tensor."""

    buffer: bool = False
    parts: int = 1
    """How many blocks are packed into it, each a weight of its own."""
    part: int = -1
    """The block that the address names; -1 for all of them."""
    axis: int = 0
    """Along which they are packed."""
    std: float = 0.0
    """What the scheme comes to, where PyTorch's own function would count other fans from the tensor's shape; else 0."""
    piece: str = ""
    """The piece that the address names behind the tensor's own: "[0:32]"; empty for all of it."""

    def spelled(self, name: str) -> str:
        """What ``name``, an expression for the address, is held in."""
        tensor = f"model.{'get_buffer' if self.buffer else 'get_parameter'}({name})"
        if self.piece:
            return f"{tensor}.data{self.piece}"
        return f"{self._chunks(tensor)}[{self.part}]" if self.part >= 0 else tensor

    def each(self, tensor: str) -> str:
        """All blocks of the expression ``tensor``, one after the other; empty where it is, or names, a single one."""
        return f"for part in {self._chunks(tensor)}: " if self.parts > 1 and self.part < 0 else ""

    def _chunks(self, tensor: str) -> str:
        return f"{tensor}.data.chunk({self.parts}{f', {self.axis}' if self.axis else ''})"


PLAIN = Held()


@dataclass(frozen=True, slots=True)
class Reinit:
    """Redraw ``tensor`` (an address) by ``scheme`` times ``gain``."""

    tensor: str
    scheme: str
    gain: float = 1.0
    held: Held = field(default=PLAIN, compare=False)
    """The engine fills this in."""
    kind: ClassVar[str] = "reinit"

    @property
    def code(self) -> str:
        return self.call(_quoted(self))

    def call(self, address: str) -> str:
        """The code for the tensor whose address the expression ``address`` gives."""
        name = self.held.spelled(address)
        if self.held.std and self.scheme.endswith(("_uniform", "_default")):
            bound = f"{self.held.std * 3**0.5:.3g}"
            return f"nn.init.uniform_({name}, -{bound}, {bound})"
        if self.held.std:
            return f"nn.init.normal_({name}, std={self.held.std:.3g})"
        if self.scheme == "orthogonal" and (loop := self.held.each(name)):
            return f"{loop}nn.init.orthogonal_(part, gain={self.gain:g})"
        calls = {
            "pytorch_default": f"nn.init.kaiming_uniform_({name}, a=5**0.5)",
            "he_normal": f"nn.init.kaiming_normal_({name}, nonlinearity='relu')",
            "he_uniform": f"nn.init.kaiming_uniform_({name}, nonlinearity='relu')",
            "lecun_normal": f"nn.init.kaiming_normal_({name}, nonlinearity='linear')",
            "xavier_normal": f"nn.init.xavier_normal_({name}, gain={self.gain:g})",
            "xavier_uniform": f"nn.init.xavier_uniform_({name}, gain={self.gain:g})",
            "orthogonal": f"nn.init.orthogonal_({name}, gain={self.gain:g})",
            "normal": f"nn.init.normal_({name}, std={self.gain:g})",
        }
        return calls[self.scheme]


@dataclass(frozen=True, slots=True)
class Fill:
    """Set every value of ``tensor`` to ``value``."""

    tensor: str
    value: float
    held: Held = field(default=PLAIN, compare=False)
    """The engine fills this in."""
    kind: ClassVar[str] = "fill"

    @property
    def code(self) -> str:
        return self.call(_quoted(self))

    def call(self, address: str) -> str:
        """The code for the tensor whose address the expression ``address`` gives."""
        return f"nn.init.constant_({self.held.spelled(address)}, {self.value:g})"


@dataclass(frozen=True, slots=True)
class Advice:
    """Something to do by hand; ``code`` is the recipe."""

    tensor: str
    code: str
    kind: ClassVar[str] = "advice"


@dataclass(frozen=True, slots=True)
class Several:
    """Edits that are a fix only together, as of all layers along a path; at least one."""

    fixes: tuple[Reinit | Fill, ...]
    kind: ClassVar[str] = "several"

    @property
    def tensor(self) -> str:
        """The first one's."""
        return self.fixes[0].tensor

    @property
    def code(self) -> str:
        """One loop for all tensors that get the same; names are quoted as ``_quoted`` does it."""
        alike: dict[str, list[Edit]] = {}
        for fix in self.fixes:
            alike.setdefault(fix.call("name"), []).append(fix)
        return "\n".join(_loop(call, fixes) for call, fixes in alike.items())


Edit = Reinit | Fill
"""What can be applied by itself."""
Fix = Reinit | Fill | Several | Advice


def edits_of(fix: Fix | None) -> tuple[Edit, ...]:
    """What applying it means; empty for advice, and where there is no fix."""
    if isinstance(fix, Several):
        return fix.fixes
    return (fix,) if isinstance(fix, Reinit | Fill) else ()


def _quoted(fix: Edit) -> str:
    """The tensor's address, which may come from an untrusted file: as JSON, so that it cannot leave the string."""
    inside = fix.held.part >= 0 or bool(fix.held.piece)
    return json.dumps(plain(fix.tensor.rpartition("[")[0] if inside else fix.tensor))


def _loop(call: str, fixes: Sequence[Edit]) -> str:
    """``call`` for every tensor; a single one needs no loop."""
    if len(fixes) == 1:
        return fixes[0].code
    names = ", ".join(dict.fromkeys(_quoted(fix) for fix in fixes))
    return f"for name in [{names}]:\n    {call}"
