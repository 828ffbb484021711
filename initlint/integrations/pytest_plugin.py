"""The pytest plug-in: a fixture that checks models with the project's settings, and an option that writes the reports.

    def test_it_starts_well(initlint):
        initlint.check(build_model()).raise_for_findings()

pytest imports this module whenever it starts, so that it imports nothing heavy at the top.
"""

from __future__ import annotations

import base64
import pickle
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..report import Report

MARKER = "initlint_allow"
_MADE = pytest.StashKey[list[Any]]()
_SESSION = pytest.StashKey["_Session"]()
_CARRIED = "initlint_reports"
"""An attribute of pytest's own reports, in which those of a worker come to the controller."""


class Initlint:
    """What the fixture ``initlint`` gives to a test."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def check(
        self, model: Any, inputs: Any = None, loss: Any = None, *, isolated: bool = False, **settings: Any
    ) -> Report:
        """``initlint.check`` with the settings of the project, which ``settings`` win over; ``isolated`` reads none."""
        __tracebackhide__ = True
        from .. import check
        from ..errors import InitlintError

        try:
            report = check(model, inputs, loss, **_merged(self._item, isolated, settings))
        except InitlintError as fault:
            raise fault.with_traceback(None) from None  # the sentence is for the test's author; our lines are not
        self._item.stash.setdefault(_MADE, []).append(replace(report, target=_title(self._item, report, model)))
        return report


@pytest.fixture
def initlint(request: pytest.FixtureRequest) -> Initlint:
    """Check freshly initialised models: ``initlint.check(model, inputs).raise_for_findings()``."""
    return Initlint(request.node)


def _merged(item: pytest.Item, isolated: bool, settings: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    if not isolated and "config" not in merged and (path := _configuration(item.config)) is not None:
        merged["config"] = str(path)
    if allowed := [_allowance(marker) for marker in item.iter_markers(MARKER)]:
        merged["allow"] = [*allowed, *merged.get("allow", ())]
    return merged


def _configuration(config: pytest.Config) -> Path | None:
    """The file that ``initlint_config`` names, else the nearest one in the root folder or above it."""
    from ..configuration import find

    named = config.getini("initlint_config")
    return config.rootpath / named if named else find(config.rootpath)


def _allowance(marker: pytest.Mark) -> Mapping[str, str]:
    """Raises UsageError for a marker that does not say what and why."""
    from ..errors import UsageError

    said = {**dict(zip(("rule",), marker.args, strict=False)), **marker.kwargs}
    allowed = {"at": "*", **said}
    odd = allowed.keys() - {"rule", "at", "reason"} or len(marker.args) > 1
    if odd or not all(isinstance(allowed.get(name), str) and allowed[name] for name in ("rule", "at", "reason")):
        example = f'@pytest.mark.{MARKER}("zero-weights", at="head.*", reason="...")'
        raise UsageError(f"{MARKER} takes a rule, the pattern of an address, and the reason, as in {example}")
    return allowed


def _title(item: pytest.Item, report: Report, model: Any) -> str:
    """What files of several tests call a target: a path as it is; a model by the test that made it, as path.py:test."""
    if isinstance(model, (str, Path)):
        return report.target
    path, _, inside = item.nodeid.partition("::")
    name, bracket, parameters = inside.partition("[")
    number = len(item.stash.get(_MADE, [])) + 1
    return f"{path}:{name.replace('::', '.')}{bracket}{parameters}{f'#{number}' if number > 1 else ''}"


# -- hooks ----------------------------------------------------------------------------------------------------------


@dataclass
class _Session:
    """What the controller collects, by the id of the test."""

    files: list[tuple[str, Path]]
    reports: dict[str, list[Report]] = field(default_factory=dict)
    outcome: str = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("initlint", "initlint (models that will not train)")
    group.addoption(
        "--initlint-report",
        action="append",
        default=[],
        metavar="FORMAT=FILE",
        help="Write the reports of all checks to a file, as `initlint --output-file` does; repeatable.",
    )
    parser.addini("initlint_config", "Configuration of initlint, relative to the root folder (default: the nearest)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{MARKER}(rule, at='*', reason=...): findings of initlint that this test accepts, and why."
    )
    given = config.getoption("initlint_report")
    if not given:
        return
    from ..errors import UsageError
    from ..output import parse_output_files

    try:
        files = parse_output_files(given, () if config.inipath is None else (("the configuration", config.inipath),))
    except UsageError as fault:
        raise pytest.UsageError(str(fault).replace("--output-file", "--initlint-report")) from None
    config.stash[_SESSION] = kept = _Session([(name, path.absolute()) for name, path in files])
    if not hasattr(config, "workerinput"):  # of pytest-xdist; workers only send
        config.pluginmanager.register(_Collector(kept), "initlint-report")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A marker without a reason is a fault, also where nothing is checked."""
    from ..errors import UsageError

    for marker in item.iter_markers(MARKER):
        try:
            _allowance(marker)
        except UsageError as fault:
            pytest.fail(str(fault), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports travel with the last of a test's own, so that those of a worker that dies later are not lost."""
    report = yield
    if call.when == "teardown" and (made := item.stash.get(_MADE, None)):
        if _SESSION in item.config.stash:
            setattr(report, _CARRIED, base64.b64encode(pickle.dumps(made)).decode("ascii"))
        made.clear()
    return report


class _Collector:
    """Keeps and writes reports: in the controller of several workers, or in the only process."""

    def __init__(self, session: _Session) -> None:
        self._session = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        carried = getattr(report, _CARRIED, None)
        if carried is not None:
            self._session.reports[report.nodeid] = pickle.loads(base64.b64decode(carried))  # noqa: S301 - a worker's

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        from ..errors import UsageError
        from ..output import write_files
        from ..report import Run
        from ..reporters.layout import Detail

        kept = self._session
        if session.config.option.collectonly:
            return
        run = Run(tuple(report for _, reports in sorted(kept.reports.items()) for report in reports))
        try:
            write_files(run, kept.files, Detail.NORMAL)
        except UsageError as fault:
            kept.outcome = str(fault)
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
            return
        files = ", ".join(str(path) for _, path in kept.files)
        kept.outcome = f"{len(run.reports)} report{'s' if len(run.reports) != 1 else ''} written to {files}"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._session.outcome:
            terminalreporter.write_line(f"initlint: {self._session.outcome}")
