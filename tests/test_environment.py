"""Settings from environment variables: between the command line and the configuration file."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from fake_sessions import SESSIONS

from initlint.cli import main
from initlint.options import Option

pytestmark = pytest.mark.usefixtures("fakes")


def run(*arguments: str, **environment: str) -> Result:
    variables = {f"INITLINT_{name.upper()}": value for name, value in environment.items()}
    return CliRunner().invoke(main, list(arguments), env=variables)


def config(*arguments: str, **environment: str) -> list[str]:
    return [" ".join(line.split()) for line in run("config", *arguments, **environment).output.splitlines()]


def test_every_option_of_check_and_config_has_a_variable() -> None:
    for name in ("check", "config"):
        for each in main.commands[name].params:
            assert isinstance(each, Option | click.Argument)
            assert each.name == "targets" or str(each.envvar).startswith("INITLINT_")
    assert {each.envvar for each in main.commands["check"].params} >= {"INITLINT_FAIL_ON", "INITLINT_DIM"}


def test_help_tells_of_them() -> None:
    assert "--fail-on is INITLINT_FAIL_ON" in run("--help").output


def test_the_environment_counts_more_than_the_file_and_less_than_the_command_line() -> None:
    Path("initlint.toml").write_text("seed = 1\nbatch = 1\nwall-seconds = 9\n")
    shown = config("--seed", "3", seed="2", batch="2")
    assert "seed = 3 # command line" in shown
    assert "batch = 2 # INITLINT_BATCH" in shown
    assert "wall-seconds = 9.0 # initlint.toml" in shown


def test_what_adds_up_adds_up_over_all_places() -> None:
    Path("initlint.toml").write_text('ignore = ["signal"]\n')
    shown = config("--dim", "n=8", ignore="named-so", select="named-so signal", dim="m=2 n=4")
    assert 'ignore = ["named-so"] # INITLINT_IGNORE' in shown  # who selects anew is not bound by what the file ignores
    assert "dims = { m = 2, n = 8 } # INITLINT_DIM and command line" in shown


@pytest.mark.parametrize(
    ("text", "patterns"),
    [("a.* b,c", ["a.*", "b,c"]), ("'a b' c", ["a b", "c"]), (r"C:\models x#y", [r"C:\models", "x#y"])],
)
def test_a_variable_holds_several_values_as_a_shell_reads_them(text: str, patterns: list[str]) -> None:
    assert f"layers = {json.dumps(patterns)} # INITLINT_LAYERS" in config(layers=text)


def test_a_switch_can_be_switched_off_again() -> None:
    Path("initlint.toml").write_text("no-probe = true\n")
    assert "no-probe = true # initlint.toml" in config()
    assert "no-probe = false # INITLINT_NO_PROBE" in config(no_probe="0")


def test_an_empty_variable_says_nothing() -> None:
    assert "seed = 0 # default" in config(seed="")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"batch": "many"}, "INITLINT_BATCH: 'many' is not a valid integer"),
        ({"seed": "-1"}, "INITLINT_SEED: seed has to be a whole number"),
        ({"seed": str(2**64)}, "INITLINT_SEED: seed has to be a whole number of at least 0 and at most 2**64-1"),
        ({"fail_on": "fatal"}, "INITLINT_FAIL_ON: 'fatal' is not one of"),
        ({"select": "name-so"}, 'INITLINT_SELECT: select: there is no rule or category "name-so"'),
        ({"layers": "'a"}, "INITLINT_LAYERS: a quotation mark is not closed"),
        ({"output_file": "yaml=x"}, "--output-file yaml=x"),
        ({"config": "gone.toml"}, "no configuration file gone.toml"),
    ],
)
def test_a_fault_names_the_variable(environment: dict[str, str], message: str) -> None:
    result = run("clean.onnx", **environment)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert SESSIONS == []


def test_options_that_are_no_settings_have_variables_too() -> None:
    result = run("error.onnx", output_format="json", output_file="concise=b.txt", fail_on="never")
    assert (result.exit_code, json.loads(result.stdout)["summary"]["errors"]) == (0, 2)
    assert len(Path("b.txt").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["-v"], {"quiet": "1"}),
        (["--isolated"], {"config": "gone.toml"}),
        (["--statistics"], {"output_format": "json"}),
        (["--output-format", "json"], {"statistics": "1"}),
    ],
)
def test_what_the_command_line_contradicts_is_not_asked_for(arguments: list[str], environment: dict[str, str]) -> None:
    result = run("clean.onnx", *arguments, **environment)
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_variable_for_reports_does_not_reach_other_commands() -> None:
    assert "named-so" in run("rules", output_format="concise").output
