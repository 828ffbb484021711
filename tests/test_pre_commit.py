"""The hooks under pre-commit itself: installed from a clone, in scratch repositories."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import shutil
import tempfile
from pathlib import Path

import make_examples
import onnx
import pytest
from real_pre_commit import ROOT, Scratch, scratch, size, snapshot

EXAMPLES = ROOT / "examples"
MIB = 2**20

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``initlint``, a clone, and ``home``, where the README's tour had pre-commit install it.

    One for all processes that run tests, since an installation takes long: the others wait for the first.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pre-commit"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "tour.json").exists():
            snapshot(shared / "initlint")
            (shared / "tour.json").write_text(json.dumps(take_the_tour(shared)), encoding="utf-8")
    return shared


@pytest.fixture
def repository(workplace: Path) -> Scratch:
    """A repository with the hook for files, which needs no arguments."""
    return repository_with(workplace, "      - id: initlint\n")


def repository_with(workplace: Path, hooks: str) -> Scratch:
    """A new repository beside the clone; named as in the tour, the clone is not installed once more."""
    home = workplace / "home"
    revision = Scratch(workplace / "initlint", home).succeed("git", "rev-parse", "HEAD").strip()
    text = f"repos:\n  - repo: ../initlint\n    rev: {revision}\n    hooks:\n{hooks}"
    return scratch(Path(tempfile.mkdtemp(dir=workplace)), home, text)


def put(name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(EXAMPLES / name, target)


def test_a_broken_model_blocks_the_commit_and_the_repaired_one_passes(repository: Scratch) -> None:
    put("broken_mlp.onnx", repository.folder / "model.onnx")
    refused = repository.commit()
    assert refused.status == 1
    assert re.search(r"^initlint\.+Failed$", refused.output, re.MULTILINE)
    for said in ("zero-weights  layers.6.weight", "all 4,096 weights are zero", "fix (tried", "1 error, 3 warnings"):
        assert said in refused.output
    assert "Traceback" not in refused.output
    assert repository.commits == 0

    put("healthy_mlp.onnx", repository.folder / "model.onnx")
    passed = repository.commit()
    assert passed.status == 0
    assert re.search(r"^initlint\.+Passed$", passed.output, re.MULTILINE)
    assert repository.commits == 1


def test_files_in_folders_with_spaces_renamed_and_deleted(repository: Scratch) -> None:
    folder = repository.folder
    put("healthy_mlp.onnx", folder / "my models" / "deep er" / "a b.onnx")
    put("healthy_mlp.onnx", folder / "b.onnx")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "__init__.py").write_text("raise SystemExit('imported from the repository')\n")
    assert repository.commit("several").status == 0

    put("broken_mlp.onnx", folder / "my models" / "deep er" / "a b.onnx")
    put("broken_mlp.onnx", folder / "c.onnx")
    refused = repository.commit("one of them is broken").output
    assert "my models/deep er/a b.onnx" in refused
    assert "c.onnx" in refused
    assert "b.onnx  onnx" not in refused.replace("a b.onnx", ""), "it did not change"
    repository.succeed("git", "reset", "--quiet", "--hard")
    repository.succeed("git", "clean", "--quiet", "--force")

    repository.succeed("git", "mv", "my models/deep er/a b.onnx", "renamed.onnx")
    assert "Passed" in repository.commit("renamed").output
    repository.succeed("git", "rm", "--quiet", "renamed.onnx")
    assert "no files to check" in repository.commit("deleted").output
    assert repository.commits == 3


def test_new_weights_in_a_file_beside_an_unchanged_model_are_checked(repository: Scratch) -> None:
    folder = repository.folder / "with data"
    folder.mkdir()
    write_with_data(make_examples.healthy_parameters(), folder)
    assert repository.commit("healthy").status == 0
    before = (folder / "net.onnx").read_bytes()

    write_with_data(make_examples.broken_parameters(), folder)
    assert (folder / "net.onnx").read_bytes() == before
    refused = repository.commit("broken")
    assert refused.status == 1
    assert "with data/net.onnx" in refused.output
    assert "zero-weights" in refused.output


def write_with_data(parameters: make_examples.Parameters, folder: Path) -> None:
    (folder / "net.onnx.data").unlink(missing_ok=True)  # onnx appends
    onnx.save_model(
        make_examples.classifier(parameters),
        str(folder / "net.onnx"),
        save_as_external_data=True,
        location="net.onnx.data",
        size_threshold=0,
    )


def test_a_file_that_is_no_model_blocks_the_commit_in_one_sentence(repository: Scratch) -> None:
    (repository.folder / "model.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused = repository.commit()
    assert refused.status == 1
    assert "- exit code: 3" in refused.output
    assert "git lfs pull" in refused.output


def test_the_environment_is_small_and_a_second_run_is_cheap(repository: Scratch, workplace: Path) -> None:
    """pre-commit.ci allows 250 MiB for everything that a hook installs."""
    put("healthy_mlp.onnx", repository.folder / "model.onnx")
    assert repository.commit().status == 0
    assert size(workplace / "home") < 250 * MIB
    packages = "*/py_env*/lib/python*/site-packages"
    assert list((workplace / "home").glob(f"{packages}/onnx"))
    assert not list((workplace / "home").glob(f"{packages}/torch"))

    before = processor_seconds()
    repository.succeed("pre-commit", "run", "--all-files")
    assert processor_seconds() - before < 3, "benchmarks/hook.py measures it by the clock, which other processes slow"


def processor_seconds() -> float:
    """What finished child processes have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_model_built_by_python_code_blocks_the_commit_until_it_is_repaired(workplace: Path) -> None:
    hook = "      - id: initlint-python\n        args: [net.py:build]\n"
    repository = repository_with(workplace, hook)
    put("mlp.py", repository.folder / "mlp.py")
    builder = "from mlp import {} as build\n\n__all__ = ['build']\n"
    (repository.folder / "net.py").write_text(builder.format("broken"))
    refused = repository.commit()
    assert refused.status == 1
    assert "net.py:build  torch" in refused.output
    assert "zero-weights  layers.6.weight" in refused.output

    (repository.folder / "net.py").write_text(builder.format("repaired"))
    assert repository.commit().status == 0
    (repository.folder / "notes.txt").write_text("no Python\n")
    assert "no files to check" in repository.commit().output


