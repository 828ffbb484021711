"""Fixes as data: printed as PyTorch code today, tried and applied by whoever holds a session."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Reinit:
    """Redraw ``tensor`` (an address) by ``scheme`` times ``gain``."""

    tensor: str
    scheme: str
    gain: float = 1.0
    buffer: bool = False
    """Whether a module holds it as a buffer; the engine fills this in."""
    kind: ClassVar[str] = "reinit"

    @property
    def code(self) -> str:
        return self.call(_spelled(self.tensor, self.buffer))

    def call(self, name: str) -> str:
        """The code for the tensor that the expression ``name`` gives."""
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
    buffer: bool = False
    """Whether a module holds it as a buffer; the engine fills this in."""
    kind: ClassVar[str] = "fill"

    @property
    def code(self) -> str:
        return self.call(_spelled(self.tensor, self.buffer))

    def call(self, name: str) -> str:
        """The code for the tensor that the expression ``name`` gives."""
        return f"nn.init.constant_({name}, {self.value:g})"


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
        """One loop for all tensors that get the same; names are quoted as ``_spelled`` does it."""
        alike: dict[str, list[Edit]] = {}
        for fix in self.fixes:
            alike.setdefault(fix.call(_getter("name", fix.buffer)), []).append(fix)
        return "\n".join(_loop(call, fixes) for call, fixes in alike.items())


Edit = Reinit | Fill
"""What can be applied by itself."""
Fix = Reinit | Fill | Several | Advice


def edits_of(fix: Fix | None) -> tuple[Edit, ...]:
    """What applying it means; empty for advice, and where there is no fix."""
    if isinstance(fix, Several):
        return fix.fixes
    return (fix,) if isinstance(fix, Reinit | Fill) else ()


def _spelled(address: str, buffer: bool) -> str:
    """The address may come from an untrusted file: it is quoted as JSON, so that it cannot leave the string."""
    return _getter(_quoted(address), buffer)


def _getter(name: str, buffer: bool) -> str:
    return f"model.{'get_buffer' if buffer else 'get_parameter'}({name})"


def _quoted(address: str) -> str:
    return json.dumps(address.partition("[")[0])


def _loop(call: str, fixes: Sequence[Edit]) -> str:
    """``call`` for every tensor; a single one needs no loop."""
    if len(fixes) == 1:
        return fixes[0].code
    names = ", ".join(dict.fromkeys(_quoted(fix.tensor) for fix in fixes))
    return f"for name in [{names}]:\n    {call}"
