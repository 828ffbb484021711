"""Report formats from the command line: several at once, paths that pipelines find, the step summary of GitHub."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from fake_sessions import run
from markdown_it import MarkdownIt

from initlint.cli import main
from initlint.reporters import FORMATS

pytestmark = pytest.mark.usefixtures("fakes")


@pytest.fixture(autouse=True)
def no_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE", "CI_PROJECT_DIR"):
        monkeypatch.delenv(name, raising=False)


def uris(file: str) -> list[str]:
    [log] = json.loads(Path(file).read_text())["runs"]
    locations = [result["locations"][0] for result in log["results"]]
    return [each["physicalLocation"]["artifactLocation"]["uri"] for each in locations]


@pytest.mark.parametrize("output_format", FORMATS)
def test_every_format_goes_to_stdout_and_to_a_file(output_format: str) -> None:
    given = ("error.onnx", "missing.onnx", "--color", "never", "--output-format", output_format)
    result = run(*given, "--output-file", f"{output_format}=report")
    assert result.exit_code == 2
    shown, kept = result.stdout, Path("report").read_text(encoding="utf-8")
    for text in (shown, kept):
        assert "named-so" in text
        assert "missing.onnx" in text
        assert "has a fault" in text


def test_help_and_messages_name_every_format() -> None:
    shown = " ".join(run("check", "--help").output.split())
    assert f"[{'|'.join(FORMATS)}]" in shown
    refused = run("clean.onnx", "--output-file", "sarf=x").stderr
    assert ", ".join(FORMATS) in refused


def test_several_formats_at_once() -> None:
    arguments = [f"--output-file={name}=out.{name}" for name in FORMATS]
    result = run("error.onnx", "--output-format", "text", *arguments)
    assert result.exit_code == 1
    assert "2 errors" in result.stdout
    assert len(json.loads(Path("out.sarif").read_text())["runs"][0]["results"]) == 3
    assert len(json.loads(Path("out.gitlab").read_text())) == 3
    assert ElementTree.parse("out.junit").getroot().get("failures") == "1"
    assert len(Path("out.json-lines").read_text().splitlines()) == 3
    assert Path("out.github").read_text().count("::error ") == 2


def test_two_formats_never_go_to_one_file() -> None:
    result = run("error.onnx", "--output-file", "sarif=out", "--output-file", "junit=./out")
    assert result.exit_code == 2
    assert "another format goes to the same file" in result.stderr
    assert not Path("out").exists()


def test_formats_for_programs_know_every_rule_that_ran() -> None:
    run("clean.onnx", "--output-file", "sarif=out.sarif", "--output-file", "junit=out.xml")
    rules = json.loads(Path("out.sarif").read_text())["runs"][0]["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["loud-signal", "named-so"]
    assert rules[1]["fullDescription"] == {"text": "Names decide."}
    [suite] = ElementTree.parse("out.xml").getroot()
    assert {case.get("name"): len(case) for case in suite} == {"initlint.named-so": 0, "initlint.loud-signal": 0}


def test_paths_are_relative_to_the_current_folder(tmp_path: Path) -> None:
    here = Path.cwd() / "models" / "net.onnx"
    run(str(here), "--output-file", "sarif=out")
    assert set(uris("out")) == {"models/net.onnx"}


@pytest.mark.parametrize("variable", ["GITHUB_WORKSPACE", "CI_PROJECT_DIR"])
def test_a_pipeline_finds_paths_from_its_checkout(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, str(Path.cwd()))
    Path("nets").mkdir()
    monkeypatch.chdir("nets")
    result = run("error.onnx", "--output-format", "github", "--output-file", "sarif=out")
    assert set(uris("out")) == {"nets/error.onnx"}
    assert "file=nets/error.onnx,line=1," in result.stdout


def test_a_checkout_elsewhere_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", "/somewhere/else")
    assert "file=error.onnx,line=1," in run("error.onnx", "--output-format", "github").stdout


def test_a_python_target_is_in_its_module_s_file(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path("src") / "zoo"
    package.mkdir(parents=True)
    (package / "nets.py").touch()
    monkeypatch.syspath_prepend(Path.cwd() / "src")
    run("zoo.nets:build", "--output-file", "sarif=out")
    assert set(uris("out")) == {"src/zoo/nets.py"}


# The step summary ----------------------------------------------------------------------------------------------------


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch) -> Path:
    file = Path("summary.md").absolute()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    return file


def test_github_gets_a_step_summary_beside_its_annotations(summary: Path) -> None:
    summary.write_text("# before\n")
    assert run("error.onnx", "--output-format", "github").exit_code == 1
    assert summary.read_text(encoding="utf-8").startswith("# before\n\n\n**initlint**: 2 errors, 1 note in 3 layers")
    assert "<code>error.0.weight</code>" in summary.read_text(encoding="utf-8")


def test_a_file_of_annotations_brings_the_summary_too_and_it_is_written_once(summary: Path) -> None:
    run("error.onnx", "--output-format", "github", "--output-file", "github=out")
    assert summary.read_text(encoding="utf-8").count("**initlint**") == 1
    run("error.onnx", "--output-file", "github=out")
    assert summary.read_text(encoding="utf-8").count("**initlint**") == 2


@pytest.mark.parametrize("before", ["", "- a point", "- a point\n"])
def test_a_summary_begins_a_paragraph_of_its_own(before: str, summary: Path) -> None:
    summary.write_text(before)
    for _ in range(2):
        run("late.onnx", "--output-format", "github")  # a report that ends with a list
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(summary.read_text(encoding="utf-8"))
    assert page.count("<p><strong>initlint</strong>: ") == 2


def test_other_formats_write_no_summary(summary: Path) -> None:
    run("error.onnx", "--output-format", "sarif", "--output-file", "markdown=out")
    assert not summary.exists()


@pytest.mark.parametrize("before", [1024**2 - 1200, 1024**2 - 10, 1024**2 + 10])
def test_a_summary_stays_within_what_github_shows(summary: Path, before: int) -> None:
    summary.write_bytes(b"x" * before)
    many = [f"{'net' * 20}{i}.onnx" for i in range(20)]
    result = run(*many, "--output-format", "github")
    assert result.exit_code == 1
    assert summary.stat().st_size <= max(1024**2, before)
    assert ("summary is full" in result.stderr) is (summary.stat().st_size == before)


def test_a_summary_that_cannot_be_written_is_told_and_changes_nothing_else(summary: Path) -> None:
    summary.mkdir()
    result = run("error.onnx", "--output-format", "github")
    assert result.exit_code == 1
    assert "the step summary cannot be written" in result.stderr


def test_what_gets_no_annotation_stands_in_the_summary(summary: Path) -> None:
    targets = [f"net{i}.onnx" for i in range(12)]  # an error each
    result = run(*targets, "--output-format", "github")
    assert result.stdout.count("::error ") == 10
    assert "2 errors without an annotation" in result.stdout
    assert all(target in summary.read_text(encoding="utf-8") for target in targets)


def test_without_a_summary_nothing_is_left_out() -> None:
    shown = run(*[f"net{i}.onnx" for i in range(12)], "--output-format", "github").stdout
    assert len(shown.splitlines()) == shown.count("::error ") == 12


@pytest.mark.parametrize("output_format", FORMATS)
def test_an_encoding_of_few_signs_carries_every_format(output_format: str) -> None:
    shown = CliRunner(charset="cp1252").invoke(main, ["error.onnx", "--output-format", output_format])
    assert shown.exit_code == 1
    assert "named-so" in shown.stdout_bytes.decode("cp1252")
