"""Settings: where they are found, what they may say, and who wins."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from initlint import configuration
from initlint.configuration import find, from_call, merge, origin, read, resolve
from initlint.errors import UsageError
from initlint.plugin import Finding, Severity
from initlint.report import FAIL_NEVER
from initlint.settings import Allow, Settings
from initlint.target_names import shown


def settings(**said: object) -> Settings:
    """Settings from configuration keys written with underscores."""
    return merge([origin("here", {name.replace("_", "-"): value for name, value in said.items()})])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A nested current folder, so that "upwards" means something."""
    nested = tmp_path / "project" / "models"
    nested.mkdir(parents=True)
    monkeypatch.chdir(nested)
    return nested


def test_nothing_said_means_the_defaults() -> None:
    assert merge([]) == Settings()


def test_the_nearest_file_upwards_is_found(folder: Path) -> None:
    (folder.parent / "pyproject.toml").write_text("[tool.initlint]\nseed = 1\n")
    assert find(folder) == folder.parent / "pyproject.toml"
    (folder / "initlint.toml").write_text("seed = 2\n")
    assert find(folder) == folder / "initlint.toml"


def test_a_pyproject_that_does_not_speak_of_initlint_is_passed_over(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.other]\n")
    (folder.parent / "initlint.toml").write_text("seed = 2\n")
    assert find(folder) == folder.parent / "initlint.toml"


def test_initlint_toml_goes_before_pyproject_in_the_same_folder(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.initlint]\nseed = 1\n")
    (folder / "initlint.toml").write_text("seed = 2\n")
    assert resolve(None, False, origin("command line", {})).probe.seed == 2


def test_isolated_reads_no_file(folder: Path) -> None:
    (folder / "initlint.toml").write_text("seed = 2\n")
    assert resolve(None, True, origin("command line", {})).probe.seed == 0


def test_a_named_file_is_read_instead_of_the_found_one(folder: Path) -> None:
    (folder / "initlint.toml").write_text("seed = 2\n")
    (folder / "other.toml").write_text("[tool.initlint]\nseed = 3\n")
    assert resolve(Path("other.toml"), False, origin("command line", {})).probe.seed == 3


def test_trust_is_not_for_files(folder: Path) -> None:
    (folder / "initlint.toml").write_text("trust = true\n")
    with pytest.raises(UsageError, match=r"initlint\.toml: trust is not for files.*--trust"):
        read(folder / "initlint.toml")


def test_every_key_is_read(folder: Path) -> None:
    (folder / "batch.npz").touch()
    (folder / "initlint.toml").write_text(
        """
        select = ["symmetry"]
        extend-select = ["zero-weights"]
        ignore = ["dead-units"]
        layers = ["encoder.*"]
        exclude-layers = ["encoder.0"]
        fail-on = "warning"
        no-probe = true
        inputs = "batch.npz"
        input-shape = { x = [1, 3, 8, 8], "y:z" = "1x2" }
        dims = { batch = 8 }
        batch = 4
        seed = 7
        wall-seconds = 30
        kwargs = { width = 64 }
        device = "cpu"
        loss = "losses.py:entropy"
        targets = ["*.npz", "nets.py:build", "pkg.mod:build"]
        baseline = "known.json"
        rule-files = ["lint_rules/"]
        [rules.zero-weights]
        share = 0.5
        [[allow]]
        rule = "zero-weights"
        at = "head.*"
        reason = "zero head"
        until = 2030-12-31
        [[overrides]]
        target = "models/*.onnx"
        fail-on = "note"
        """
    )
    (folder / "lint_rules").mkdir()
    found = read(folder / "initlint.toml").values
    assert found.keys() == configuration.KEYS.keys() - {"trust"}
    merged = merge([read(folder / "initlint.toml")])
    assert (merged.select, merged.extend_select, merged.ignore) == (("symmetry",), ("zero-weights",), ("dead-units",))
    assert (merged.layers, merged.exclude_layers, merged.fail_on) == (("encoder.*",), ("encoder.0",), Severity.WARNING)
    assert merged.options == {"zero-weights": {"share": 0.5}}
    assert merged.allow == (Allow("zero-weights", "head.*", "zero head", until=date(2030, 12, 31)),)
    assert (merged.baseline, merged.rule_files) == (folder / "known.json", (folder / "lint_rules",))
    assert merged.targets == ("*.npz", "nets.py:build", "pkg.mod:build")
    assert configuration.targets(merged) == ("batch.npz", "nets.py:build", "pkg.mod:build")
    [override] = merged.overrides
    assert (override.target, override.origin.values) == ("models/*.onnx", {"fail-on": Severity.NOTE})
    probe = merged.probe
    assert probe.loss == f"{folder / 'losses.py'}:entropy"
    assert (probe.enabled, probe.inputs) == (False, str(folder / "batch.npz"))
    assert (probe.shapes, probe.dims) == ({"x": (1, 3, 8, 8), "y:z": (1, 2)}, {"batch": 8})
    assert (probe.batch, probe.seed, probe.wall_seconds) == (4, 7, 30.0)


