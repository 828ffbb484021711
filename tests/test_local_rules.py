"""Rule files of a project's own: found as its configuration says, run only where somebody trusts them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_sessions import SESSIONS, run

from initlint import catalog, foreign
from initlint.errors import UsageError

RULE = '''
"""What {name} sees."""
from __future__ import annotations
from collections.abc import Iterator
from initlint.plugin import Context, Severity, Suspicion, rule

@rule(category="{category}", message="seen")
def {name}(context: Context, options: object) -> Iterator[Suspicion]:
    yield Suspicion(context.model.layers[0], Severity.ERROR)
'''

pytestmark = pytest.mark.usefixtures("fakes")


def write(path: str, name: str = "", text: str = "", category: str = "mine") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text or RULE.format(name=name or file.stem, category=category))
    return file.absolute()


@pytest.fixture
def project(fakes: None) -> None:
    write("lint_rules/local_rule.py")
    Path("initlint.toml").write_text('rules = ["lint_rules/"]\n')


def names(*files: Path) -> set[str]:
    return {rule.name for rule in catalog.load_rules(files=files)} - {"named-so", "loud-signal"}


# Trust ---------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("project")
def test_a_configuration_that_was_only_found_does_not_run_code() -> None:
    write("lint_rules/local_rule.py", text="raise AssertionError('this ran')")
    result = run("clean.onnx")
    assert (result.exit_code, result.stdout, SESSIONS) == (2, "", [])
    assert result.stderr == (
        "initlint: initlint.toml: rules names files with code, which run with initlint; if you trust them give --trust,"
        " or name the configuration: --config initlint.toml\n"
    )


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("arguments", [("--trust",), ("--config", "initlint.toml")])
def test_who_trusts_or_names_it_runs_its_rules(arguments: tuple[str, ...]) -> None:
    result = run("clean.onnx", *arguments, "--output-format", "concise")
    assert (result.exit_code, result.stdout) == (1, "clean.onnx: quiet.0: error local-rule seen\n")


@pytest.mark.usefixtures("project")
def test_rules_and_explain_know_them_on_request() -> None:
    assert "local-rule" not in run("rules").output
    assert "local-rule" in run("rules", "--config", "initlint.toml").output
    assert "local-rule" in run("explain", "local-rule", "--trust").output


def test_local_rules_have_options_selection_and_exceptions_like_others() -> None:
    write("lint_rules/local_rule.py")
    Path("initlint.toml").write_text(
        'rule-files = ["lint_rules/"]\nselect = ["mine"]\n[rules.named-so]\nprefix = "x"\n'
        '[[allow]]\nrule = "local-rule"\nat = "quiet.0"\nreason = "a test"\n'
    )
    result = run("clean.onnx", "--trust", "-v")
    assert result.exit_code == 0
    assert "allowed: local-rule at quiet.0: a test" in result.output


# Files ---------------------------------------------------------------------------------------------------------------


def test_every_file_of_a_folder_and_its_packages_is_read_but_for_tests() -> None:
    write("all/first.py"), write("all/inner/second.py"), write("all/inner/__init__.py", text="x = 1")
    for not_read in ("all/test_first.py", "all/conftest.py", "all/.hidden/third.py"):
        write(not_read, text="raise AssertionError")
    assert names(Path("all").absolute()) == {"first", "second"}


def test_a_single_file_is_read_alone() -> None:
    write("single/broken.py", text="raise AssertionError")
    assert names(write("single/alone.py")) == {"alone"}


def test_files_import_each_other_relatively_and_hide_no_module_of_the_same_name() -> None:
    write("near/json.py")
    write("near/shared.py")
    write("near/user.py", text="import json\nfrom .shared import shared\njson.dumps")
    assert names(Path("near").absolute()) == {"json", "shared"}


def test_a_folder_may_be_a_package_itself() -> None:
    write("package/__init__.py", name="of_init")
    write("package/of_file.py", text=RULE.format(name="of_file", category="mine") + "from . import of_init\n")
    for _ in range(2):
        assert names(Path("package").absolute()) == {"of-init", "of-file"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x = 1\nimport no_such_module\n", r"ModuleNotFoundError: No module named 'no_such_module' \({}:2\)"),
        ("1 / 0", r"ZeroDivisionError: division by zero \({}:1\)"),
        ("def broken(", r"SyntaxError: '\(' was never closed \({}:1\)"),
        ("raise SystemExit(0)", r"SystemExit: 0 \({}:1\)"),
        ("raise ValueError('a\\nb')", r"ValueError: a b \({}:1\)"),
        ("\n{}['gone']", r"KeyError: no such key: 'gone' \({}:2\)"),
        ("raise AssertionError", r"AssertionError \({}:1\)"),
    ],
)
def test_a_file_that_fails_to_import_stops_the_run_and_is_named(
    text: str, fault: str, request: pytest.FixtureRequest
) -> None:
    folder = f"bad_{abs(hash(request.node.name))}"
    write(f"{folder}/good.py")
    file = f"{folder}/bad.py"
    write(file, text=text)
    with pytest.raises(UsageError, match=rf"the rule file {file} cannot be imported: {fault.format(file)}; repair it$"):
        names(Path(folder).absolute())


def test_a_folder_whose_name_begins_like_our_own_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    file = write("initlint_rules/bad.py", text="1 / 0")
    monkeypatch.setattr(foreign, "_HERE", f"{Path('initlint').absolute()}{os.sep}")
    with pytest.raises(UsageError, match=r"\(initlint_rules/bad.py:1\)"):
        names(file)


@pytest.mark.parametrize(
    "listed",
    [
        ["nest", "nest/sub/x.py"],
        ["nest/sub/x.py", "nest"],
        ["nest/sub", "nest"],
        ["nest/sub/x.py", "nest/sub", "nest/sub/x.py"],
        ["nest", "linked.py"],
    ],
)
def test_a_file_that_is_named_in_two_ways_is_imported_once(listed: list[str]) -> None:
    write("nest/sub/x.py")
    write("nest/sub/user.py", text="from .x import x\n")
    Path("linked.py").symlink_to("nest/sub/x.py")
    Path("initlint.toml").write_text(f"rules = {listed}\n")
    result = run("clean.onnx", "--trust", "--output-format", "concise")
    assert (result.exit_code, result.stdout) == (1, "clean.onnx: quiet.0: error x seen\n")


def test_files_without_a_rule_stop_the_run() -> None:
    write("empty/nothing.py", text="x = 1")
    with pytest.raises(UsageError, match="empty holds no rule"):
        names(Path("empty").absolute())


def test_names_that_collide_stop_the_run_and_both_places_are_named() -> None:
    write("twice/one.py", name="same")
    write("twice/two.py", name="same")
    with pytest.raises(UsageError, match=r'"same": in twice/one.py and in twice/two.py'):
        names(Path("twice").absolute())
    with pytest.raises(UsageError, match=r'"named-so": in fake_rules_of_test_cli and in core/x.py'):
        names(write("core/x.py", name="named_so"))
    with pytest.raises(UsageError, match=r'"named-so" is both a rule .* and the category of category/y.py'):
        names(write("category/y.py", category="named-so"))
