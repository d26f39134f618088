"""The command `simnet`: finds a subcommand, runs it, and turns what went wrong into a text and an exit code.

A subcommand's module is imported when it is called, never before, so that `simnet --help` starts in a few tens of
milliseconds: this module may import click and nothing heavier (tests/test_house.py holds the ratio to a bare Python).

Results go to stdout, everything else to stderr. Exit codes: 0 done; 1 an `expect:` failed; 2 bad input or usage;
3 a run failed; 130 interrupted (Ctrl-C); 141 whoever read our output has gone (`simnet rules | head`).
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

import simnet

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXIT_BAD_INPUT = 2
EXIT_RUN_FAILED = 3
EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 141

# name -> (module, attribute, help of one line), in the order in which `--help` tells them
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("simnet.cli.init", "command", "A commented experiment and manifests to start from."),
    "validate": ("simnet.cli.validate", "command", "Every mistake of experiments and manifests at once."),
    "plan": ("simnet.cli.plan", "command", "The runs of an experiment, and what they will cost."),
    "run": ("simnet.cli.run", "command", "Run an experiment; go on where it stopped."),
    "routes": ("simnet.cli.routes", "command", "Routes of a node or switch, and why."),
    "interfaces": ("simnet.cli.interfaces", "command", "A node's or a pod's interfaces, as `ip addr` shows them."),
    "compare": ("simnet.cli.compare", "command", "Differences between variants, with intervals."),
    "plot": ("simnet.cli.plot", "command", "Draw the figures of a result."),
    "report": ("simnet.cli.plot", "report_command", "Write the report of a result."),
    "schema": ("simnet.cli.schema", "command", "JSON Schema of experiment files, for editors."),
    "trace": ("simnet.cli.trace", "command", "The way of one packet, rule by rule, and back."),
    "shares": ("simnet.cli.shares", "command", "Exact expected share per entry point, node and pod."),
    "rules": ("simnet.cli.rules", "command", "A node's iptables rules; compare them with a real dump."),
    "completion": ("simnet.cli.completion", "command", "Print the shell's completion script."),
}


class LazyGroup(click.Group):
    """A group whose subcommands are rows of `COMMANDS`, imported when one is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a subcommand; None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand that `args` begins with; one that is nearly spelled right is named in the error."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, n=3, cutoff=0.6)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise click.UsageError(f"No such command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; where its reader has gone, end at once (click would say 1: an `expect:` failed)."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at the end
            ctx.exit(EXIT_READER_GONE)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of subcommands without importing one of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a subcommand's name or one of the group's options without importing a subcommand."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=text) for name, (_, _, text) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(simnet.__version__, prog_name="simnet")
def group() -> None:
    """Tell how traffic reaches the pods of a Kubernetes cluster, before anything is deployed.

    Reads files only: no cluster is asked, no KUBECONFIG is read, no network is used.
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line (`sys.argv[1:]` where `args` is None) and leave the process with an exit code."""
    raise SystemExit(exit_code(args))


def exit_code(args: list[str] | None = None) -> int:
    """Run the command line and return its exit code; what went wrong stands on stderr, bugs with a traceback.

    Subcommands say how they ended by `ctx.exit(code)`, or raise a SimnetError.
    """
    try:
        code: Any = group.main(args, prog_name="simnet", standalone_mode=False, color=colour())
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except Exception as error:
        return tell(error)


def colour() -> bool | None:
    """Return False where the user asks for no colours (NO_COLOR, TERM=dumb), else None: click asks the terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def tell(error: Exception) -> int:
    """Print an error that a subcommand raised and return the exit code that it means."""
    from simnet.errors import InputError, ResultError, SimnetError

    if isinstance(error, SimnetError):
        click.echo(str(error), err=True)
        return EXIT_BAD_INPUT if isinstance(error, (InputError, ResultError)) else EXIT_RUN_FAILED
    import traceback

    traceback.print_exception(error)
    click.echo(f"simnet {simnet.__version__}: this is a bug in simnet; please report the lines above", err=True)
    return EXIT_RUN_FAILED
