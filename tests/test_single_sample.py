"""One sample does not show what depends on the input: others are drawn beside it where that is cheap and certain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import initlint
from initlint.report import Report


def faint(width: int = 16) -> nn.Sequential:
    """Six layers of which each keeps a twentieth of its signal."""
    torch.manual_seed(0)
    layers = [layer for _ in range(6) for layer in (nn.Linear(width, width), nn.ReLU())]
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers, nn.Linear(width, 4))


def headlines(report: Report) -> list[tuple[str, str, str]]:
    return [(f.rule, f.address, f.severity.name) for f in report.findings if f.caused_by is None]


def said(report: Report) -> dict[str, str]:
    return {each.at: each.reason for each in report.not_checked}


class Seen(nn.Module):
    """Remembers what it was called with."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[Any] = []

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        self.seen.append((args, kwargs))
        out: Tensor = self.inner(*args, **kwargs)
        return out


def test_one_sample_finds_what_eight_find() -> None:
    one, eight = initlint.check(faint(), torch.randn(1, 16)), initlint.check(faint(), torch.randn(8, 16))
    assert headlines(one) == headlines(eight) != []
    assert (one.probe.batch, eight.probe.batch) == (8, 8)
    assert "7 more were drawn from its values" in said(one)["inputs"]
    assert said(eight) == {}


def test_what_is_drawn_are_values_of_the_sample() -> None:
    module, image = Seen(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))), torch.rand(1, 8, 8)
    initlint.check(module, image)
    (batch,), _ = max(module.seen, key=lambda call: len(call[0][0]))
    assert batch.shape == (8, 8, 8)
    assert torch.equal(batch[:1], image)
    assert set(batch.flatten().tolist()) <= set(image.flatten().tolist())
    assert all(not torch.equal(batch[i], batch[0]) for i in range(1, 8))


def test_a_mask_and_positions_are_the_same_for_every_sample() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places, self.head = nn.Embedding(50, 8), nn.Embedding(6, 8), nn.Linear(8, 2)

        def forward(self, ids: Tensor, places: Tensor, mask: Tensor) -> Tensor:
            shown = (self.words(ids) + self.places(places)) * mask.unsqueeze(-1)
            out: Tensor = self.head(shown.mean(1))
            return out

    module = Seen(Pooled())
    ids, places, mask = torch.randint(1, 50, (1, 6)), torch.arange(6).unsqueeze(0), torch.ones(1, 6)
    report = initlint.check(module, {"ids": ids, "places": places, "mask": mask})
    assert report.probe.batch == 8
    largest = max((call[1] for call in module.seen), key=lambda call: len(call["ids"]))
    assert torch.equal(largest["places"], places.expand(8, -1))
    assert torch.equal(largest["mask"], mask.expand(8, -1))
    assert set(largest["ids"].flatten().tolist()) <= set(ids.flatten().tolist())


class Rated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(50, 8), nn.Embedding(50, 8)
        self.dense, self.head = nn.Linear(12, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, user: Tensor, item: Tensor) -> Tensor:
        met = torch.tanh(self.users(user)) * torch.tanh(self.items(item))
        out: Tensor = self.head(met + torch.tanh(self.dense(x)))
        return out


@pytest.mark.parametrize(("user", "batch"), [(7, 8), (0, 1)])
def test_an_id_of_zero_does_not_tell_which_others_there_are(user: int, batch: int) -> None:
    report = initlint.check(Rated(), (torch.randn(1, 12), torch.tensor([user]), torch.tensor([9])))
    assert report.probe.batch == batch
    assert list(said(report)) == (["inputs"] if batch == 8 else ["signals"])
    assert headlines(report) == []


class OnlyOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x.view(16))
        return out.unsqueeze(0)


class Mixing(nn.Module):
    """What it gives has no place for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x.mean(0, keepdim=True))
        return out


class Rooting(nn.Module):
    """Finite for a sample in order only."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(15, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x.diff(dim=-1).sqrt())
        return out


@pytest.mark.parametrize("module", [OnlyOne(), Mixing(), Rooting()])
def test_a_forward_that_other_samples_do_not_suit_is_probed_with_the_given_one(module: nn.Module) -> None:
    report = initlint.check(module, torch.arange(16.0).unsqueeze(0))
    assert (report.status, report.probe.batch, headlines(report)) == ("ok", 1, [])
    assert "a single sample does not show" in said(report)["signals"]
    assert "all clean" not in str(report)


def test_what_the_user_fixed_stays() -> None:
    asked = initlint.check(faint(), torch.randn(1, 16), batch=1)
    lossy = initlint.check(faint(), torch.randn(1, 16), loss=lambda out: out.square().mean())
    assert (asked.probe.batch, lossy.probe.batch) == (1, 1)
    assert list(said(asked)) == list(said(lossy)) == ["signals"]


def test_a_large_image_is_not_multiplied() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 64, 5), nn.ReLU(), nn.Conv2d(64, 64, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).append(nn.Linear(64, 4))
    report = initlint.check(module, torch.randn(1, 3, 128, 128))
    assert (report.probe.batch, list(said(report))) == (1, ["signals"])


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint64])
def test_what_cannot_be_drawn_is_probed_as_it_is(dtype: torch.dtype) -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(x.float())
            return out

    report = initlint.check(Cast(), torch.arange(1, 17).unsqueeze(0).to(dtype))
    assert (report.status, report.probe.forward) == ("ok", "measured")


def test_many_values_are_not_multiplied() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert initlint.check(module, torch.randn(1, 3, 1000, 1000)).probe.batch == 1


def test_a_shape_of_one_sample_is_enough() -> None:
    report = initlint.check(faint(), input_shape={"input": (1, 16)})
    assert (report.probe.batch, headlines(report)) == (8, headlines(initlint.check(faint(), torch.randn(8, 16))))


def test_a_file_runs_several_times(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for i in range(6):
        weights.append(numpy_helper.from_array(rng.normal(0, 0.01, (16, 16)).astype(np.float32), f"w{i}"))
        nodes += [
            helper.make_node("MatMul", [name, f"w{i}"], [f"m{i}"]),
            helper.make_node("Relu", [f"m{i}"], [f"h{i}"]),
        ]
        name = f"h{i}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16])
    y = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16])
    model = helper.make_model(helper.make_graph(nodes, "faint", [x], [y], weights))
    given = initlint.check(model, {"x": rng.normal(size=(1, 16)).astype(np.float32)})
    assert headlines(given) == headlines(initlint.check(model)) != []
    assert "7 more were drawn from its values" in said(given)["inputs"]
    assert said(initlint.check(model, {"x": rng.normal(size=(1, 16)).astype(np.float32)}, batch=1)) == {}
