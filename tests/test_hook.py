"""The pre-commit hooks as files, and what stands between pre-commit and `initlint check`.

tests/test_pre_commit.py runs them with pre-commit itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fake_sessions import SESSIONS

from initlint import hook

ROOT = Path(__file__).parent.parent
HOOKS = {entry["id"]: entry for entry in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))}


def test_pre_commit_accepts_the_manifest() -> None:
    command = [sys.executable, "-m", "pre_commit", "validate-manifest", str(ROOT / ".pre-commit-hooks.yaml")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "pre-commit").rglob("*.yaml")), ids=lambda path: path.name)
def test_pre_commit_accepts_the_configurations(path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-config", str(path)], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, "")
    [repository] = yaml.safe_load(path.read_text(encoding="utf-8"))["repos"]
    assert {entry["id"] for entry in repository["hooks"]} <= HOOKS.keys()


def test_the_page_shows_hooks_and_inputs_that_there_are() -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    hooks, workflow = [
        yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    ]
    assert [hook["id"] for repository in hooks["repos"] for hook in repository["hooks"]] == ["initlint"]
    inputs = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["inputs"]
    [step] = [step for step in workflow["steps"] if "initlint@" in step["uses"]]
    assert step["with"].keys() <= inputs.keys()
    assert all(f"| `{name}` |" in page for name in HOOKS)


def test_there_is_one_hook_for_files_and_one_for_python() -> None:
    assert HOOKS.keys() == {"initlint", "initlint-python"}
    assert HOOKS["initlint"]["language"] == "python"
    assert HOOKS["initlint-python"]["language"] == "system"
    assert not HOOKS["initlint-python"]["pass_filenames"]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("model.onnx", True),
        ("a folder/model.safetensors", True),
        ("model.onnx.data", True),
        ("model.onnx_data", True),
        ("model.onnx_data_3", True),
        ("model.onnx.py", False),
        ("onnx/data.py", False),
        ("data", False),
        ("model.pt", False),
    ],
)
def test_which_files_lead_to_a_check(path: str, asked: bool) -> None:
    assert (re.search(HOOKS["initlint"]["files"], path) is not None) is asked


def files(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).touch()
    return [(folder / name).as_posix() for name in names]


@pytest.mark.parametrize("suffix", [".data", "_data", "_data_1"])
def test_external_data_stands_for_its_model(tmp_path: Path, suffix: str) -> None:
    model, data, _ = files(tmp_path, "a b.onnx", f"a b.onnx{suffix}", "other.onnx")
    assert hook.with_models([data]) == [model]
    assert hook.with_models([model, data]) == [model]
    assert hook.with_models([data, data, model]) == [model]


def test_external_data_of_a_renamed_model_stands_for_all_models_beside_it(tmp_path: Path) -> None:
    first, second, data = files(tmp_path, "a.onnx", "b.onnx", "old.onnx.data")
    assert hook.with_models([data]) == [first, second]
    assert hook.with_models([second, data]) == [second, first]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit status of the hook with these arguments."""
    monkeypatch.setattr(sys, "argv", ["initlint-hook", *arguments])
    with pytest.raises(SystemExit) as stop:
        hook.main()
    return stop.value.code


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("separated", [(), ("--",)])
def test_options_and_their_values_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, separated: tuple[str, ...]) -> None:
    files(Path(), "warning.onnx", "warning.onnx.data", "report.onnx")
    options = ["--fail-on", "warning", "--ignore=signal", "--output-file", "concise=report.onnx.data", "--seed", "7"]
    assert run(monkeypatch, *options, *separated, "warning.onnx.data") == 1
    assert [(session.target, session.settings.seed) for session in SESSIONS] == [("warning.onnx", 7)]
    assert Path("report.onnx.data").read_text().startswith("warning.onnx: ")


@pytest.mark.usefixtures("fakes")
def test_without_arguments_the_targets_of_the_configuration_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("initlint.toml").write_text('targets = ["error.onnx"]\n')
    assert run(monkeypatch, "-q") == 1
    assert [session.target for session in SESSIONS] == ["error.onnx"]


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("options", [[], ["--fail-on=warning"], ["--fail-on", "warning", "-q"], ["--"]])
def test_external_data_without_any_model_is_no_fault(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files(Path(), "old.onnx.data", "other.onnx_data")
    assert not run(monkeypatch, *options, "old.onnx.data", "other.onnx_data")
    assert "nothing to check" in capsys.readouterr().err
    assert SESSIONS == []


def test_the_hook_ends_as_initlint_check_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "missing.onnx") == 2
    assert run(monkeypatch, "--no-such-option", "old.onnx.data") == 2
    assert not run(monkeypatch, "-h")
    assert "initlint check [OPTIONS] [TARGET]..." in capsys.readouterr().out
