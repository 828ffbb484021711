"""What the command line writes, and where: reports, rules, settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_sessions import interrupt_at, run

from initlint import output
from initlint.cli import main
from initlint.reporters import identities

pytestmark = pytest.mark.usefixtures("fakes")


# Output --------------------------------------------------------------------------------------------------------------


def test_reports_go_to_stdout_and_nothing_else_does() -> None:
    result = run("clean.onnx", "missing.onnx", "--output-format", "json")
    assert len(json.loads(result.stdout)["reports"]) == 2
    assert result.stderr == "initlint: missing.onnx: missing.onnx has a fault\n"


def test_text_ends_with_a_summary_over_all_targets() -> None:
    assert run("error.onnx", "warning.onnx").output.splitlines()[-1].startswith(
        "2 errors, 1 warning, 1 note in 2 targets, 5 layers, 45 parameters, "
    )  # fmt: skip


def test_concise_is_one_line_per_finding() -> None:
    assert run("warning.onnx", "--output-format", "concise").stdout == (
        "warning.onnx: warning.0.weight: warning named-so its name says WARNING\n"
    )


def test_statistics_count_by_rule() -> None:
    assert run("error.onnx", "--statistics").output.splitlines()[:2] == [
        "    2  error    named-so",
        "    1  note     named-so",
    ]


def test_output_files_are_written_beside_stdout() -> None:
    result = run("error.onnx", "--output-file", "json=a.json", "--output-file", "concise=b.txt")
    assert "2 errors" in result.stdout
    assert json.loads(Path("a.json").read_text())["summary"]["errors"] == 2
    assert len(Path("b.txt").read_text().splitlines()) == 3


@pytest.mark.parametrize("output_format", ["text", "concise", "json-lines"])
def test_who_interrupts_a_run_keeps_what_was_found(output_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at("clean.onnx", monkeypatch)
    result = run("error.onnx", "clean.onnx", "--output-format", output_format, "--output-file", "json=a.json")
    assert (result.exit_code, result.stderr.strip()) == (130, "initlint: interrupted")
    assert "error.0.weight" in result.stdout
    assert [report["target"] for report in json.loads(Path("a.json").read_text())["reports"]] == ["error.onnx"]


@pytest.mark.parametrize("output_format", ["concise", "json-lines"])
def test_what_is_written_target_by_target_is_what_a_file_gets(output_format: str) -> None:
    targets = (
        "error.onnx",
        "warning.onnx",
        "crash.onnx",
        "error.onnx",
        "./error.onnx",
        "a/../error.onnx",
        "a/error.onnx",
    )
    result = run(*targets, "--output-format", output_format, "--output-file", f"{output_format}=a.txt")
    assert result.stdout == Path("a.txt").read_text()


@pytest.mark.parametrize(("target", "looks"), [("models/{}.onnx", 4), ("package.module{}:build", 8)])
def test_a_target_is_not_looked_at_again_for_those_that_come_after_it(
    target: str, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    hashed, module_file = identities.fingerprint, output._module_file
    monkeypatch.setattr(identities, "fingerprint", lambda *of, **more: looked.append(of[0]) or hashed(*of, **more))
    monkeypatch.setattr(output, "_module_file", lambda name: looked.append(name) or module_file(name))
    shown = run(*map(target.format, range(4)), "--output-format", "json-lines").stdout
    assert len(shown.splitlines()) == 4, "a finding each"
    assert len(looked) == len(set(looked)) == looks, "each is identified, and its module looked for"


def test_an_output_file_never_overwrites_a_target() -> None:
    Path("model.onnx").write_bytes(b"precious")
    result = run("model.onnx", "--output-file", "json=./model.onnx")
    assert result.exit_code == 2
    assert Path("model.onnx").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("file", "arguments", "what"),
    [
        ("known.json", ["--baseline", "known.json"], "the baseline"),
        ("fresh.json", ["--write-baseline", "fresh.json"], "the baseline"),
        ("initlint.toml", [], "the configuration"),
        ("other.toml", ["--config", "other.toml"], "the configuration"),
        ("x.npz", ["--inputs", "x.npz"], "the inputs"),
        ("data.py", ["--inputs", "data.py:batch"], "the inputs"),
        ("special.npz", [], "the inputs"),
        ("net.py", ["net.py:build"], "a target"),
        ("lint/inner/my_rule.py", ["--config", "lint.toml"], "a rule file"),
        ("lint/my_rule.py", ["--config", "file.toml"], "a rule file"),
        ("clean.onnx.data", [], "the external data of a target"),
        ("clean.onnx_data_2", [], "the external data of a target"),
        ("m[1].onnx.data", ["./m[1].onnx"], "the external data of a target"),
    ],
)
def test_an_output_file_never_overwrites_what_the_run_reads(file: str, arguments: list[str], what: str) -> None:
    Path("lint/inner").mkdir(parents=True)
    for name in ("x.npz", "special.npz", "data.py", "net.py", "lint/my_rule.py", "lint/inner/my_rule.py"):
        Path(name).write_text("precious")
    for name in ("clean.onnx.data", "clean.onnx_data_2", "m[1].onnx.data"):
        Path(name).write_text("precious")
    Path("lint.toml").write_text('rules = ["lint"]\n')
    Path("file.toml").write_text('rules = ["lint/my_rule.py"]\n')
    Path("initlint.toml").write_text('[[overrides]]\ntarget = "a.onnx"\ninputs = "special.npz"\n')
    Path("other.toml").write_text("seed = 1\n")
    Path("known.json").write_text('{"initlint_baseline": 1, "findings": []}')
    before = {path: path.read_bytes() for path in Path().rglob("*.*")}
    result = run("clean.onnx", *arguments, "--output-file", f"json=../{Path.cwd().name}/{file}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"would overwrite {what}; name another file" in result.stderr
    assert {path: path.read_bytes() for path in Path().rglob("*.*")} == before


def test_what_is_beside_a_target_but_not_its_own_may_be_written() -> None:
    for name in ("other.onnx.data", "clean.onnx.database", "clean.onnx.json"):
        Path(name).touch()
        assert run("clean.onnx", "--output-file", f"json={name}").exit_code == 0


def test_two_reports_never_go_to_one_file() -> None:
    result = run("clean.onnx", "--output-file", "json=a", "--output-file", f"sarif=../{Path.cwd().name}/a")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "another format goes to the same file" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "colourful"),
    [
        ([], {}, False),
        (["--color", "always"], {}, True),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
    ],
)
def test_colour_follows_the_option_then_the_environment_then_the_terminal(
    arguments: list[str], environment: dict[str, str], colourful: bool
) -> None:
    result = CliRunner().invoke(main, ["error.onnx", *arguments], env=environment, color=True)
    assert ("\x1b[" in result.stdout) is colourful


def test_an_encoding_without_blocks_gets_plain_signs() -> None:
    result = CliRunner(charset="latin-1").invoke(main, ["error.onnx"])
    assert "signal by depth" in result.output
    assert result.stdout_bytes.isascii()


# The other commands --------------------------------------------------------------------------------------------------


def test_rules_lists_every_rule_with_its_summary() -> None:
    lines = run("rules").output.splitlines()
    assert "names" in lines
    assert "  named-so     Says what the layer's name tells it to." in lines


def test_rules_for_programs() -> None:
    listed = json.loads(run("rules", "--output-format", "json").stdout)
    assert listed[0] == {
        "name": "named-so",
        "category": "names",
        "summary": "Says what the layer's name tells it to.",
        "needs": ["weights"],
        "uses": [],
        "options": {"prefix": "", "limit": 2.5},
    }


def test_explain_prints_the_page_and_where_its_numbers_come_from() -> None:
    page = run("explain", "named-so").output
    assert page.startswith("# named-so\n\nSays what the layer's name tells it to.\n")
    assert "## Why it matters" in page
    assert '- `prefix = ""` chosen for this test' in page
    assert "- `limit = 2.5` Above which nothing happens." in page


def test_explain_knows_no_unknown_rule() -> None:
    result = run("explain", "name-so")
    assert (result.exit_code, result.stdout) == (2, "")
    assert 'did you mean "named-so"?' in result.stderr


def test_config_shows_each_setting_and_its_origin() -> None:
    Path("initlint.toml").write_text('fail-on = "warning"\nignore = ["signal"]\n[rules.named-so]\nprefix = "x"\n')
    shown = run("config", "--seed", "3", "--dim", "n=8").output
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert 'fail-on = "warning" # initlint.toml' in lines
    assert "seed = 3 # command line" in lines
    assert "dims = { n = 8 } # command line" in lines
    assert "batch is not set # default" in [line.removeprefix("# ") for line in lines]
    assert "[rules.named-so] # initlint.toml" in lines


def test_what_config_shows_can_be_read_again() -> None:
    Path("initlint.toml").write_text(
        'select = ["names"]\ndims = { "a b" = 1 }\n[[allow]]\nrule = "named-so"\nat = "*"\nreason = "r"\n'
    )
    Path("shown.toml").write_text(run("config", "--input-shape", "x:0:1x3").output)
    again = run("config", "--config", "shown.toml")
    assert again.exit_code == 0
    assert 'input-shape = { "x:0" = [1, 3] }' in again.output
