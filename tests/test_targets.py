"""What a target may be, how a Python target is imported and built, and what is said where it is not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import initlint
from initlint.cli import main
from initlint.errors import FailureKind, TargetError
from initlint.load.target import TargetKind, kind_of, python_name
from initlint.testing import honest_export

SOURCE = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width=8):
        super().__init__(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

class Zoo:
    net = Net()

def build(width):
    return Net(width)

def with_inputs():
    return Net(), torch.ones(5, 4)

def boom():
    raise ValueError("no such checkpoint")

def number():
    print("printed by the builder")
    return 3

def noisy():
    print("printed by the builder")
    return Net()

def batch():
    return torch.ones(6, 4)

net = Net()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(SOURCE)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--isolated"])


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Modules that a test imported are unknown to the next one."""
    yield
    for name in [name for name in sys.modules if name.partition("_")[0] in ("nets", "broken")]:
        del sys.modules[name]


# Which kind ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "source", "attribute"),
    [
        ("pkg.mod:attr", "pkg.mod", "attr"),
        ("pkg.mod:Zoo.net", "pkg.mod", "Zoo.net"),
        ("path/to/net.py:build", "path/to/net.py", "build"),
        (r"C:\models\net.py:build", r"C:\models\net.py", "build"),
        ("./a:b/net.py:build", "./a:b/net.py", "build"),
    ],
)
def test_the_last_colon_separates_source_and_attribute(text: str, source: str, attribute: str) -> None:
    name = python_name(text)
    assert name is not None
    assert (name.source, name.attribute) == (source, attribute)


@pytest.mark.parametrize(
    "text", ["model.onnx", r"C:\models\net.onnx", "a:b/c.onnx", "net.py:", "x:1x3", "dir/net:build"]
)
def test_paths_are_paths(text: str) -> None:
    assert python_name(text) is None


def test_an_existing_file_is_a_file_whatever_its_name(folder: Path) -> None:
    (folder / "odd:name").touch()
    assert kind_of("odd:name") is TargetKind.FILE


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.PTH", "w.ckpt", "exported.pt2"])
def test_weights_are_known_by_their_suffix(name: str) -> None:
    assert kind_of(name) is kind_of(Path(name)) is TargetKind.WEIGHTS


def test_a_python_file_alone_is_refused_with_an_example() -> None:
    with pytest.raises(TargetError, match=r"as in net\.py:build"):
        kind_of("net.py")


# Building ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ["Net", "net", "Zoo.net", "with_inputs", "noisy"])
@pytest.mark.parametrize("source", ["nets", "nets.py"])
def test_modules_classes_and_builders_are_targets(folder: Path, source: str, attribute: str) -> None:
    report = initlint.check(f"{source}:{attribute}")
    assert (report.format, report.probe.forward, len(report.layers)) == ("torch", "measured", 2)
    assert report.target == f"{source}:{attribute}"
    assert report.probe.batch == (5 if attribute == "with_inputs" else 8)


def test_a_builder_gets_its_arguments(folder: Path) -> None:
    report = initlint.check("nets:build", kwargs={"width": 16})
    assert report.layers[0].layer.weight.shape == (16, 4)
    result = run("nets:build", "--kwargs", '{"width": 16}')
    assert (result.exit_code, "2 layers" in result.output) == (0, True)


def test_a_builder_runs_under_the_seed_and_leaves_the_random_state(folder: Path) -> None:
    before = torch.get_rng_state()
    one, same, other = (initlint.check("nets:Net", seed=seed).layers[0].stats for seed in (1, 1, 2))
    assert one == same != other
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("target", ["nets:Net", "nets.py:Net"])
def test_the_search_path_is_what_it_was(folder: Path, target: str) -> None:
    before = list(sys.path)
    initlint.check(target)
    assert sys.path == before


@pytest.mark.parametrize(
    ("target", "kind", "said"),
    [
        ("nets:Nte", FailureKind.MISSING, r"nets has no 'Nte'.* did you mean \"Net\"\?"),
        ("missing.py:net", FailureKind.MISSING, r"missing\.py does not exist"),
        ("no_such_package.nets:Net", FailureKind.IMPORT, r"no module 'no_such_package'; run initlint where"),
        ("nets:build", FailureKind.USAGE, r"missing a required argument: 'width'; .*--kwargs '\{\"width\": \.\.\.\}'"),
        ("nets:boom", FailureKind.IMPORT, r"ValueError: no such checkpoint \(nets\.py:19\)"),
        ("nets:number", FailureKind.USAGE, r"no torch\.nn\.Module: it returned a int"),
        ("nets:torch", FailureKind.USAGE, r"it is a module; name"),
    ],
)
def test_what_cannot_be_built_is_said_in_a_sentence(folder: Path, target: str, kind: FailureKind, said: str) -> None:
    with pytest.raises(TargetError, match=said) as caught:
        initlint.check(target)
    assert caught.value.kind is kind


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import torch\nx = (1,\n", r"SyntaxError: '\(' was never closed \(broken\.py:2\)"),
        ("import torch\n\n1 / 0\n", r"ZeroDivisionError: division by zero \(broken\.py:3\)"),
        ("import no_such_dependency\n", r"No module named 'no_such_dependency' \(broken\.py:1\)"),
        ("raise SystemExit('usage: train')\n", r'SystemExit: usage: train .*if __name__ == "__main__":'),
        ("from . import other\n", r"belongs to a package: name it as package\.broken:net"),
    ],
)
def test_an_import_error_is_the_users_own(folder: Path, text: str, said: str) -> None:
    (folder / "broken.py").write_text(text)
    with pytest.raises(TargetError, match=said) as caught:
        initlint.check("broken.py:net")
    assert caught.value.kind is FailureKind.IMPORT
    assert "initlint/load" not in str(caught.value)


