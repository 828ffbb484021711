"""How much larger than tokens may positions be, in front of a normalisation? A calibration of drowned-inputs.

    python benchmarks/calibrate_positions.py [--write benchmarks/results/calibrate_positions.md]      # 8 minutes

Nets      as ``NETS`` says, on tokens of size 1 (``nn.Embedding``) or projected rows of ``training.tasks``' digits,
          to which learned positions from N(0, ratio^2) are added; a layer norm follows somewhere.
Share     of what comes out of that norm: what differs from sample to sample at the same place.
Training  and labels as in ``benchmarks/training.py``; the twin is the same net at a ratio of 1.

Nets and ratios were fixed before any outcome was seen, but for a first look at three encoders (400 steps, 4 rates).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from training import LABELS, Facts, observe, tasks, tune

import initlint

RATIOS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
WIDTH = 32


class Placed(nn.Module):
    """Tokens or rows with positions, a body, a norm (for ``post`` and ``flat`` in front of the body), a head."""

    def __init__(self, body: str, places: int, ratio: float, rows: bool = False, pool: bool = True) -> None:
        super().__init__()
        self.enter: nn.Module = nn.Linear(8, WIDTH) if rows else nn.Embedding(17, WIDTH)
        self.positions = nn.Parameter(torch.randn(places, WIDTH) * ratio)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 64, 0.0, batch_first=True, norm_first=body == "pre")
        encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        plain = nn.Sequential(nn.Flatten(), nn.Linear(places * WIDTH, 64), nn.ReLU(), nn.Unflatten(1, (2, WIDTH)))
        self.body = plain if body == "flat" else encoder
        self.norm, self.pool, self.first = nn.LayerNorm(WIDTH), pool, body != "pre"
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x) + self.positions
        x = self.body(self.norm(x)) if self.first else self.norm(self.body(x))
        return self.head(x.mean(1) if self.pool else x[:, -1])  # type: ignore[no-any-return]


NETS: Mapping[str, tuple[str, Callable[[float], nn.Module]]] = {
    "tokens, post-norm, mean": ("tokens", partial(Placed, "post", 16)),
    "tokens, pre-norm, mean": ("tokens", partial(Placed, "pre", 16)),
    "tokens, pre-norm, last": ("tokens", partial(Placed, "pre", 16, pool=False)),
    "tokens, mlp": ("tokens", partial(Placed, "flat", 16)),
    "rows, post-norm, mean": ("rows", partial(Placed, "post", 8, rows=True)),
    "rows, pre-norm, last": ("rows", partial(Placed, "pre", 8, rows=True, pool=False)),
    "rows, mlp": ("rows", partial(Placed, "flat", 8, rows=True)),
}


@dataclass(frozen=True)
class Outcome:
    net: str
    ratio: float
    share: float
    facts: Facts


def share_of(build: Callable[[], nn.Module], sample: tuple[Tensor, ...]) -> float:
    torch.manual_seed(0)
    signals = (layer.signal for layer in initlint.check(build(), sample).layers)
    return min(each.sample_std / each.rms for each in signals if each is not None and each.rms > 0)


def outcomes() -> Iterator[Outcome]:
    for name, (kind, build) in NETS.items():
        task = tasks()[kind]
        tuned = tune(partial(build, ratio=1.0), task)
        for ratio in RATIOS:
            made = partial(build, ratio=ratio)
            yield Outcome(name, ratio, share_of(made, task.sample), observe(made, task, tuned))


def told(found: list[Outcome]) -> Iterator[str]:
    yield "# Positions by their size beside what they are added to\n"
    yield "Written by `python benchmarks/calibrate_positions.py --write`; its docstring explains the words.\n"
    yield "| net | ratio | share | Adam | SGD | score | twin |\n|---|---|---|---|---|---|---|"
    for each in found:
        labels, score = each.facts.labels, max(each.facts.scores.values())
        yield (
            f"| {each.net} | {each.ratio:g} | {each.share:.2g} | {labels['adam']} | {labels['sgd']} | {score:.2f} "
            f"| {each.facts.twin:.2f} |"
        )
    yield "\n| ratio | nets | better: trains | slow | fails | SGD fails |\n|---|---|---|---|---|---|"
    for ratio in RATIOS:
        here = [each for each in found if each.ratio == ratio]
        better = Counter(each.facts.better for each in here)
        sgd = sum(each.facts.labels["sgd"] == "fails" for each in here)
        yield f"| {ratio:g} | {len(here)} | {' | '.join(str(better[label]) for label in LABELS)} | {sgd} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for outcome in outcomes():
        found.append(outcome)
        print(outcome.net, outcome.ratio, f"{outcome.share:.2g}", dict(outcome.facts.labels), flush=True)
    text = "\n".join(told(found)) + "\n"
    print(text)
    if options.write:
        options.write.write_text(text)


if __name__ == "__main__":
    main()
