"""The nets of ``calibrate_gradient.py``: chains and recurrences, many variants of one side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from side_by_side import CLASSES, Net
from torch import Tensor
from torch.nn import functional

PIXELS, WIDTH, STATE = 64, 64, 32
GAINS = {"relu": math.sqrt(2.0), "tanh": 1.0, "sigmoid": 4.0}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
GATES = {"rnn": 1, "relu": 1, "lstm": 4, "gru": 3}


@dataclass(frozen=True)
class Variant:
    """A healthy twin, or it with one thing changed."""

    label: str
    gain: float = 1.0
    bias: float = 0.0
    norm_gain: float = 1.0
    shortcut: bool = False
    fan_out: bool = False


@dataclass(frozen=True)
class Chain:
    """Linear layers in a row."""

    family: str
    activation: str
    depth: int
    variants: tuple[Variant, ...]
    norm: str = ""
    widths: tuple[int, ...] = ()
    """Hidden widths, repeated as often as needed; WIDTH if empty."""

    @property
    def sizes(self) -> list[int]:
        widths = self.widths or (WIDTH,)
        return [PIXELS, *(widths[i % len(widths)] for i in range(self.depth - 1)), CLASSES]

    @property
    def stride(self) -> int:
        """Parameters per layer: weight, shift, and a norm's gain."""
        return 3 if self.norm else 2

    def draw(self, variant: Variant, seed: int) -> list[Tensor]:
        """Twins of one seed differ by their fault alone."""
        generator = torch.Generator().manual_seed(1000 * seed + self.depth)
        tensors: list[Tensor] = []
        for layer, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            head = layer == self.depth - 1
            hit = not head and (self.family != "one" or layer == (self.depth - 1) // 2)
            fan = fan_out if variant.fan_out and not head else fan_in
            scale = (1.0 if head else GAINS[self.activation]) * (variant.gain if hit else 1.0) / math.sqrt(fan)
            tensors += [torch.randn(fan_in, fan_out, generator=generator) * scale]
            tensors += [torch.full((1, fan_out), 0.0 if head else variant.bias)]
            if self.norm and not head:
                tensors += [torch.full((1, fan_out), variant.norm_gain)]
        return tensors

    def weights(self) -> slice:
        return slice(0, None, self.stride)

    def hidden(
        self, variants: Sequence[Variant], parameters: list[Tensor], images: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits (nets, images, classes), and every hidden layer's values in front of its non-linearity."""
        phi = FUNCTIONS[self.activation]
        skip = torch.tensor([float(each.shortcut) for each in variants])[:, None, None] if self.norm else None
        state = images.expand(parameters[0].shape[0], -1, -1)
        seen: list[Tensor] = []
        for at in range(0, self.stride * (self.depth - 1), self.stride):
            weight, shift = parameters[at : at + 2]
            if self.norm:
                values = torch.bmm(state, weight)
                axis = 1 if self.norm == "batch" else -1
                variance, mean = torch.var_mean(values, axis, correction=0, keepdim=True)
                values = torch.addcmul(shift, (values - mean) * torch.rsqrt(variance + 1e-5), parameters[at + 2])
            else:
                values = torch.baddbmm(shift, state, weight)
            seen.append(values)
            state = phi(values) if skip is None else torch.addcmul(phi(values), skip, state)
        return torch.baddbmm(parameters[-1], state, parameters[-2]), seen

    def net(self, variants: Sequence[Variant]) -> Net:
        return lambda parameters, images: self.hidden(variants, parameters, images)[0]


@dataclass(frozen=True)
class Recurrent:
    """One recurrence and a head on its last state; ``depth`` is the number of time steps."""

    family: str
    activation: str
    """Kind of cell: a key of GATES."""
    depth: int
    variants: tuple[Variant, ...]
    norm: str = field(default="", init=False)

    def draw(self, variant: Variant, seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1000 * seed + self.depth)
        piece, gates = PIXELS // self.depth, GATES[self.activation]
        inward = torch.randn(piece, gates * STATE, generator=generator) / math.sqrt(piece)
        turns = [torch.linalg.qr(torch.randn(STATE, STATE, generator=generator))[0] for _ in range(gates)]
        if self.activation == "relu":
            turns = [torch.eye(STATE)]
        bias = torch.zeros(1, gates * STATE)
        if self.activation == "lstm":
            bias[:, STATE : 2 * STATE] = 1.0
        head = torch.randn(STATE, CLASSES, generator=generator) / math.sqrt(STATE)
        return [inward, torch.cat(turns, 1) * variant.gain, bias, head, torch.zeros(1, CLASSES)]

    def weights(self) -> list[int]:
        return [0, 1, 3]

    def net(self, variants: Sequence[Variant]) -> Net:
        return self.forward

    def forward(self, parameters: list[Tensor], images: Tensor) -> Tensor:
        inward, turn, bias, head, shift = parameters
        pieces = images.unflatten(-1, (self.depth, -1)).expand(inward.shape[0], -1, -1, -1)
        entering = torch.einsum("nbtp,npg->tnbg", pieces, inward) + bias[None]
        state = torch.zeros(*pieces.shape[:2], STATE)
        cell = torch.zeros_like(state)
        for values in entering:
            if self.activation in ("rnn", "relu"):
                state = (torch.tanh if self.activation == "rnn" else torch.relu)(torch.baddbmm(values, state, turn))
            elif self.activation == "lstm":
                i, f, g, o = torch.baddbmm(values, state, turn).chunk(4, -1)
                cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
                state = torch.sigmoid(o) * torch.tanh(cell)
            else:
                r, z, n = torch.bmm(state, turn).chunk(3, -1)
                into_r, into_z, into_n = values.chunk(3, -1)
                keep = torch.sigmoid(into_z + z)
                state = keep * state + (1 - keep) * torch.tanh(into_n + torch.sigmoid(into_r + r) * n)
        return torch.baddbmm(shift, state, head)


Study = Chain | Recurrent
