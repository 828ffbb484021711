"""The command line. Reports go to stdout, everything else to stderr.

Only click is imported at the top: `initlint --help` has to be quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .errors import InitlintError
from .reporters import FORMATS

if TYPE_CHECKING:
    from .checking import Plan
    from .report import Run
    from .reporters.layout import Layout
    from .settings import Settings

THRESHOLDS = ("error", "warning", "note", "never")

USAGE = 2
INTERNAL_FAULT = 4
"""A traceback's usual exit status, 1, would read as "findings"."""
INTERRUPTED = 130

Command = TypeVar("Command", bound=Callable[..., Any])


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

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run and exit; ``extra`` goes to the click context."""
        extra.pop("standalone_mode", None)
        try:
            status = super().main(args, prog_name or "initlint", standalone_mode=False, **extra)
        except click.ClickException as fault:
            fault.show()
            status = fault.exit_code
        except InitlintError as fault:
            _complain(str(fault))
            status = USAGE
        except (click.Abort, KeyboardInterrupt):
            _complain("interrupted")
            status = INTERRUPTED
        except Exception:  # noqa: BLE001 - whatever it is must not end as "findings"
            import traceback

            traceback.print_exc()
            _complain("this is a fault in initlint itself; please report it with the lines above")
            status = INTERNAL_FAULT
        sys.exit(status or 0)


@click.group(
    "initlint", cls=DefaultToCheck, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="initlint", message="%(prog)s %(version)s")
def main() -> None:
    """A linter for freshly initialised neural networks: will this model train, and if not, why?

    `initlint model.onnx` is short for `initlint check model.onnx`; `initlint check --help` lists its options.

    \b
    Exit status:
      0  nothing found at or above --fail-on (default: error)
      1  findings at or above it
      2  wrong usage, a missing file, a Python target that cannot be imported or built, a broken
         configuration or rule pack
      3  a file that is unreadable or no supported model, or nothing that could be checked
      4  a model that crashed the runtime or passed a limit
    """


def _settings_options(command: Command) -> Command:
    """Options that say what the configuration file can say too."""
    options = (
        click.option("--select", multiple=True, metavar="RULES", help="Run only these rules or categories."),
        click.option("--extend-select", multiple=True, metavar="RULES", help="Run these in addition."),
        click.option("--ignore", multiple=True, metavar="RULES", help="Leave these rules or categories out."),
        click.option("--layers", multiple=True, metavar="GLOB", help="Report only layers or addresses that match."),
        click.option("--exclude-layers", multiple=True, metavar="GLOB", help="Report no layers that match."),
        click.option("--fail-on", type=click.Choice(THRESHOLDS), help="Least severity for exit status 1.  [error]"),
        click.option(
            "--inputs", metavar="FILE|FUNC", help="Probe inputs: an .npz or .safetensors file, or pkg.mod:function."
        ),
        click.option(
            "--input-shape", multiple=True, metavar="NAME:SHAPE", help="As in x:1x3x224x224 or x:[1,3,224,224]."
        ),
        click.option(
            "--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of a named dimension, as in batch=8."
        ),
        click.option("--batch", type=int, metavar="N", help="Batch size of the probe."),
        click.option("--seed", type=int, metavar="N", help="Seed of the probe's inputs.  [0]"),
        click.option("--kwargs", metavar="JSON", help="Arguments of a builder (Python targets)."),
        click.option("--device", metavar="NAME", help="Where to run a PyTorch module, as in cuda:0."),
        click.option("--loss", metavar="FUNC", help="Loss of a PyTorch module's output, as pkg.mod:function."),
        click.option("--trust", is_flag=True, help="Load PyTorch files that hold code, and run them."),
        click.option("--no-probe", is_flag=True, help="Look at the weights only, run nothing."),
        click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Read settings from this file."),
        click.option("--isolated", is_flag=True, help="Read no configuration file."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@click.argument("targets", nargs=-1, metavar="TARGET...")
@_settings_options
@click.option("--output-format", type=click.Choice(tuple(FORMATS)), default="text", help="Format on stdout.  [text]")
@click.option("--output-file", multiple=True, metavar="FORMAT=FILE", help="Also write a report to a file; repeatable.")
@click.option("--statistics", is_flag=True, help="Show counts per rule instead of findings.")
@click.option("-q", "--quiet", is_flag=True, help="Findings and the summary only.")
@click.option("-v", "--verbose", is_flag=True, help="The layer table, folded findings, every reason.")
@click.option(
    "--color", type=click.Choice(("auto", "always", "never")), default="auto", help="Colour on stdout.  [auto]"
)
def check(
    targets: tuple[str, ...],
    output_format: str,
    output_file: tuple[str, ...],
    statistics: bool,
    quiet: bool,
    verbose: bool,
    color: str,
    **given: Any,
) -> int:
    """Check models. This is the default command.

    \b
    A TARGET is one of
      model.onnx                an ONNX file
      pkg.mod:attr              a torch.nn.Module, or a class or function that builds one; it is imported and run
      path/to/file.py:attr      the same, in a file
      model.safetensors, .pt    weights without a network: only their values are checked
      module.pt, program.pt2    a whole module, TorchScript, an exported program: code, run with --trust only
    """
    _refuse_contradictions(targets, output_format, statistics, quiet, verbose)

    from . import output
    from .checking import plan
    from .reporters.layout import Detail

    files = output.parse_output_files(output_file, targets)
    planned = plan(_settings(given))
    detail = Detail.QUIET if quiet else (Detail.VERBOSE if verbose else Detail.NORMAL)
    layout = output.stdout_layout(color, detail)
    run = _run(targets, planned, layout, stream=output_format == "text" and not statistics)
    if statistics:
        _write_statistics(run, layout)
    elif output_format != "text":
        _write_for_programs(run, output_format, layout)
    output.write_files(run, files, detail)
    if "github" in (output_format, *(name for name, _ in files)):
        output.write_step_summary(run)
    return run.exit_status


def _refuse_contradictions(
    targets: tuple[str, ...], output_format: str, statistics: bool, quiet: bool, verbose: bool
) -> None:
    if not targets:
        raise click.UsageError("nothing to check: name at least one model, as in `initlint model.onnx`")
    if quiet and verbose:
        raise click.UsageError("-q and -v contradict each other; leave one of them out")
    if statistics and output_format != "text":
        raise click.UsageError("--statistics is text only; leave out --output-format")


def _run(targets: tuple[str, ...], planned: Plan, layout: Layout, stream: bool) -> Run:
    """Check one target after the other; with ``stream`` each report is shown as soon as it is there."""
    from . import output
    from .checking import check_target
    from .progress import Progress
    from .report import Run
    from .reporters.layout import Detail

    run = Run()
    for target in targets:
        with Progress(target) as progress, redirect_stdout(sys.stderr):  # a Python target may print
            report = check_target(target, planned, weights=layout.detail is Detail.VERBOSE, progress=progress)
        run = Run((*run.reports, report))
        if stream:
            from .reporters.as_text import render_report

            output.write(render_report(report, layout), layout.color)
    if stream:
        from .reporters.as_text import render_summary

        output.write(render_summary(run, layout), layout.color)
    return run


def _write_statistics(run: Run, layout: Layout) -> None:
    from . import output
    from .reporters.as_text import render_statistics, render_summary

    output.write(render_statistics(run, layout) + render_summary(run, layout), layout.color)
    _complain_of_failures(run)


def _write_for_programs(run: Run, output_format: str, layout: Layout) -> None:
    from . import output

    output.write_report(run, output_format, layout)
    _complain_of_failures(run)


def _complain_of_failures(run: Run) -> None:
    """People should see them although a program reads the report."""
    for report in run.reports:
        if report.failure is not None:
            _complain(f"{report.target}: {report.failure.message}")


def _complain(message: str) -> None:
    from .reporters.wording import printable

    click.echo(f"initlint: {printable(message)}", err=True)


def _settings(given: dict[str, Any]) -> Settings:
    """The settings in force: the configuration file's, then what was ``given`` on the command line."""
    from . import configuration

    config, isolated = given.pop("config"), given.pop("isolated")
    said = {name.replace("_", "-"): value for name, value in given.items() if not _unsaid(value)}
    return configuration.resolve(config, isolated, configuration.origin("command line", said))


