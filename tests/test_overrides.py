"""What a configuration says of some targets only: which they are, and whose word counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from initlint.configuration import merge, of_target, origin, resolve


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
