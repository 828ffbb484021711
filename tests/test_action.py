"""The GitHub action and the example pipelines: valid, safe, and their scripts run as a runner would run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.github-actions", ROOT / "action.yml"),
        ("vendor.github-workflows", EXAMPLES / "ci" / "github.yml"),
        ("vendor.gitlab-ci", EXAMPLES / "ci" / "gitlab.yml"),
    ],
    ids=["action", "workflow", "gitlab"],
)
def test_files_follow_their_published_schemas(schema: str, path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    command += ["--data-transform", "gitlab-ci"] if schema.endswith("gitlab-ci") else []
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_no_script_holds_an_expression() -> None:
    """GitHub puts the value of an expression into the script's text, where it would run."""
    scripts = [step["run"] for step in STEPS.values() if "run" in step]
    assert scripts
    assert [script for script in scripts if "${{" in script] == []


def test_every_input_is_used_and_documented() -> None:
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text(encoding="utf-8")))
    [table] = re.findall(
        r"<!-- inputs -->\n(.*?)<!-- end of inputs -->",
        (ROOT / "docs" / "ci.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert list(ACTION["inputs"]) == re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE)
    assert used == set(ACTION["inputs"])


def test_the_workflow_gives_inputs_that_there_are() -> None:
    jobs = yaml.safe_load((EXAMPLES / "ci" / "github.yml").read_text(encoding="utf-8"))["jobs"]
    uses = [step for job in jobs.values() for step in job["steps"] if "initlint@" in step.get("uses", "")]
    assert len(uses) == 2
    for step in uses:
        assert step["with"].keys() <= ACTION["inputs"].keys()
        assert "targets" in step["with"]


@dataclass(frozen=True)
class Checked:
    status: int
    annotations: str
    complaints: str
    summary: str
    outputs: str


class Runner:
    """Runs the step "Check" as a runner does, with an initlint on PATH that is this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "workspace"
        self.temporary = folder / "temporary"
        self.folder.mkdir()
        self.temporary.mkdir()
        self.script = folder / "step.sh"
        self.script.write_text(STEPS["Check"]["run"], encoding="utf-8")
        self.program = folder / "programs" / "initlint"
        self.program.parent.mkdir()
        self.stand_in(f'exec "{sys.executable}" -m initlint "$@"')
        self.path = os.pathsep.join([str(self.program.parent), os.environ["PATH"]])

    def stand_in(self, script: str) -> None:
        """Let the program ``initlint`` be a shell script."""
        self.program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        self.program.chmod(0o755)

    def put(self, example: str, name: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(EXAMPLES / example, self.folder / name)

    def check(self, **inputs: str) -> Checked:
        """Give ``inputs`` (with underscores), defaults for the others, and the variables that GitHub sets."""
        given = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()} | {"install": "false"}
        given |= {name.replace("_", "-"): value for name, value in inputs.items()}
        variables = {
            name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: given[match[1]], expression)
            for name, expression in STEPS["Check"]["env"].items()
        }
        files = {name: self.temporary / name for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
        for file in files.values():
            file.write_text("")
        python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(self.script)],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": self.path,
                "PYTHONPATH": python_path,
                "GITHUB_ACTIONS": "true",
                "GITHUB_WORKSPACE": str(self.folder),
                "GITHUB_ACTION_PATH": str(ROOT),
                "RUNNER_TEMP": str(self.temporary),
                **{name: str(file) for name, file in files.items()},
                **variables,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        summary, outputs = (file.read_text() for file in files.values())
        return Checked(done.returncode, done.stdout, done.stderr, summary, outputs)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_findings_become_annotations_a_summary_and_sarif(runner: Runner) -> None:
    runner.put("broken_mlp.onnx", "models/a b.onnx")
    checked = runner.check(targets="models/*.onnx", sarif_file="reports/initlint.sarif")
    assert checked.status == 1
    assert checked.outputs == "exit-status=1\n"
    levels = re.findall(r"^::(\w+) ", checked.annotations, re.MULTILINE)
    assert levels == ["error", "warning", "warning", "warning"]
    assert "file=models/a b.onnx" in checked.annotations
    assert "zero-weights" in checked.summary
    sarif = json.loads((runner.folder / "reports" / "initlint.sarif").read_text(encoding="utf-8"))
    assert {result["ruleId"] for result in sarif["runs"][0]["results"]} >= {"zero-weights", "constant-weights"}


def test_a_healthy_model_passes(runner: Runner) -> None:
    runner.put("healthy_mlp.onnx", "model.onnx")
    checked = runner.check(targets="model.onnx", sarif_file="initlint.sarif")
    assert (checked.status, checked.outputs) == (0, "exit-status=0\n")
    assert "::error" not in checked.annotations
    assert (runner.folder / "initlint.sarif").is_file()


def test_several_targets_are_split_like_words_of_a_shell(runner: Runner) -> None:
    runner.put("healthy_mlp.onnx", "one.onnx")
    runner.put("broken_mlp.onnx", "two words.onnx")
    runner.put("broken_mlp.onnx", "my models/[1].onnx")
    checked = runner.check(targets="one.onnx\n'two words.onnx'\n\"my models/[1].onnx\"\n", fail_on="never")
    assert checked.status == 0
    assert re.findall(r"^::error file=(.*?),", checked.annotations, re.MULTILINE) == [
        "two words.onnx",
        "my models/[1].onnx",
    ]


def test_options_and_fail_on_are_passed_on(runner: Runner) -> None:
    runner.put("broken_mlp.onnx", "model.onnx")
    checked = runner.check(targets="model.onnx", args="--select zero-weights --layers 'layers.2*'", fail_on="warning")
    assert (checked.status, checked.annotations.count("::warning")) == (0, 0)
    assert runner.check(targets="model.onnx", args="--select dead-relu-bias", fail_on="warning").status == 1


def test_the_summary_can_be_switched_off(runner: Runner) -> None:
    runner.put("broken_mlp.onnx", "model.onnx")
    checked = runner.check(targets="model.onnx", summary="false")
    assert (checked.status, checked.summary) == (1, "")


@pytest.mark.parametrize("targets", ["missing.onnx", "models/*.onnx", "", "  \n ", "'unclosed"])
def test_nothing_to_check_fails(runner: Runner, targets: str) -> None:
    checked = runner.check(targets=targets)
    assert checked.status != 0
    assert checked.complaints


CODE = [
    "$(touch injected)",
    "`touch injected`",
    "; touch injected",
    "a.onnx && touch injected",
    '"; touch injected; "',
    "x\ntouch injected",
    "a[$(touch injected)]",
]
TEXT = [*CODE, "$IFS", "${{ github.token }}", "--config=/dev/null"]
REACH_THE_SCRIPT = re.findall(r"inputs\.([\w-]+)", " ".join(STEPS["Check"]["env"].values()))


@pytest.mark.parametrize("text", CODE)
def test_in_the_text_of_a_script_an_input_would_run(tmp_path: Path, text: str) -> None:
    """Else the next test would hold for any script."""
    for script in (f"echo {text}", f'echo "{text}"'):
        subprocess.run(["bash", "-c", script], cwd=tmp_path, check=False, stdout=subprocess.DEVNULL)
    assert (tmp_path / "injected").exists()


@pytest.mark.parametrize("text", CODE)
@pytest.mark.parametrize("place", REACH_THE_SCRIPT)
def test_no_input_runs_as_code(runner: Runner, place: str, text: str) -> None:
    runner.stand_in("exit 0")
    checked = runner.check(**{"targets": "missing.onnx", place: text})
    assert (checked.status, checked.outputs) == (0, "exit-status=0\n"), checked.complaints
    assert not list(runner.folder.parent.rglob("injected*"))


def test_quoted_text_arrives_as_it_is(runner: Runner) -> None:
    runner.stand_in("""printf '%s\\n' "$@" """)
    texts = [text for text in TEXT if "\n" not in text and '"' not in text]
    arrived = runner.check(targets=" ".join(f"'{text}'" for text in texts), args="'--seed=$(touch injected)'")
    assert arrived.annotations.splitlines() == [
        *("check", "--output-format", "github", "--seed=$(touch injected)", "--"),
        *texts,
    ]


def test_the_installation_takes_the_version_of_the_action(tmp_path: Path) -> None:
    """With a Python that only writes down how it was called; .ci/run runs the step with a real one."""
    python = tmp_path / "python"
    remember, make = 'printf "%s\\n" "$*" >> "$LOG"', 'mkdir -p "$3/bin"; cp "$0" "$3/bin/python"'
    python.write_text(f'#!/bin/sh\n{remember}\nif [ "$2" = venv ]; then {make}; fi\n')
    python.chmod(0o755)
    folders = {"RUNNER_TEMP": str(tmp_path / "run ner"), "GITHUB_ACTION_PATH": str(tmp_path / "act ion")}
    environment = {**os.environ, **folders, "PYTHON": str(python), "LOG": str(tmp_path / "log")}
    script = STEPS["Install initlint"]["run"]
    subprocess.run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], env=environment, check=True)
    made, installed = (tmp_path / "log").read_text().splitlines()
    assert made == f"-m venv {folders['RUNNER_TEMP']}/initlint"
    assert installed == f"-m pip install --quiet {folders['GITHUB_ACTION_PATH']}"


def test_the_gitlab_job_publishes_the_reports_that_it_writes() -> None:
    job = yaml.safe_load((EXAMPLES / "ci" / "gitlab.yml").read_text(encoding="utf-8"))["initlint"]
    [command] = job["script"]
    written = dict(pair.split("=") for pair in re.findall(r"--output-file (\S+)", command))
    reports = job["artifacts"]["reports"]
    assert written == {"gitlab": reports["codequality"], "junit": reports["junit"]}
    assert set(job["artifacts"]["paths"]) == set(written.values())
    assert job["artifacts"]["when"] == "always"


def test_the_gitlab_command_runs(runner: Runner) -> None:
    runner.put("broken_mlp.onnx", "models/model.onnx")
    [command] = yaml.safe_load((EXAMPLES / "ci" / "gitlab.yml").read_text(encoding="utf-8"))["initlint"]["script"]
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=runner.folder,
        env={**os.environ, "PATH": runner.path, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 1
    assert json.loads((runner.folder / "gl-code-quality-report.json").read_text(encoding="utf-8"))
    assert (runner.folder / "initlint.xml").read_text(encoding="utf-8").startswith("<?xml")