def _unsaid(value: object) -> bool:
    """An option that was not given; `--seed 0` was."""
    return value is None or value is False or value == ()


@main.command()
@click.option("--output-format", type=click.Choice(("text", "json")), default="text", help="Format on stdout.  [text]")
def rules(output_format: str) -> None:
    """List the rules."""
    from . import catalog, listings, output
    from .reporters.layout import Detail

    found = catalog.load_rules()
    if output_format == "json":
        output.write(listings.rules_as_json(found))
    else:
        output.write(listings.rules_table(found, output.stdout_layout("never", Detail.NORMAL).width))


@main.command()
@click.argument("rule")
def explain(rule: str) -> None:
    """Tell all about one rule: why, an example, the fix, its options."""
    from . import catalog, listings, output
    from .reporters.layout import Detail

    page = listings.page(catalog.find_rule(catalog.load_rules(), rule))
    layout = output.stdout_layout("auto", Detail.NORMAL)
    if layout.color:
        from .reporters.as_text import render_markdown

        page = render_markdown(page, layout)
    output.write(page, layout.color)


@main.command()
@_settings_options
def config(**given: Any) -> None:
    """Show the settings in force and where each comes from."""
    from . import listings, output
    from .checking import plan

    settings = _settings(given)
    plan(settings)  # a setting that could not be used is not in force
    output.write(listings.settings_listing(settings))
