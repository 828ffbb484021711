"""Markdown for comments and summaries: the gravest first, names as text, within the room there is."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from rendered import NOWHERE, each_name, many
from sample_reports import CLEAN, DEAD, MISSING, SICK, bias_note, hostile

from initlint.baseline import REASON
from initlint.plugin import Severity
from initlint.report import Run, Suppressed
from initlint.reporters import render
from initlint.reporters.as_markdown import LONGEST_COMMENT, comment
from initlint.reporters.layout import Detail


def played(text: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def test_markdown_of_a_clean_run_is_one_line() -> None:
    assert render(Run((CLEAN,)), "markdown", NOWHERE) == (
        "**initlint**: all clean: 2 layers, 12.3 k parameters, 0.04 s\n"
    )
    assert render(Run(()), "markdown", NOWHERE) == "**initlint**: nothing was checked\n"


def test_markdown_shows_the_gravest_target_and_finding_first() -> None:
    shown = render(Run((CLEAN, SICK, MISSING)), "markdown", NOWHERE)
    assert re.findall(r"^### .*$", shown, flags=re.M) == [
        "### <code>missing.onnx</code>",
        "### <code>resnet.onnx</code>",
    ]
    rows = re.findall(r"^\| (\S+ \w+) \| <code>([\w-]+)</code>", shown, flags=re.M)
    assert [rule for _, rule in rows] == ["variance-mismatch", "dead-relu-bias", "folded-norm", "bias-before-norm"]


def test_what_a_baseline_knows_is_not_said_to_be_allowed() -> None:
    known = tuple(Suppressed(DEAD, REASON) for _ in range(3))
    shown = render(Run((replace(SICK, suppressed=(*SICK.suppressed, *known)),)), "markdown", NOWHERE)
    assert "- allowed: 1 finding by the configuration\n- known: 3 findings in the baseline\n" in shown


@each_name
def test_a_name_in_markdown_is_text(name: str) -> None:
    page = played(render(Run((hostile(name),)), "markdown", NOWHERE))
    tags = {tag.lower() for tag in re.findall(r"<\s*/?\s*([A-Za-z!]\w*)", page)}
    ours = "p strong h3 code table thead tbody tr th td details summary pre ul li"
    assert tags <= set(ours.split())
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    assert body.count("<tr>") == 2
    assert body.count("<td>") == 8


def test_markdown_mentions_nobody_and_refers_to_nothing() -> None:
    finding = replace(DEAD, message="ask @octocat about #1 at https://example.invalid")
    shown = render(Run((replace(CLEAN, findings=(finding,)),)), "markdown", NOWHERE)
    assert not re.search(r"@octocat|#1\b|://", shown)


@pytest.mark.parametrize("count", [100, 1_000, 3_000])
def test_a_comment_stays_within_what_github_takes(count: int) -> None:
    found = tuple(bias_note(f"layer.{i}") for i in range(count)) + many(count, Severity.ERROR).findings
    shown = comment(Run((MISSING, replace(CLEAN, findings=found))), LONGEST_COMMENT, Detail.VERBOSE)
    assert len(shown.encode()) <= LONGEST_COMMENT < 65_536
    assert "missing.onnx does not exist" in shown
    assert f"{count:,} errors" in shown.splitlines()[0]
    if count > 100:
        assert "more finding" in shown


def test_a_comment_on_too_many_targets_says_that_it_was_cut() -> None:
    run = Run(tuple(replace(MISSING, target=f"{i}.onnx") for i in range(5_000)))
    shown = comment(run, LONGEST_COMMENT, Detail.NORMAL)
    assert len(shown.encode()) <= LONGEST_COMMENT
    assert shown.endswith("… cut here: the rest has no room.\n")
