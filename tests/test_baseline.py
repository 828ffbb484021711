"""The file of known findings: which of them a finding is, how it is read, renewed and written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_sessions import run

from initlint import baseline, target_names
from initlint.baseline import Baseline, Entry, Standing, amend, load, pruned, recognised, renewed, save
from initlint.errors import UsageError
from initlint.plugin import Finding, Severity


def entry(target: str = "m.onnx", address: str = "a", severity: Severity = Severity.ERROR, rule: str = "r") -> Entry:
    return Entry(target, rule, address, severity)


def finding(address: str | None = "a", severity: Severity = Severity.ERROR) -> Finding:
    return Finding("r", "c", severity, None, address, "", {})


# Which target is which -----------------------------------------------------------------------------------------------


def known(path: Path, target: str, *others: str, clean: tuple[str, ...] = ()) -> list[str]:
    entries = (entry("a/m.onnx", "of a"), entry("b/m.onnx", "of b"), entry("a/n.onnx", "other"))
    held = Baseline(path / "base.json", entries, clean)
    beside = [held.label(str(path / other)) for other in others]
    return [each.address for each in held.known(str(path / target), beside)]


def test_files_of_one_name_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    assert known(tmp_path, "a/m.onnx") == ["of a"]
    assert known(tmp_path, "b/m.onnx", "a/m.onnx") == ["of b"]


def test_a_file_that_moved_is_known_by_its_name(tmp_path: Path) -> None:
    assert known(tmp_path, "elsewhere/n.onnx") == ["other"]
    assert known(tmp_path, "c/m.onnx") == ["of a", "of b"]
    assert known(tmp_path, "a/renamed.onnx") == []


def test_a_file_that_did_not_move_keeps_what_is_its_own(tmp_path: Path) -> None:
    assert known(tmp_path, "c/m.onnx", "a/m.onnx", "c/m.onnx") == ["of b"]
    assert known(tmp_path, "c/m.onnx", "a/m.onnx", "b/m.onnx") == []
    assert known(tmp_path, "clean/m.onnx", clean=("clean/m.onnx",)) == []


@pytest.mark.usefixtures("fakes")
def test_the_work_grows_with_targets_and_entries_and_not_with_their_product(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(count: int) -> int:
        """How often a path was looked at that has to do with the baseline."""
        targets = tuple(f"error{i}.onnx" for i in range(count))
        monkeypatch.setattr(baseline, "file_name", counting(target_names.file_name))
        monkeypatch.setattr(baseline, "seen_from", counting(target_names.seen_from))
        assert run(*targets, "--write-baseline", f"{count}.json").exit_code == 0
        calls.clear()
        assert run(*targets, "--baseline", f"{count}.json").exit_code == 0
        return len(calls)

    def counting(function: Callable[..., str]) -> Callable[..., str]:
        def counted(*arguments: object) -> str:
            calls.append(function)
            return function(*arguments)

        return counted

    calls: list[object] = []
    assert 0 < asked(16) <= 2 * asked(8)


def test_python_targets_are_known_by_their_text(tmp_path: Path) -> None:
    held = Baseline(tmp_path / "base.json", (entry("pkg.nets:build"), entry("src/net.py:build", "b")))
    assert held.known("pkg.nets:build") == (entry("pkg.nets:build"),)
    assert held.known("other.nets:build") == ()
    assert held.known(str(tmp_path / "lib" / "net.py:build")) == (entry("src/net.py:build", "b"),)
    assert held.known(str(tmp_path / "src" / "net.py:other")) == ()


def test_of_several_findings_of_a_whole_model_as_many_are_known_as_there_were() -> None:
    found = [finding(None, Severity.NOTE), finding(None, Severity.ERROR)]
    one = entry(address="", severity=Severity.ERROR)
    assert recognised(found, [one]) == [None, one]
    assert recognised(found, [one, one]) == [one, one]


# The file ------------------------------------------------------------------------------------------------------------


def test_it_is_one_sorted_line_a_finding(tmp_path: Path) -> None:
    entries = (entry("n.onnx"), entry(address="z"), entry(address="é\ud800", severity=Severity.NOTE))
    save(Baseline(tmp_path / "base.json", entries, ("clean/n.onnx",)))
    text = (tmp_path / "base.json").read_text()
    assert text.splitlines() == [
        "{",
        '  "initlint_baseline": 1,',
        '  "findings": [',
        '    {"target": "m.onnx", "rule": "r", "address": "z", "severity": "error"},',
        '    {"target": "m.onnx", "rule": "r", "address": "\\u00e9\\ud800", "severity": "note"},',
        '    {"target": "n.onnx", "rule": "r", "address": "a", "severity": "error"}',
        "  ],",
        '  "clean": ["clean/n.onnx"]',
        "}",
    ]
    again = load(tmp_path / "base.json")
    save(again)
    assert (tmp_path / "base.json").read_text() == text
    assert set(again.entries) == set(entries)


def test_it_is_written_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "base.json"
    save(Baseline(path, (entry(),)))
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(baseline.os, "replace", full)
    with pytest.raises(UsageError, match=r"base.json cannot be written: No space left on device"):
        save(Baseline(path))
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is no JSON"),
        ("<<<<<<< HEAD\n{}", "it is no JSON"),
        ("\x80", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ("[]", "it holds something else"),
        ('{"version": "2.1.0", "runs": []}', "it holds something else"),
        ('{"initlint_baseline": 2, "findings": []}', "it is of version 2, not 1"),
        ('{"initlint_baseline": "1", "findings": []}', 'it is of version "1", not 1'),
        ('{"initlint_baseline": 1, "findings": {}}', "its findings are no list"),
        ('{"initlint_baseline": 1, "findings": ["a"]}', "finding 1 has no target"),
        (
            '{"initlint_baseline": 1, "findings": [{"target": 1, "rule": "", "address": "", "severity": "note"}]}',
            "finding 1",
        ),
        (
            '{"initlint_baseline": 1, "findings": [{"target": "", "rule": "", "address": "", "severity": "bad"}]}',
            'finding 1 has the severity "bad", not one of error, warning, note',
        ),
        ('{"initlint_baseline": 1, "findings": [], "clean": "a"}', "its clean targets"),
    ],
)
@pytest.mark.usefixtures("fakes")
def test_a_broken_or_foreign_file_is_one_sentence(text: str, why: str) -> None:
    Path("base.json").write_bytes(text.encode("latin-1"))
    for option in ("--baseline", "--write-baseline"):
        result = run("error.onnx", option, "base.json")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("initlint: ") and result.stderr.count("\n") == 1
        assert f"base.json is no baseline of initlint: {why}" in result.stderr
        assert Path("base.json").read_bytes() == text.encode("latin-1")


@pytest.mark.skipif(os.name == "nt", reason="there are no pipes and no /dev")
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder", "a link to itself"])
@pytest.mark.usefixtures("fakes")
def test_what_is_no_file_is_refused_before_anything_is_checked(kind: str) -> None:
    path = Path("base.json")
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    for option in ("--baseline", "--write-baseline"):
        result = run("error.onnx", option, "base.json")
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert "base.json" in result.stderr
        assert "is not a regular file" in result.stderr or kind == "a link to itself"
    assert path.is_symlink() is (kind in ("a device", "a link to itself"))


def test_what_a_run_could_not_judge_stays() -> None:
    old = Baseline(Path("b"), (entry("m.onnx", "met"), entry("m.onnx", "gone"), entry("n.onnx"), entry(rule="asleep")))
    standing = Standing("m.onnx", (entry("m.onnx", "new"),), (old.entries[0],), (old.entries[1],))
    assert set(renewed(old, [standing]).entries) == {entry("m.onnx", "new"), entry("n.onnx"), entry(rule="asleep")}


def standing(target: str, *current: Entry, read: Baseline) -> Standing:
    return Standing(target, current, tuple(each for each in read.entries if each in current))


def test_of_a_target_that_was_given_twice_each_finding_is_written_once() -> None:
    whole = entry(address="")
    one, other = (
        Standing("m.onnx", (whole, whole, entry())),
        Standing("m.onnx", (whole, entry(severity=Severity.NOTE), entry(address="b"))),
    )
    now = renewed(Baseline(Path("b")), [one, other, Standing("n.onnx", (entry("n.onnx"),))])
    expected = [whole, whole, entry(), entry(address="b"), entry("n.onnx")]
    assert sorted(now.entries, key=str) == sorted(expected, key=str)


def test_what_others_wrote_meanwhile_stays(tmp_path: Path) -> None:
    read = Baseline(tmp_path / "base.json", (entry(address="old"),))
    save(replace(read, entries=(*read.entries, entry("n.onnx"), entry(rule="other"))))
    found = standing("m.onnx", entry(address="old"), entry(address="new"), read=read)
    now = amend(read, [found], renewed)
    assert set(now.entries) == set(load(read.path).entries)
    expected = [entry("m.onnx", "old"), entry("m.onnx", "new"), entry("n.onnx"), entry(rule="other")]
    assert sorted(now.entries, key=str) == sorted(expected, key=str)


def test_what_two_found_at_the_same_time_is_written_once(tmp_path: Path) -> None:
    read = Baseline(tmp_path / "base.json")
    found = standing("m.onnx", entry(), entry(address="b", severity=Severity.NOTE), read=read)
    first = amend(read, [found], renewed)
    assert len(first.entries) == 2
    assert sorted(amend(read, [found], renewed).entries, key=str) == sorted(first.entries, key=str)


def test_what_others_pruned_meanwhile_is_gone(tmp_path: Path) -> None:
    read = Baseline(tmp_path / "base.json", (entry(address="a"), entry(address="b")))
    save(replace(read, entries=(entry(address="b"),)))
    assert amend(read, [Standing("m.onnx", vanished=(entry(address="b"),))], pruned).entries == ()


_WRITER = """
import sys
from pathlib import Path
from initlint.baseline import Baseline, Entry, Standing, amend, renewed
from initlint.plugin import Severity
path, name = Path(sys.argv[1]), sys.argv[2]
for i in range(20):
    found = Standing(f"{name}{i}.onnx", (Entry(f"{name}{i}.onnx", "r", "a", Severity.ERROR),))
    amend(Baseline(path), [found], renewed)
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no locks on folders")
def test_processes_that_write_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    command = [sys.executable, "-c", _WRITER, str(path)]
    writers = [subprocess.Popen([*command, name]) for name in "abcd"]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert {each.target for each in load(path).entries} == {f"{name}{i}.onnx" for name in "abcd" for i in range(20)}
    assert list(tmp_path.iterdir()) == [path]