def test_arguments_for_a_finished_module_are_refused(folder: Path) -> None:
    with pytest.raises(TargetError, match="is a module already"):
        initlint.check("nets:net", kwargs={"width": 3})


def test_the_command_line_shows_no_traceback_and_exits_with_2(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "initlint", "nets.py:boom", "--isolated"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no such checkpoint (nets.py:19)" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.usefixtures("interruptible")
def test_control_c_in_a_forward_that_does_not_end_exits_with_130(folder: Path) -> None:
    (folder / "endless.py").write_text(
        "import sys, time\nfrom torch import nn\nclass Net(nn.Linear):\n    def forward(self, x):\n"
        "        print('running', file=sys.__stdout__, flush=True)\n        time.sleep(60)\n"
    )
    command = [sys.executable, "-m", "initlint", "endless.py:Net", "--isolated", "--kwargs"]
    process = subprocess.Popen(
        [*command, '{"in_features": 3, "out_features": 2}'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in complaint) == (130, False)


def test_what_a_target_prints_does_not_spoil_the_report(folder: Path) -> None:
    result = run("nets:noisy", "--output-format", "json")
    assert result.stdout.startswith("{")
    assert "printed by the builder" in result.stderr


def test_targets_of_all_kinds_are_checked_in_one_run(folder: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    torch.save(module.state_dict(), "w.pt")
    (folder / "m.onnx").write_bytes(honest_export(module, torch.randn(3, 4)).SerializeToString())
    result = run("nets:Net", "m.onnx", "w.pt", "nets:boom", "-v")
    assert result.exit_code == 2
    for head in ("nets:Net  torch, 2 layers", "m.onnx  onnx, 2 layers", "w.pt  weights, 2 layers", "nets:boom\n"):
        assert head in result.output


def test_a_function_gives_inputs_to_modules_and_to_files(folder: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    (folder / "m.onnx").write_bytes(honest_export(module, torch.randn(6, 4)).SerializeToString())
    for target in ("nets:Net", "m.onnx"):
        assert initlint.check(target, inputs="nets:batch").probe.batch == 6
    with pytest.raises(TargetError, match=r"no such checkpoint \(nets\.py:19\)"):
        initlint.check("nets:Net", inputs="nets:boom")


def test_devices_are_named_and_checked(folder: Path) -> None:
    assert initlint.check("nets:Net", device="cpu").ok
    with pytest.raises(TargetError, match="--device nowhere"):
        initlint.check("nets:Net", device="nowhere")


def test_an_onnx_file_is_checked_without_torch(folder: Path) -> None:
    module = nn.Linear(4, 8)
    (folder / "m.onnx").write_bytes(honest_export(module, torch.randn(3, 4)).SerializeToString())
    script = "import sys, initlint; initlint.check('m.onnx'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# The loss -------------------------------------------------------------------------------------------------------------

LOSSES = """
import torch

def first_class(output):
    return output[:, 0].sum()

def with_inputs(output, inputs):
    return (output * inputs[0].sum()).sum()

def broken(output):
    raise ValueError("no labels")

number = 3
"""


def test_a_loss_is_named_on_the_command_line(folder: Path) -> None:
    (folder / "nets_losses.py").write_text(LOSSES)
    for loss in ("nets_losses.py:first_class", "nets_losses:with_inputs"):
        result = run("nets.py:Net", "--loss", loss, "--output-format", "json")
        (report,) = json.loads(result.stdout)["reports"]
        assert report["probe"]["loss"] == "given"
    assert initlint.check("nets.py:net", loss="nets_losses.py:first_class").probe.loss == "given"


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("nets_losses.py:broken", "the loss could not be computed: ValueError: no labels"),
        ("nets_losses.py:number", "is of type int; name a function of the model's output"),
        ("nets_losses.py:absent", "--loss nets_losses.py:absent: nets_losses.py has no 'absent'"),
        ("entropy", "has to be a function of the model's output, as pkg.mod:function"),
    ],
)
def test_a_loss_that_does_not_work_is_a_fault_of_the_call(folder: Path, loss: str, said: str) -> None:
    (folder / "nets_losses.py").write_text(LOSSES)
    result = run("nets.py:Net", "--loss", loss)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
