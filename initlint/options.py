"""Options of the command line, each of which an environment variable can give as well.

Only click is imported at the top: `initlint --help` has to be quick.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from .settings import Origin

PREFIX = "INITLINT_"
THRESHOLDS = ("error", "warning", "note", "never")

Command = TypeVar("Command", bound=Callable[..., Any])


class Option(click.Option):
    """`--fail-on` is INITLINT_FAIL_ON too; of what may be repeated a variable holds several values, as a shell would
    read them: separated by blanks, or in quotes."""

    def __init__(self, *declarations: Any, **attributes: Any) -> None:
        super().__init__(*declarations, **attributes)
        self.envvar = PREFIX + max(self.opts, key=len).lstrip("-").replace("-", "_").upper()

    def value_from_envvar(self, ctx: click.Context) -> Any:
        text = self.resolve_envvar_value(ctx)
        if text is None or not self.multiple:
            return super().value_from_envvar(ctx)
        words = shlex.shlex(text, posix=True)
        words.whitespace_split, words.commenters, words.escape = True, "", ""  # paths of Windows have backslashes
        try:
            return tuple(words)
        except ValueError:
            raise click.BadParameter("a quotation mark is not closed", ctx, param_hint=str(self.envvar)) from None

    def get_error_hint(self, ctx: click.Context | None) -> str:
        hint = super().get_error_hint(ctx)
        said = ctx is not None and self.name is not None and ctx.get_parameter_source(self.name)
        return str(self.envvar) if said is ParameterSource.ENVIRONMENT else hint


def option(*declarations: str, **attributes: Any) -> Callable[[Command], Command]:
    return click.option(*declarations, cls=Option, **attributes)


def given(context: click.Context) -> Iterator[Origin]:
    """What the environment says, then what the command line says, as far as configuration files can say it."""
    from .configuration import KEYS, origin

    params = {str(each.name).replace("_", "-"): each for each in context.command.params if isinstance(each, Option)}
    for name in KEYS:  # in this order: who selects anew says so first
        if name in params and (value := params[name].value_from_envvar(context)) is not None:
            yield origin(str(params[name].envvar), {name: params[name].type_cast_value(context, value)})
    said = {
        name: context.params[str(each.name)]
        for name, each in params.items()
        if name in KEYS and context.get_parameter_source(str(each.name)) is ParameterSource.COMMANDLINE
    }
    yield origin("command line", said)


def settle(context: click.Context, one: str, other: str) -> None:
    """Of two options that contradict each other the command line's counts more than the environment's."""
    sources = {name: context.get_parameter_source(name) for name in (one, other)}
    if set(sources.values()) == {ParameterSource.ENVIRONMENT, ParameterSource.COMMANDLINE}:
        for param in context.command.params:
            if sources.get(str(param.name)) is ParameterSource.ENVIRONMENT:
                default = param.default if isinstance(param.default, str) else None  # else click's own "unset"
                context.params[str(param.name)] = default


def settings_options(command: Command) -> Command:
    """Options that say what the configuration file can say too, and which file that is."""
    options = (
        option("--select", multiple=True, metavar="RULES", help="Run only these rules or categories."),
        option("--extend-select", multiple=True, metavar="RULES", help="Run these in addition."),
        option("--ignore", multiple=True, metavar="RULES", help="Leave these rules or categories out."),
        option("--layers", multiple=True, metavar="GLOB", help="Report only layers or addresses that match."),
        option("--exclude-layers", multiple=True, metavar="GLOB", help="Report no layers that match."),
        option("--fail-on", type=click.Choice(THRESHOLDS), help="Least severity for exit status 1.  [error]"),
        option("--baseline", metavar="FILE", help="Known findings, which do not fail."),
        option(
            "--inputs", metavar="FILE|FUNC", help="Probe inputs: an .npz or .safetensors file, or pkg.mod:function."
        ),
        option("--input-shape", multiple=True, metavar="NAME:SHAPE", help="As in x:1x3x224x224 or x:[1,3,224,224]."),
        option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of a named dimension, as in batch=8."),
        option("--batch", type=int, metavar="N", help="Batch size of the probe."),
        option("--seed", type=int, metavar="N", help="Seed of the probe's inputs.  [0]"),
        option("--kwargs", metavar="JSON", help="Arguments of a builder (Python targets)."),
        option("--device", metavar="NAME", help="Where to run a PyTorch module, as in cuda:0."),
        option("--loss", metavar="FUNC", help="Loss of a PyTorch module's output, as pkg.mod:function."),
        option(
            "--trust",
            is_flag=True,
            help="Load PyTorch files that hold code, and rule files of a configuration; run it.",
        ),
        option("--no-probe", is_flag=True, help="Look at the weights only, run nothing."),
        option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Read settings from this file."),
        option("--isolated", is_flag=True, help="Read no configuration file."),
    )
    for each in reversed(options):
        command = each(command)
    return command
