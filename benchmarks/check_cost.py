"""What ``initlint.check(module, inputs)`` costs beside one forward and backward pass of the same batch.

    python benchmarks/check_cost.py [--runs 5] [--only PATTERN]

Large models (a pass takes half a second or more): the ratio of times, and of peak memory beyond that of the loaded
model. Small ones: microseconds of processor time per operator, of which a pass executes as many as a dispatch mode
counts, forwards and backwards; on one thread, for the others of a pool burn processor time while they wait (with two
on a busy machine a pass of 4 ms burns 1 s). Both sides run in turn in one process, so that a busy machine slows both;
figures are medians. Memory is measured in processes of their own. Models that need liveness (they have zeros, or equal
units) run their forward more than once: for k = 4 steps the bar is (k + 3) times a pass. One of them is broken: its
check tries a fix as well, with two more probes.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from zoo import GPT_NAMES, GROUPED, PATCHES, T5, TEXT, Built, _pytorchcv, _tokens, _transformers, _vit_pytorch

import initlint

BIG_TEXT = {**TEXT, "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048}
BIG_PATCHES = {"image_size": 224, "patch_size": 16, "dim": 384, "mlp_dim": 1536, "num_classes": 100}


@dataclass(frozen=True)
class Subject:
    name: str
    construct: Callable[[], Built]

    def build(self) -> Built:
        torch.manual_seed(0)
        return self.construct()


def _big_text(model: str) -> Built:
    module, _ = _transformers(model, "AutoModel", _tokens, {**BIG_TEXT, "max_position_embeddings": 128})
    return module, (torch.randint(3, 120, (16, 128)),)


def _big_vit() -> Built:
    module, _ = _vit_pytorch("vit", "ViT", **BIG_PATCHES, depth=8, heads=6)
    return module, (torch.randn(8, 3, 224, 224),)


def _mlp(width: int = 64) -> Built:
    layers = [nn.Linear(width, width), nn.ReLU()] * 4
    return nn.Sequential(*layers, nn.Linear(width, 10)), (torch.randn(32, width),)


def _with_zeros(pattern: str) -> Built:
    """A ResNet-18 whose parameters of these names are zero: one factor of a branch, or both."""
    module, inputs = _pytorchcv("resnet", "resnet18", batch=8)
    for name, parameter in module.named_parameters():
        if re.search(pattern, name):
            nn.init.zeros_(parameter)
    return module, inputs


def _with_zero_end(subject: Subject) -> Built:
    """The last matrix is zero, that of the head mostly: all in front of it waits for the first step."""
    module, inputs = subject.construct()
    nn.init.zeros_([parameter for parameter in module.parameters() if parameter.ndim > 1][-1])
    return module, inputs


LARGE = (
    *(
        Subject(name, partial(_pytorchcv, module, name, batch=batch))
        for module, name, batch in (
            ("resnet", "resnet18", 8),
            ("resnet", "resnet50", 8),
            ("vgg", "vgg11", 4),
            ("vgg", "bn_vgg11", 4),
            ("densenet", "densenet121", 8),
            ("mobilenetv2", "mobilenetv2_w1", 8),
            ("efficientnet", "efficientnet_b0", 8),
            ("regnet", "regnetx004", 8),
        )
    ),
    Subject("bert, 6 layers of 512", partial(_big_text, "bert")),
    Subject("llama, 6 layers of 512", partial(_big_text, "llama")),
    Subject("ViT, 8 layers of 384", _big_vit),
)
STEPPING = (
    *(Subject(f"{subject.name}, zero end", partial(_with_zero_end, subject)) for subject in LARGE),
    Subject("resnet18, zero-init residual", partial(_with_zeros, r"body\.conv2\.bn\.weight$")),
    Subject("resnet18, deadlocked zeros", partial(_with_zeros, r"stage2\.unit2\.body\.conv[12]\.bn\.weight$")),
)
SMALL = (
    Subject("mlp", _mlp),
    Subject("lstm", lambda: (nn.LSTM(32, 64, 2, batch_first=True), (torch.randn(8, 16, 32),))),
    *(
        Subject(f"tiny {name}", partial(_transformers, name, "AutoModel", _tokens, TEXT))
        for name in ("bert", "roberta", "electra", "deberta-v2")
    ),
    *(
        Subject(f"tiny {name}", partial(_transformers, name, "AutoModel", _tokens, {**TEXT, **GROUPED}))
        for name in ("llama", "mistral")
    ),
    Subject("tiny gpt2", partial(_transformers, "gpt2", "AutoModelForCausalLM", _tokens, GPT_NAMES)),
    Subject("tiny t5", partial(_transformers, "t5", "T5EncoderModel", _tokens, T5)),
    Subject("tiny vit", partial(_vit_pytorch, "vit", "ViT", **PATCHES, depth=3, heads=4)),
)


def one_pass(module: nn.Module, inputs: Any) -> None:
    """Forwards and backwards, as a training step would."""
    output = module(**inputs) if isinstance(inputs, dict) else module(*inputs)
    while not isinstance(output, torch.Tensor):
        output = output[0]
    output.sum().backward()
    module.zero_grad(set_to_none=True)


class _Count(TorchDispatchMode):
    operators = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators += 1
        return func(*args, **(kwargs or {}))


def operators(module: nn.Module, inputs: Any) -> int:
    """How many one pass executes."""
    with _Count() as count:
        one_pass(module, inputs)
    return count.operators


def seconds(action: Callable[[], object], clock: Callable[[], float]) -> float:
    begin = clock()
    action()
    return clock() - begin


def forwards(module: nn.Module, inputs: Any) -> int:
    """How often a check runs the model: once, and more often where liveness takes steps."""
    calls: list[None] = []
    handle = module.register_forward_pre_hook(lambda *_: calls.append(None))
    initlint.check(module, inputs)
    handle.remove()
    return len(calls)


def times(subject: Subject, runs: int, clock: Callable[[], float]) -> tuple[float, float, float, int, int]:
    """Medians of (one pass, one check, their ratio), how often a check runs the model, operators of a pass."""
    module, inputs = subject.build()
    one_pass(module, inputs)
    initlint.check(module, inputs)
    pairs = [
        (seconds(lambda: one_pass(module, inputs), clock), seconds(lambda: initlint.check(module, inputs), clock))
        for _ in range(runs)
    ]
    medians = [statistics.median(pair[side] for pair in pairs) for side in (0, 1)]
    ratio = statistics.median(check / single for single, check in pairs)
    return medians[0], medians[1], ratio, forwards(module, inputs), operators(module, inputs)


def peak(name: str, side: str) -> float:
    """MiB of resident memory that ``side`` ("pass" or "check") needs beyond the loaded model, in a new process."""
    done = subprocess.run([sys.executable, __file__, "--peak", name, side], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _print_peak(name: str, side: str) -> None:
    subject = next(each for each in (*LARGE, *STEPPING, *SMALL) if each.name == name)
    module, inputs = subject.build()
    one_pass(nn.Linear(2, 2), (torch.randn(2, 2),))  # what a first pass loads
    initlint.check(nn.Linear(2, 2), torch.randn(2, 2))
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before = _resident("VmRSS")
    one_pass(module, inputs) if side == "pass" else initlint.check(module, inputs)
    print(_resident("VmHWM") - before)


def _resident(field: str) -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "SIDE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        _print_peak(*options.peak)
        return
    chosen, threads = re.compile(options.only), torch.get_num_threads()
    for title, subjects in (("large", LARGE), ("stepping", STEPPING), ("small", SMALL)):
        large = subjects is not SMALL
        torch.set_num_threads(threads if large else 1)
        rows: list[float] = []
        for subject in (each for each in subjects if chosen.search(each.name)):
            single, check, ratio, forward, count = times(subject, options.runs, perf_counter if large else process_time)
            said = f"{subject.name:28} pass {single:6.3f} s  check {check:6.3f} s  x{ratio:5.2f}"
            said += f"  {1e6 * check / count:5.0f} us/op  {forward:2} forwards"
            if large:
                memory = [peak(subject.name, side) for side in ("pass", "check")]
                said += f"  memory {memory[0]:5.0f} -> {memory[1]:5.0f} MiB  x{memory[1] / memory[0]:.2f}"
            print(said, flush=True)
            rows.append(ratio if large else 1e6 * check / count)
        if rows:
            unit = "times a pass" if large else "us per operator"
            print(f"median of {len(rows)} {title} models: {statistics.median(rows):.2f} {unit}")


if __name__ == "__main__":
    main()
