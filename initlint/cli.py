"""The command line. Reports go to stdout, everything else to stderr.

Only click is imported at the top: `initlint --help` has to be quick.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .closed_streams import discard, lost_reader, replace_missing
from .errors import InitlintError
from .options import Command, given, option, settings_options, settle
from .reporters import FORMATS

if TYPE_CHECKING:
    from .checking import Plan
    from .ledger import Ledger
    from .output import Stdout
    from .plugin import Rule
    from .report import Run
    from .settings import Settings


USAGE = 2
INTERNAL_FAULT = 4
"""A traceback's usual exit status, 1, would read as "findings"."""
INTERRUPTED = 130


class DefaultToCheck(click.Group):
    """`initlint model.onnx` is `initlint check model.onnx`; faults become one sentence and an exit status."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        if first not in (*self.commands, "-h", "--help", "--version"):
            self._refuse_misspelt_command(first)
            args = ["check", *args]
        return super().parse_args(ctx, args)

    def _refuse_misspelt_command(self, name: str) -> None:
        from .spelling import did_you_mean

        if name.isalpha() and not Path(name).exists() and (nearest := did_you_mean(name, self.commands)):
            raise click.UsageError(f'there is no command and no file "{name}"{nearest}')

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run and exit, as click's ``main`` with these arguments does."""
        settings = {"prog_name": "initlint", **settings, "standalone_mode": False}
        replace_missing()
        try:
            status = super().main(*args, **settings)
        except SystemExit as end:
            status = 0 if lost_reader() else end.code
        except click.ClickException as fault:
            _show(fault)
            status = fault.exit_code
        except InitlintError as fault:
            complain(str(fault))
            status = USAGE
        except (click.Abort, KeyboardInterrupt):
            complain("interrupted")
            status = INTERRUPTED
        except Exception:  # noqa: BLE001 - whatever it is must not end as "findings"
            import traceback

            _say(traceback.format_exc())
            complain("this is a fault in initlint itself; please report it with the lines above")
            status = INTERNAL_FAULT
        sys.exit(status or 0)


@click.group(
    "initlint", cls=DefaultToCheck, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="initlint", message="%(prog)s %(version)s")
def main() -> None:
    """A linter for freshly initialised neural networks: will this model train, and if not, why?

    `initlint model.onnx` is short for `initlint check model.onnx`; `initlint check --help` lists its options.
    Each of them has an environment variable: --fail-on is INITLINT_FAIL_ON too. The command line counts more than the
    environment, and that more than the configuration file; `initlint config` tells where a setting comes from.

    \b
    Exit status:
      0  nothing found at or above --fail-on (default: error)
      1  findings at or above it
      2  wrong usage, a missing file, a Python target that cannot be imported or built, inputs that
         do not fit, a broken configuration or rule pack
      3  a file that is unreadable or no supported model, or nothing that could be checked
      4  a model that crashed the runtime or passed a limit
    """


@main.command()
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@settings_options
@option("--write-baseline", metavar="FILE", help="Write all findings to a baseline, or bring it up to date.")
@option("--prune-baseline", is_flag=True, help="Drop what is gone from the baseline.")
@option("--output-format", type=click.Choice(tuple(FORMATS)), default="text", help="Format on stdout.  [text]")
@option("--output-file", multiple=True, metavar="FORMAT=FILE", help="Also write a report to a file; repeatable.")
@option("--statistics", is_flag=True, help="Show counts per rule instead of findings.")
@option("-q", "--quiet", is_flag=True, help="Findings and the summary only.")
@option("-v", "--verbose", is_flag=True, help="The layer table, folded findings, every reason.")
@option("--color", type=click.Choice(("auto", "always", "never")), default="auto", help="Colour on stdout.  [auto]")
@click.pass_context
def check(context: click.Context, /, targets: tuple[str, ...], **_: Any) -> int:
    """Check models. This is the default command.

    \b
    A TARGET is one of
      model.onnx                an ONNX file
      pkg.mod:attr              a torch.nn.Module, or a class or function that builds one; it is imported and run
      path/to/file.py:attr      the same, in a file
      model.safetensors, .pt    weights without a network: only their values are checked
      module.pt, program.pt2    a whole module, TorchScript, an exported program: code, run with --trust only

    Without one the configuration's `targets` are checked. Every option has an environment variable: --fail-on is
    INITLINT_FAIL_ON, and of what may be repeated INITLINT_DIM="batch=8 n=4" says several.
    """
    said = _undisputed(context)

    from . import configuration, output
    from .checking import plan
    from .files_read import files_read
    from .ledger import expired, opened
    from .reporters.layout import Detail

    settings = _settings(context)
    targets = targets or configuration.targets(settings) or _nothing()
    ledger = opened(said["write_baseline"], said["prune_baseline"], settings, targets)
    files = output.parse_output_files(said["output_file"], files_read(targets, settings, ledger.baseline))
    planned = plan(settings, targets, ledger.baseline)
    detail = Detail.QUIET if said["quiet"] else (Detail.VERBOSE if said["verbose"] else Detail.NORMAL)
    stdout = output.Stdout(output.stdout_layout(said["color"], detail), said["output_format"], said["statistics"])
    run = _run(targets, planned, stdout, ledger, files)
    try:
        notices = [*ledger.close(run), *([] if stdout.is_for_people else expired(run))]
        run = ledger.entered(run)
    finally:  # no report calls known what is not in the baseline
        _report(run, stdout, ledger, files)
    _complain_of(notices if detail is not Detail.QUIET else [])
    return run.exit_status