def test_relative_paths_are_relative_to_the_file_that_says_them(folder: Path) -> None:
    (folder.parent / "batch.npz").touch()
    (folder.parent / "initlint.toml").write_text('inputs = "batch.npz"\n')
    assert resolve(None, False, origin("command line", {})).probe.inputs == str(folder.parent / "batch.npz")


@pytest.mark.parametrize(
    ("text", "name", "shape"),
    [
        ("x:1x3x224x224", "x", (1, 3, 224, 224)),
        ("x:[1,3,224,224]", "x", (1, 3, 224, 224)),
        ("x:[1, 3]", "x", (1, 3)),
        ("scope/x:0:1x3", "scope/x:0", (1, 3)),
        ("1x3x224x224", "", (1, 3, 224, 224)),
        ("[8]", "", (8,)),
        ("8", "", (8,)),
        ("scalar:[]", "scalar", ()),
        ("empty:1x0x4", "empty", (1, 0, 4)),
    ],
)
def test_shapes_are_written_with_x_or_brackets_with_or_without_a_name(
    text: str, name: str, shape: tuple[int, ...]
) -> None:
    assert settings(input_shape=[text]).probe.shapes == {name: shape}


@pytest.mark.parametrize(("text", "name", "size"), [("batch=8", "batch", 8), ("a=b=3", "a=b", 3)])
def test_dims_are_written_with_an_equals_sign(text: str, name: str, size: int) -> None:
    assert settings(dims=[text]).probe.dims == {name: size}


def test_names_of_rules_may_be_separated_by_commas_and_patterns_of_layers_may_contain_them() -> None:
    found = settings(select=["symmetry, scale", "zero-weights"], layers=["a,b"])
    assert (found.select, found.layers) == (("symmetry", "scale", "zero-weights"), ("a,b",))


@pytest.mark.parametrize(
    ("name", "severity"),
    [("error", Severity.ERROR), ("warning", Severity.WARNING), ("note", Severity.NOTE), ("never", FAIL_NEVER)],
)
def test_fail_on_names_a_severity_or_never(name: str, severity: int) -> None:
    assert settings(fail_on=name).fail_on == severity


def test_the_command_line_wins_over_the_file() -> None:
    merged = merge([origin("file", {"seed": 1, "layers": ["a"]}), origin("command line", {"seed": 2, "layers": ["b"]})])
    assert (merged.probe.seed, merged.layers) == (2, ("b",))
    assert merged.origins == {"seed": ("command line",), "layers": ("command line",)}


