"""How far may a gate be shut that all of the signal passes? A calibration of shut-gates.

    python benchmarks/calibrate_gates.py [--write benchmarks/results/calibrate_gates.md]      # 15 minutes

Nets      Two gated blocks and a head where not told otherwise, 48 wide: GLUs, an MLP with one gate, GLUs with a layer
          norm or a batch norm behind, gated convolutions, squeeze and excitation, softplus steps, LSTMs, learned
          factors; and highway nets and gated residual blocks, which lead around their gates.
Faults    The bias of every gate (or the factor itself) such that it lets ``openness`` through, from 0.1 to 1e-14. The
          healthy twin has zero biases (LSTM: PyTorch's; factors: 1, and the sigmoid of 2.2).
Left      what initlint measures behind the last gate, of the first 32 samples; 1 where it sees no gate that is shut, or
          a way around it.
Training  ``training.py``, on digits; two seeds. As in ``truth/labels.py`` an optimiser with which the twin stays below
          0.5 is left out.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from side_by_side import bands
from torch import Tensor, nn
from torch.nn import functional
from training import LABELS, MARGIN, Task, observe, tasks, tune
from truth.labels import LEARNS

from initlint.gating import held_back, shut
from initlint.probe.on_torch import TorchSession
from initlint.settings import ProbeSettings

WIDTH = 48
HEALTHY = 0.5
OPEN = (0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14)


def logit(openness: float) -> float:
    return math.log(openness / (1.0 - openness)) if openness != HEALTHY else 0.0


def he(layer: nn.Module) -> nn.Module:
    nn.init.kaiming_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def gate(layer: nn.Module, openness: float) -> nn.Module:
    nn.init.xavier_normal_(layer.weight, gain=0.5)
    nn.init.constant_(layer.bias, logit(openness))
    return layer


class Glu(nn.Module):
    """value(x) * sigmoid(gate(x)), behind a skip where ``residual``."""

    def __init__(
        self, inputs: int, openness: float, norm: Callable[[int], nn.Module] = lambda n: nn.Identity()
    ) -> None:
        super().__init__()
        self.value, self.gate = he(nn.Linear(inputs, WIDTH)), gate(nn.Linear(inputs, WIDTH), openness)
        self.norm = norm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.value(x) * torch.sigmoid(self.gate(x)))


def glu(openness: float, norm: Callable[[int], nn.Module] = lambda n: nn.Identity()) -> nn.Module:
    return nn.Sequential(Glu(64, openness, norm), Glu(WIDTH, openness, norm), he(nn.Linear(WIDTH, 10)))


def one_gate(openness: float) -> nn.Module:
    return nn.Sequential(he(nn.Linear(64, WIDTH)), nn.ReLU(), Glu(WIDTH, openness), he(nn.Linear(WIDTH, 10)))


class GatedConv(nn.Module):
    def __init__(self, inputs: int, openness: float) -> None:
        super().__init__()
        self.value = he(nn.Conv2d(inputs, 16, 3, padding=1))
        self.gate = gate(nn.Conv2d(inputs, 16, 3, padding=1), openness)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x))


def gated_conv(openness: float) -> nn.Module:
    return nn.Sequential(GatedConv(1, openness), GatedConv(16, openness), nn.Flatten(), he(nn.Linear(1024, 10)))


class Excited(nn.Module):
    def __init__(self, inputs: int, openness: float) -> None:
        super().__init__()
        self.conv, self.down = he(nn.Conv2d(inputs, 16, 3, padding=1)), he(nn.Linear(16, 8))
        self.up = gate(nn.Linear(8, 16), openness)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))[:, :, None, None]


def excited(openness: float) -> nn.Module:
    return nn.Sequential(Excited(1, openness), Excited(16, openness), nn.Flatten(), he(nn.Linear(1024, 10)))


class Step(nn.Module):
    """softplus(dt(x)) * value(x), as what enters a state space."""

    def __init__(self, openness: float) -> None:
        super().__init__()
        self.value, self.dt = he(nn.Linear(64, WIDTH)), nn.Linear(64, WIDTH)
        nn.init.xavier_normal_(self.dt.weight, gain=0.5)
        nn.init.constant_(self.dt.bias, math.log(math.expm1(openness)) if openness > 1e-6 else math.log(openness))

    def forward(self, x: Tensor) -> Tensor:
        return functional.softplus(self.dt(x)) * self.value(x)


def step(openness: float) -> nn.Module:
    return nn.Sequential(Step(openness), he(nn.Linear(WIDTH, WIDTH)), nn.ReLU(), he(nn.Linear(WIDTH, 10)))


class Recurrent(nn.Module):
    def __init__(self, openness: float, gates: str) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(8, WIDTH, batch_first=True), he(nn.Linear(WIDTH, 10))
        for name in gates if openness != HEALTHY else "":
            rows = slice("ifgo".index(name) * WIDTH, ("ifgo".index(name) + 1) * WIDTH)
            with torch.no_grad():
                self.rnn.bias_ih_l0[rows] = logit(openness)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Factor(nn.Module):
    """A learned factor on all of the signal, or the sigmoid of one."""

    def __init__(self, size: int, openness: float, squashed: bool) -> None:
        super().__init__()
        healthy = openness == HEALTHY
        value = (logit(0.9) if healthy else logit(openness)) if squashed else (1.0 if healthy else openness)
        self.factor, self.squashed = nn.Parameter(torch.full((size,), value)), squashed
        self.inner, self.head = he(nn.Linear(64, WIDTH)), he(nn.Linear(WIDTH, 10))

    def forward(self, x: Tensor) -> Tensor:
        factor = torch.sigmoid(self.factor) if self.squashed else self.factor
        return self.head(torch.relu(self.inner(x)) * factor)


class Highway(nn.Module):
    def __init__(self, openness: float, carries: bool) -> None:
        super().__init__()
        self.value, self.gate, self.carries = (
            he(nn.Linear(WIDTH, WIDTH)),
            gate(nn.Linear(WIDTH, WIDTH), openness),
            carries,
        )

    def forward(self, x: Tensor) -> Tensor:
        t = torch.sigmoid(self.gate(x))
        value = t * torch.relu(self.value(x))
        return value + (1 - t) * x if self.carries else x + value


def bypassed(openness: float, carries: bool) -> nn.Module:
    blocks = (Highway(openness, carries) for _ in range(3))
    return nn.Sequential(he(nn.Linear(64, WIDTH)), *blocks, he(nn.Linear(WIDTH, 10)))


GATES: dict[str, tuple[str, Callable[[float], nn.Module]]] = {
    "GLU": ("flat", glu),
    "MLP with a gate": ("flat", one_gate),
    "gated convolutions": ("image", gated_conv),
    "squeeze and excitation": ("image", excited),
    "softplus steps": ("flat", step),
    "LSTM, input gate": ("rows", partial(Recurrent, gates="i")),
    "LSTM, output gate": ("rows", partial(Recurrent, gates="o")),
    "LSTM, all gates": ("rows", partial(Recurrent, gates="ifgo")),
    "sigmoid of a number": ("flat", lambda o: Factor(1, o, True)),
    "sigmoid of a vector": ("flat", lambda o: Factor(WIDTH, o, True)),
}
FACTORS = {
    "number": ("flat", lambda o: Factor(1, o, False)),
    "vector": ("flat", lambda o: Factor(WIDTH, o, False)),
}
NORMED = {
    "GLU, layer norm": ("flat", lambda o: glu(o, nn.LayerNorm)),
    "GLU, batch norm": ("flat", lambda o: glu(o, nn.BatchNorm1d)),
}
AROUND = {
    "highway": ("flat", lambda o: bypassed(o, True)),
    "gated residual": ("flat", lambda o: bypassed(o, False)),
}
GROUPS = {
    "Gates that all of the signal passes": GATES,
    "Learned factors on all of the signal": FACTORS,
    "Gates with a normalisation behind": NORMED,
    "Gates with a way around": AROUND,
}


@dataclass(frozen=True)
class Outcome:
    kind: str
    openness: float
    left: float
    verdicts: dict[str, str]
    unmoved: int
    better: str


def left_of(build: Callable[[], nn.Module], task: Task) -> float:
    torch.manual_seed(0)
    with TorchSession(build(), task.sample, {}) as session:
        model, signals, stats = session.model, session.probe(ProbeSettings()), session.stats()
        held = held_back(model, signals, stats, shut(model, signals, stats))
    return 1.0 if held is None else held.left


def study(kind: str, task_name: str, build: Callable[[float], nn.Module]) -> Iterator[Outcome]:
    task = tasks()[task_name]
    tuned = tune(partial(build, HEALTHY), task)
    for openness in OPEN:
        left = left_of(partial(build, openness), task)
        facts = observe(partial(build, openness), task, tuned)
        counted = [facts.labels[name] for name, target in tuned.targets.items() if target + MARGIN >= LEARNS]
        print(
            f"# {kind}, {openness:g}: {left:.2g} {facts.scores} of {tuned.targets}, unmoved {len(facts.never_moved)}",
            flush=True,
        )
        yield Outcome(kind, openness, left, dict(facts.labels), len(facts.never_moved), min(counted, key=LABELS.index))


def by_kind(outcomes: list[Outcome]) -> Iterator[str]:
    """Adam's label and SGD's at every openness, and how many tensors never moved."""
    yield "| net | " + " | ".join(f"{openness:g}" for openness in OPEN) + " |"
    yield "|---" * (len(OPEN) + 1) + "|"
    for kind in dict.fromkeys(each.kind for each in outcomes):
        mine = [each for each in outcomes if each.kind == kind]
        cells = (
            f"{each.verdicts['adam']}, {each.verdicts['sgd']}{f', {each.unmoved}' if each.unmoved else ''}"
            for each in mine
        )
        yield f"| {kind} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, help="also write the tables to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# How far gates may be shut",
        "",
        "Written by `benchmarks/calibrate_gates.py`, whose docstring is",
        "the protocol.",
        "",
    ]
    for title, nets in GROUPS.items():
        outcomes = [outcome for kind, (task, build) in nets.items() for outcome in study(kind, task, build)]
        edges = (0, 1e-12, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 2)
        lines += [f"## {title}", "", *bands(outcomes, lambda o: o.left, edges, "left")]
        lines += [
            "By openness Adam's outcome, SGD's, and how many tensors neither has moved at all:",
            "",
            *by_kind(outcomes),
            "",
        ]
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    if arguments.write:
        arguments.write.write_text(text)


if __name__ == "__main__":
    main()