def _nothing() -> tuple[str, ...]:
    raise click.UsageError(
        "nothing to check: name at least one model, as in `initlint model.onnx`, or give the configuration `targets`"
    )


def _undisputed(context: click.Context) -> dict[str, Any]:
    """The options, without those of the environment that the command line contradicts."""
    for one, other in (("quiet", "verbose"), ("statistics", "output_format")):
        settle(context, one, other)
    said = context.params
    if said["quiet"] and said["verbose"]:
        raise click.UsageError("-q and -v contradict each other; leave one of them out")
    if said["statistics"] and said["output_format"] != "text":
        raise click.UsageError("--statistics is text only; leave out --output-format")
    return said


def _run(
    targets: tuple[str, ...], planned: Plan, stdout: Stdout, ledger: Ledger, files: Sequence[tuple[str, Path]]
) -> Run:
    """Check one target after the other; a format that goes target by target shows each report as soon as it is there,
    unless it is to be in a baseline first.

    Who interrupts that finds in the ``files`` what was done until then.
    """
    from . import output
    from .checking import check_target
    from .progress import Progress
    from .report import Run
    from .reporters.layout import Detail

    run, detail = Run(), stdout.layout.detail
    try:
        for target in targets:
            with Progress(target) as progress, redirect_stdout(sys.stderr):  # a Python target may print
                report = check_target(target, planned, weights=detail is Detail.VERBOSE, progress=progress)
            run = Run((*run.reports, report))
            if not ledger.writes:
                stdout.show_last(run)
    except KeyboardInterrupt:
        if ledger.writes:
            stdout.show_each(run)
        output.write_files(run, files if run.reports else (), detail)
        raise
    return run


def _report(run: Run, stdout: Stdout, ledger: Ledger, files: Sequence[tuple[str, Path]]) -> None:
    """Write what was not written while targets were checked."""
    from . import output

    if ledger.writes:
        stdout.show_each(run)
    stdout.show_whole(run)
    if not stdout.is_for_people:
        _complain_of_failures(run)
    output.write_files(run, files, stdout.layout.detail)
    if "github" in (stdout.output_format, *(name for name, _ in files)):
        _complain_of(output.write_step_summary(run))


def _complain_of_failures(run: Run) -> None:
    """People should see them although a program reads the report."""
    for report in run.reports:
        if report.failure is not None:
            complain(f"{report.target}: {report.failure.message}")


def complain(message: str) -> None:
    from .reporters.wording import printable

    _say(f"initlint: {printable(message)}\n")


def _say(text: str) -> None:
    try:
        click.echo(text, err=True, nl=False)
    except OSError:
        discard(sys.stderr)


def _show(fault: click.ClickException) -> None:
    try:
        fault.show()
    except OSError:
        discard(sys.stderr)


def _complain_of(messages: Iterable[str]) -> None:
    for message in messages:
        complain(message)


def _settings(context: click.Context) -> Settings:
    """The settings in force: the configuration file's, then the environment's, then the command line's."""
    from . import configuration

    settle(context, "config", "isolated")
    config, isolated = context.params.get("config"), bool(context.params.get("isolated"))
    return configuration.resolve(config, isolated, *given(context))


def _local_rules(command: Command) -> Command:
    """Options for commands that speak of rules: which rule files of a project they are to know."""
    trust = option("--trust", is_flag=True, help="Know the rule files of the configuration too; it runs them.")
    return option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The same for this file.")(
        trust(command)
    )


def _all_rules(context: click.Context) -> tuple[Rule, ...]:
    from . import catalog

    wanted = context.params["config"] or context.params["trust"]
    return catalog.load_rules(files=_settings(context).rule_files if wanted else ())


@main.command()
@click.option("--output-format", type=click.Choice(("text", "json")), default="text", help="Format on stdout.  [text]")
@_local_rules
@click.pass_context
def rules(context: click.Context, /, output_format: str, **_: Any) -> None:
    """List the rules."""
    from . import listings, output
    from .reporters.layout import Detail

    found = _all_rules(context)
    if output_format == "json":
        output.write(listings.rules_as_json(found))
    else:
        output.write(listings.rules_table(found, output.stdout_layout("never", Detail.NORMAL).width))


@main.command()
@click.argument("rule")
@_local_rules
@click.pass_context
def explain(context: click.Context, /, rule: str, **_: Any) -> None:
    """Tell all about one rule: why, an example, the fix, its options."""
    from . import catalog, listings, output
    from .reporters.layout import Detail

    page = listings.page(catalog.find_rule(_all_rules(context), rule))
    layout = output.stdout_layout("auto", Detail.NORMAL)
    if layout.color:
        from .reporters.as_text import render_markdown

        page = render_markdown(page, layout)
    output.write(page, layout.color)


@main.command()
@settings_options
@click.pass_context
def config(context: click.Context, /, **_: Any) -> None:
    """Show the settings in force and where each comes from."""
    from . import listings, output
    from .checking import plan

    settings = _settings(context)
    plan(settings)  # a setting that could not be used is not in force
    output.write(listings.settings_listing(settings))
