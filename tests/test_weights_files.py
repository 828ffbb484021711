"""Files of weights without a network: what is read from them, and that code in them runs only where it is trusted."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import initlint
from initlint.cli import main
from initlint.errors import FailureKind
from initlint.kinds import Kind
from initlint.plugin import Severity


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--isolated"])


def weights() -> nn.Module:
    return nn.ModuleDict(
        {
            "embed": nn.Embedding(20, 8),
            "conv": nn.Conv2d(3, 8, 3),
            "norm": nn.BatchNorm2d(8),
            "lstm": nn.LSTM(8, 4, bidirectional=True),
            "attention": nn.MultiheadAttention(8, 2),
            "head": nn.Linear(8, 2),
        }
    )


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_are_read_by_name_and_shape(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    path, module = tmp_path / f"w{suffix}", weights()
    with torch.no_grad():
        module["head"].weight[1, 1] = float("nan")
    (torch.save if suffix == ".pt" else save_file)(module.state_dict(), path)
    report = initlint.check(path, fail_on="never")
    kinds = {row.layer.name: row.layer.kind for row in report.layers}
    assert kinds == {
        "embed": Kind.EMBEDDING,
        "conv": Kind.CONV,
        "norm": Kind.BATCH_NORM,
        "lstm": Kind.LSTM,
        "lstm.l0_reverse": Kind.LSTM,
        "attention": Kind.LINEAR,
        "attention.out_proj": Kind.LINEAR,
        "head": Kind.LINEAR,
    }
    assert (report.format, report.status, report.probe.forward) == ("weights", "ok", "none")
    grave = [finding for finding in report.findings if finding.severity > Severity.NOTE]
    assert [(finding.rule, finding.address) for finding in grave] == [("non-finite-weights", "head.weight")]
    assert "holds no network to run" in report.probe.reason
    assert "guessed from its name and shape" in report.not_checked[0].reason


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
def test_weights_of_every_float_type_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file

    tensors = {"fc.weight": torch.randn(8, 8).to(dtype), "steps": torch.ones(3, dtype=torch.int64)}
    torch.save(tensors, tmp_path / "w.pt")
    save_file(tensors, tmp_path / "w.safetensors")
    one, other = (initlint.check(tmp_path / f"w{suffix}") for suffix in (".pt", ".safetensors"))
    assert one.layers[0].stats is not None and other.layers[0].stats is not None
    assert one.layers[0].stats.std == pytest.approx(other.layers[0].stats.std)
    assert {entry.at for entry in one.not_checked} == {entry.at for entry in other.not_checked} >= {"steps"}


def test_a_checkpoints_model_is_found(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, "model": weights().state_dict()}, tmp_path / "w.pt")
    report = initlint.check(tmp_path / "w.pt")
    assert len(report.layers) == 8
    assert any("'model'" in entry.at for entry in report.not_checked)


class Danger:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def saved(kind: str, path: Path) -> Path:
    linear = nn.Linear(3, 3)
    if kind == "whole module":
        torch.save(linear, path)
    elif kind == "danger":
        torch.save({"w": torch.ones(2), "x": Danger()}, path)
    elif kind == "torchscript":
        torch.jit.script(linear).save(str(path))
    elif kind == "exported":
        torch.export.save(torch.export.export(linear, (torch.ones(2, 3),)), path.with_suffix(".pt2"))
        return path.with_suffix(".pt2")
    elif kind == "legacy":
        torch.save(linear.state_dict(), path, _use_new_zipfile_serialization=False)
    elif kind == "no tensors":
        torch.save({"epoch": 1}, path)
    else:
        path.write_bytes(b"junk")
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("whole module", r"pickled objects \('torch\.nn\.modules\.linear\.Linear'\).*pkg\.mod:attr"),
        ("danger", r"which is code and is not run; name the Python"),
        ("torchscript", r"a TorchScript program, which is code and is not run"),
        ("exported", r"an exported program, which is code and is not run"),
        ("legacy", r"save it again"),
        ("no tensors", r"holds no state dict; save model\.state_dict\(\)"),
        ("junk", r"save it again"),
    ],
)
def test_code_in_disguise_is_refused_with_a_way_out(folder: Path, kind: str, said: str) -> None:
    report = initlint.check(saved(kind, folder / "w.pt"))
    assert report.failure is not None
    assert (report.status, report.format, report.exit_status) == ("unsupported", "weights", 3)
    assert re.search(said, report.failure.message), report.failure.message
    assert not (folder / "ran").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["whole module", "torchscript", "exported"])
def test_trusted_code_is_loaded_and_run(folder: Path, kind: str) -> None:
    path = saved(kind, folder / "w.pt")
    report = initlint.check(path, None if kind == "exported" else torch.ones(4, 3), trust=True)
    assert (report.failure, report.format, str(report.probe.forward)) == (None, "torch", "measured")
    assert [row.layer.weight.shape for row in report.layers] == [(3, 3)]
    assert run(str(path), "--trust", *(["--input-shape", "2x3"] if kind != "exported" else [])).exit_code == 0


def test_what_a_trusted_module_is_made_of_is_looked_for_beside_it(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "net_beside.py").write_text("from torch import nn\n\n\nclass Net(nn.Linear):\n    pass\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(folder))
        torch.save(__import__("net_beside").Net(3, 3), folder / "w.pt")
    monkeypatch.delitem(sys.modules, "net_beside")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    before = list(sys.path)
    assert initlint.check(folder / "w.pt", trust=True).format == "torch"
    assert sys.path == before


def test_trust_changes_nothing_for_plain_weights(folder: Path) -> None:
    torch.save(nn.Linear(3, 3).state_dict(), folder / "w.pt")
    assert initlint.check(folder / "w.pt", trust=True).format == "weights"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "said"), [("danger", "no module among them"), ("junk", "cannot be loaded"), ("missing", "does not exist")]
)
def test_what_trust_cannot_load_is_said(folder: Path, kind: str, said: str) -> None:
    path = folder / "w.pt" if kind == "missing" else saved(kind, folder / "w.pt")
    result = run(str(path), "--trust")
    assert result.exit_code == (2 if kind == "missing" else 3)
    assert said in " ".join(result.output.split())


def test_unsafe_loading_cannot_be_switched_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert initlint.check(saved("danger", folder / "w.pt")).exit_status == 3
    assert not (folder / "ran").exists()


def test_a_damaged_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"junk")
    report = initlint.check(tmp_path / "w.safetensors")
    assert report.failure is not None and report.failure.kind is FailureKind.UNREADABLE


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("w.pt", b"", "is empty"),
        ("w.pt", b"<html>404</html>", "a web page"),
        ("w.pt", b"PK\x03\x04" + bytes(90), "cut short"),
        ("w.safetensors", b"", "is empty"),
        ("w.safetensors", b"PK\x03\x04" + bytes(26) + b"archive/data.pkl", "rename it to .pt"),
        ("w.safetensors", b'\x10\0\0\0\0\0\0\0{"a": 1', "is no safetensors file: "),
    ],
)
def test_a_file_of_another_kind_is_called_so(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    failure = initlint.check(path).failure
    assert failure is not None
    assert failure.kind is FailureKind.UNREADABLE
    assert said in failure.message


def test_all_models_of_a_checkpoint_are_judged_and_its_optimizers_are_not(tmp_path: Path) -> None:
    generator, critic = nn.Linear(4, 4), nn.Linear(4, 1)
    optimizer = torch.optim.Adam(critic.parameters())
    critic(torch.ones(4)).sum().backward()
    optimizer.step()
    models = {"generator": generator.state_dict(), "critic": {"state_dict": critic.state_dict()}}
    torch.save({**models, "optimizer": optimizer.state_dict(), "ema": generator.state_dict()}, tmp_path / "w.pt")
    report = initlint.check(tmp_path / "w.pt")
    assert [row.layer.name for row in report.layers] == ["generator", "critic"]
    torch.save(optimizer.state_dict(), tmp_path / "o.pt")
    assert initlint.check(tmp_path / "o.pt").failure is not None
