"""What a configuration says of some targets only: which they are, and whose word counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_sessions import SESSIONS, run

import initlint
from initlint.configuration import merge, of_target, origin, resolve
from initlint.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder within a project."""
    nested = tmp_path / "project" / "models"
    nested.mkdir(parents=True)
    monkeypatch.chdir(nested)
    return nested


@pytest.mark.parametrize(
    ("pattern", "target", "matches"),
    [
        ("models/*.onnx", "models/a.onnx", True),
        ("models/*.onnx", "./models/a.onnx", True),
        ("./models/a.onnx", "models/a.onnx", True),
        ("models/*.onnx", "other/a.onnx", False),
        ("a.onnx", "models/deep/a.onnx", True),
        ("models/*", "models/net.py:build", True),
        ("net.py:*", "models/net.py:build", True),
        ("pkg.models:*", "pkg.models:build", True),
        ("models:*", "pkg.models:build", False),
        ("*", "anything", True),
    ],
)
def test_a_pattern_means_a_path_as_seen_from_the_configuration_or_a_files_name(
    folder: Path, pattern: str, target: str, matches: bool
) -> None:
    (folder / "initlint.toml").write_text(f'[[overrides]]\ntarget = "{pattern}"\nseed = 5\n')
    found = resolve(None, False, origin("command line", {}))
    assert (of_target(found, target).probe.seed == 5) is matches


def test_patterns_hold_wherever_in_the_project_initlint_is_started(folder: Path) -> None:
    (folder.parent / "initlint.toml").write_text(
        '[[overrides]]\ntarget = "models/a.onnx"\nseed = 5\n'
        '[[allow]]\nrule = "r"\nat = "*"\nreason = "x"\ntarget = "models/*"\n'
    )
    found = resolve(None, False, origin("command line", {}))
    for target in ("a.onnx", str(folder / "a.onnx"), "../models/a.onnx"):
        assert of_target(found, target).probe.seed == 5
        assert found.allow[0].concerns(target)
    assert not found.allow[0].concerns("../other/a.onnx")


def test_overrides_count_more_than_their_file_and_less_than_the_command_line(folder: Path) -> None:
    (folder / "initlint.toml").write_text(
        """
        seed = 1
        batch = 1
        ignore = ["a"]
        dims = { n = 1, m = 1 }
        [[overrides]]
        target = "*.onnx"
        seed = 2
        batch = 2
        ignore = ["b"]
        dims = { n = 2 }
        rules = { zero-weights = { share = 0.5 } }
        [[overrides]]
        target = "special.onnx"
        batch = 3
        """
    )
    found = of_target(resolve(None, False, origin("command line", {"seed": 9, "ignore": ["c"]})), "special.onnx")
    assert (found.probe.seed, found.probe.batch, found.ignore) == (9, 3, ("a", "b", "c"))
    assert found.probe.dims == {"n": 2, "m": 1}
    assert found.options == {"zero-weights": {"share": 0.5}}
    assert found.origins["batch"] == ("initlint.toml: overrides, entry 2",)


def test_an_override_that_selects_anew_is_not_bound_by_what_the_file_ignores() -> None:
    said = merge([origin("here", {"ignore": ["a"], "overrides": [{"target": "x.onnx", "select": ["a"]}]})])
    assert (of_target(said, "x.onnx").select, of_target(said, "x.onnx").ignore) == (("a",), ())
    assert of_target(said, "y.onnx") is said


def test_paths_of_an_override_are_relative_to_its_file(folder: Path) -> None:
    (folder.parent / "batch.npz").touch()
    (folder.parent / "initlint.toml").write_text('[[overrides]]\ntarget = "*"\ninputs = "batch.npz"\n')
    found = resolve(None, False, origin("command line", {}))
    assert of_target(found, "a.onnx").probe.inputs == str(folder.parent / "batch.npz")


# What the command line makes of them ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("fakes")
def test_a_hook_needs_no_arguments() -> None:
    Path("initlint.toml").write_text(
        'targets = ["error.onnx", "warning.onnx"]\n'
        '[[overrides]]\ntarget = "warning.onnx"\nfail-on = "warning"\nseed = 7\n'
        '[[overrides]]\ntarget = "error.onnx"\nignore = ["named-so"]\n'
    )
    result = run("check", "--output-format", "json")
    reports = {report["target"]: report for report in json.loads(result.stdout)["reports"]}
    assert result.exit_code == 1
    assert (reports["warning.onnx"]["probe"]["seed"], reports["error.onnx"]["probe"]["seed"]) == (7, 0)
    assert reports["error.onnx"]["findings"] == []
    assert [each["severity"] for each in reports["warning.onnx"]["findings"]] == ["warning"]


@pytest.mark.usefixtures("fakes")
def test_a_fault_of_any_override_stops_the_run() -> None:
    Path("initlint.toml").write_text('[[overrides]]\ntarget = "other.onnx"\nselect = ["name-so"]\n')
    result = run("error.onnx")
    assert (result.exit_code, result.stdout) == (2, "")
    assert 'initlint.toml: overrides, entry 1: select: there is no rule or category "name-so"' in result.stderr


NAMES, SIGNAL = 'select = ["names"]', 'select = ["signal"]'


def special(*overrides: tuple[str, str], besides: str = "") -> None:
    tables = [f'[[overrides]]\ntarget = "{target}"\n{said}\n' for target, said in overrides]
    Path("initlint.toml").write_text("\n".join([besides, *tables]))


@pytest.mark.usefixtures("fakes")
def test_an_override_that_leaves_no_rule_stops_only_runs_over_its_targets() -> None:
    special(("error.onnx", NAMES))
    assert run("clean.onnx", "--ignore", "names").exit_code == 0
    result = run("clean.onnx", "error.onnx", "--ignore", "names")
    assert (result.exit_code, result.stdout, len(SESSIONS)) == (2, "", 1)
    assert "initlint.toml: overrides, entry 1: select and command line: ignore: no rule is left" in result.stderr


@pytest.mark.usefixtures("fakes")
def test_overrides_that_leave_no_rule_together_stop_the_run_before_anything_is_checked() -> None:
    special(("*r.onnx", NAMES), ("err*.onnx", 'ignore = ["names"]'))
    result = run("warning.onnx", "error.onnx", "clean.onnx")
    assert (result.exit_code, result.stdout, SESSIONS) == (2, "", [])
    assert "overrides, entry 1: select and initlint.toml: overrides, entry 2: ignore: no rule is left" in result.stderr
    assert run("warning.onnx", "clean.onnx").exit_code == 0


@pytest.mark.usefixtures("fakes")
def test_what_holds_for_no_target_need_not_leave_a_rule() -> None:
    special(("*.onnx", SIGNAL), besides=NAMES)
    assert run("error.onnx", "--ignore", "names").exit_code == 0
    assert run("config", "--ignore", "names").exit_code == 2
    assert initlint.check("error.onnx", config="initlint.toml", ignore=["names"]).ok
    with pytest.raises(UsageError, match="no rule is left"):
        initlint.check("error.pt2", config="initlint.toml", ignore=["names"])