TOUR = re.compile(r"<!-- tour -->\n(.*?)<!-- end of tour -->", re.DOTALL)


def tour() -> list[tuple[str, str]]:
    """The commands of the README's tour, each with the output that is shown below it."""
    [text] = TOUR.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    [block] = re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    steps: list[tuple[str, str]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append((line.removeprefix("$ "), ""))
        else:
            command, output = steps[-1]
            steps[-1] = (command, f"{output}{line}\n")
    return steps


def take_the_tour(workplace: Path) -> list[str]:
    """What its commands print, but for the first, which installs what is installed here."""
    folder, outputs = workplace / "initlint", [""]
    for command, _ in tour()[1:]:
        outputs.append(Scratch(folder, workplace / "home").run("bash", "-c", command).output)
        if "cd ../demo" in command:
            folder = workplace / "demo"
    return outputs


def timeless(output: str) -> str:
    """What differs from run to run left out: the revision, and empty lines."""
    lines = re.sub(r"-> \S+$", "-> REVISION", output, flags=re.MULTILINE).splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip())


def test_the_tour_in_the_readme_goes_as_it_is_shown(workplace: Path) -> None:
    assert len(tour()) <= 5
    assert tour()[0] == (".venv/bin/pip install --quiet pre-commit && source .venv/bin/activate", "")
    outputs = json.loads((workplace / "tour.json").read_text(encoding="utf-8"))
    assert [timeless(output) for output in outputs] == [timeless(shown) for _, shown in tour()]
    assert Scratch(workplace / "demo", workplace / "home").commits == 1, "the broken model was not committed"