def test_what_extends_and_ignores_is_added_up() -> None:
    merged = merge(
        [
            origin("file", {"ignore": ["a"], "dims": {"n": 1, "m": 2}, "rules": {"r": {"x": 1}}}),
            origin("command line", {"ignore": ["b"], "dims": {"n": 3}, "rules": {"r": {"y": 2}}}),
        ]
    )
    assert merged.ignore == ("a", "b")
    assert merged.probe.dims == {"n": 3, "m": 2}
    assert merged.options == {"r": {"x": 1, "y": 2}}
    assert merged.origins["ignore"] == ("file", "command line")


def test_who_selects_on_the_command_line_is_not_bound_by_what_the_file_ignores() -> None:
    merged = merge(
        [origin("file", {"ignore": ["a"], "extend-select": ["b"]}), origin("command line", {"select": ["a"]})]
    )
    assert (merged.select, merged.extend_select, merged.ignore) == (("a",), (), ())


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"sed": 1}, r'here: unknown key "sed"; did you mean "seed"\?'),
        ({"ignores": []}, r'unknown key "ignores"; did you mean "ignore"\?'),
        ({"seed": "1"}, r"here: seed has to be a whole number of at least 0 and at most 2\*\*64-1, not '1'"),
        ({"seed": 2**64}, r"seed has to be"),
        ({"seed": True}, r"seed has to be"),
        ({"seed": -1}, r"seed has to be"),
        ({"batch": 0}, r"batch has to be a whole number of at least 1 and at most 2147483647, not 0"),
        ({"batch": 2**31}, r"batch has to be a whole number of at least 1 and at most 2147483647"),
        ({"dims": ["n=2147483648"]}, r"dims has to be a whole number of at least 0 and at most 2147483647"),
        ({"dims": [f"n={'9' * 5000}"]}, r"dims has to be made of sizes of at most 2147483647, not '9{30}'"),
        ({"input_shape": [f"x:8x{'9' * 5000}"]}, r"input-shape has to be made of sizes of at most"),
        ({"wall_seconds": 0}, r"wall-seconds has to be a positive number of seconds"),
        ({"select": 3}, r"select has to be a list"),
        ({"select": [3]}, r"select has to be a list"),
        ({"fail_on": "fatal"}, r"fail-on has to be one of error, warning, note, never, not 'fatal'"),
        ({"no_probe": "yes"}, r"no-probe has to be true or false, not 'yes'"),
        ({"input_shape": ["x:1x-3"]}, r"input-shape has to be a shape such as .*, not '1x-3'"),
        ({"input_shape": ["x:"]}, r"input-shape has to be a shape"),
        ({"input_shape": {"x": [1, "a"]}}, r"input-shape.x has to be"),
        ({"dims": ["batch"]}, r"dims has to be a dimension and its size, as in batch=8, not 'batch'"),
        ({"dims": ["=8"]}, r"dims has to be"),
        ({"dims": {"batch": "many"}}, r"dims.batch has to be"),
        ({"inputs": "missing.npz"}, r"inputs: no such file: missing.npz"),
        ({"inputs": "batch.pkl"}, r"inputs has to be a file of arrays .*npz or .safetensors"),
        ({"rules": {"zero-weights": 3}}, r"rules.zero-weights has to be a table of options"),
        ({"allow": [{"rule": "a", "at": "b"}]}, r'allow, entry 1: "reason" is missing'),
        (
            {"allow": [{"rule": "a", "at": "b", "reason": " "}]},
            r"entry 1.reason has to be a string that says something",
        ),
        ({"allow": [{"rule": "a", "at": "b", "reason": "c", "were": "d"}]}, r'unknown key "were"'),
        ({"allow": {"rule": "a"}}, r"allow has to be an array of tables"),
        ({"allow": [{"rule": "a", "at": "b", "reason": "c", "until": "soon"}]}, r"until has to be a date such as"),
        ({"device": 3}, r'device has to be a device such as "cpu" or "cuda:0", not 3'),
        *(
            ({"allow": [{"rule": "a", "at": "b", "reason": "c", "until": until}]}, r"until has to be a date such as")
            for until in (20301231, "20301231", "2030-W01-1", datetime(2030, 12, 31, 10, tzinfo=UTC))
        ),
        ({"overrides": {"target": "a"}}, r"overrides has to be an array of tables"),
        ({"overrides": [{"seed": 1}]}, r"overrides, entry 1.target has to be a pattern of targets"),
        ({"overrides": [{"target": "a", "sede": 1}]}, r'overrides, entry 1: unknown key "sede"'),
        ({"overrides": [{"target": "a", "seed": -1}]}, r"overrides, entry 1: seed has to be"),
        ({"overrides": [{"target": "a", "allow": []}]}, r"allow cannot differ .*; give the exception a target instead"),
        ({"overrides": [{"target": "a", "trust": True}]}, r"trust cannot differ"),
        ({"overrides": [{"target": "a", "rules": ["b/"]}]}, r"rules cannot differ"),
        ({"baseline": ""}, r"baseline has to be the path of a file"),
        ({"rules": ["gone/"]}, r"here: rules: there is no folder and no .py file gone/"),
        ({"rules": 3}, r"rules has to be a list of folders and files"),
    ],
)
def test_a_fault_says_where_what_and_what_is_expected(said: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        settings(**said)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("initlint.toml", "seed = \n", r"initlint.toml is no readable TOML: .*line 1"),
        ("initlint.toml", f"a = {'[' * 3000}", r"initlint.toml is no readable TOML: it is nested too deeply"),
        ("initlint.toml", "sede = 1", r'initlint.toml: unknown key "sede"'),
        ("pyproject.toml", "[tool]\ninitlint = 3", r"tool.initlint has to be a table"),
        ("pyproject.toml", "[tool.other]", r"has no \[tool.initlint\] table"),
    ],
)
def test_a_broken_file_is_an_error_that_names_it(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        resolve(Path(name), False, origin("command line", {}))


def test_a_named_file_has_to_exist(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"no configuration file gone.toml"):
        resolve(Path("gone.toml"), False, origin("command line", {}))


def test_naming_a_file_and_reading_none_contradict_each_other(folder: Path) -> None:
    with pytest.raises(UsageError, match="contradict"):
        resolve(Path("a.toml"), True, origin("command line", {}))


def test_a_python_call_says_the_same_with_underscores_and_reads_no_file_unasked(folder: Path) -> None:
    (folder / "initlint.toml").write_text("seed = 2\nbatch = 3\n")
    assert from_call(None, {"fail_on": "note", "dims": {"n": 4}}) == settings(fail_on="note", dims={"n": 4})
    asked = from_call(None, {"config": "initlint.toml", "seed": 5})
    assert (asked.probe.seed, asked.probe.batch) == (5, 3)


def test_python_inputs_are_one_array_arrays_by_name_or_a_tuple() -> None:
    array = object()
    assert from_call(array, {}).probe.inputs == {"": array}
    assert from_call({"x": array}, {}).probe.inputs == {"x": array}
    assert from_call((array, array), {}).probe.inputs == (array, array)


def test_inputs_may_be_a_function_named_like_a_target(folder: Path) -> None:
    assert resolve(None, True, origin("x", {"inputs": "pkg.mod:batch"})).probe.inputs == "pkg.mod:batch"
    named = origin("x", {"inputs": "data.py:batch"}, folder=folder)
    assert resolve(None, True, named).probe.inputs == f"{folder / 'data.py'}:batch"


def test_builder_arguments_are_a_json_object_or_a_table() -> None:
    assert resolve(None, True, origin("x", {"kwargs": '{"width": 8}'})).probe.kwargs == {"width": 8}
    assert resolve(None, True, origin("x", {"kwargs": {"width": 8}})).probe.kwargs == {"width": 8}
    for wrong in ("{width: 8}", "[8]", 8, "[" * 100_000):
        with pytest.raises(UsageError, match="JSON object"):
            origin("x", {"kwargs": wrong})


@pytest.mark.parametrize(
    ("at", "address", "covered"),
    [
        ("head.*", "head.weight", True),
        ("head.*", "neck.weight", False),
        ("lstm.weight_ih_l0[f]", "lstm.weight_ih_l0[f]", True),
        ("lstm.*", "lstm.weight_ih_l0[f]", True),
        ("*", "", True),
    ],
)
def test_an_allowance_matches_addresses_exactly_or_as_a_glob(at: str, address: str, covered: bool) -> None:
    finding = Finding("zero-weights", "symmetry", Severity.ERROR, None, address or None, "", {})
    assert Allow("zero-weights", at, "because").covers(finding) is covered
    assert not Allow("other-rule", at, "because").covers(finding)


def test_an_allowance_may_be_for_some_targets_only() -> None:
    allow = Allow("zero-weights", "*", "because", target="models/*.onnx")
    assert allow.concerns("models/a.onnx")
    assert not allow.concerns("other/a.onnx")


def test_layers_are_chosen_by_any_of_their_names() -> None:
    chosen = Settings(layers=("encoder.*",), exclude_layers=("encoder.1", "*.bias"))
    assert chosen.covers("encoder.0", "encoder.0.weight")
    assert not chosen.covers("encoder.1", "encoder.1.weight")
    assert not chosen.covers("decoder.0")


# Exceptions that end, code in configurations --------------------------------------------------------------------------


def test_an_exception_holds_up_to_and_including_its_last_day() -> None:
    [allow] = settings(allow=[{"rule": "r", "at": "*", "reason": "x", "until": "2030-12-31"}]).allow
    assert not allow.is_over(date(2030, 12, 31))
    assert allow.is_over(date(2031, 1, 1))
    [endless] = settings(allow=[{"rule": "r", "at": "*", "reason": "x"}]).allow
    assert not endless.is_over(date.max)


def test_rule_files_of_a_configuration_that_was_only_found_need_trust(folder: Path) -> None:
    (folder / "lint_rules").mkdir()
    (folder / "initlint.toml").write_text('rules = ["lint_rules/"]\n')
    with pytest.raises(
        UsageError, match=r"initlint.toml: rules names files with code.*--trust.*--config initlint.toml"
    ):
        resolve(None, False, origin("command line", {}))
    trusted = resolve(None, False, origin("command line", {"trust": True}))
    named = resolve(Path("initlint.toml"), False, origin("command line", {}))
    assert trusted.rule_files == named.rule_files == (folder / "lint_rules",)


def test_rule_files_and_options_of_rules_can_both_be_said(folder: Path) -> None:
    (folder / "mine.py").touch()
    said = origin("here", {"rule-files": ["mine.py"], "rules": {"mine": {"limit": 3}}}, folder)
    assert (merge([said]).rule_files, merge([said]).options) == ((folder / "mine.py",), {"mine": {"limit": 3}})


def test_a_pattern_of_targets_that_matches_nothing_is_a_fault_where_it_is_used() -> None:
    said = settings(targets=["gone/*.onnx", "named.onnx"])
    with pytest.raises(UsageError, match=r"here: targets: no file matches gone/\*.onnx"):
        configuration.targets(said)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_a_file_below_the_current_folder_is_shown_as_seen_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir(), elsewhere.mkdir()
    (tmp_path / "link").symlink_to(here)
    (here / "inner").symlink_to(elsewhere)
    (here / "model.onnx").symlink_to(elsewhere / "a.onnx")
    monkeypatch.chdir(here)
    assert [shown(path) for path in (here / "a.onnx", tmp_path / "link" / "a.onnx", Path("a.onnx"))] == ["a.onnx"] * 3
    assert shown(here / "inner" / "a.onnx") == "inner/a.onnx"
    assert shown(tmp_path / "link" / "model.onnx") == "model.onnx"
    assert shown(elsewhere / "a.onnx") == str(elsewhere / "a.onnx")
    assert shown(Path("/a\0b")) == "/a\0b"
