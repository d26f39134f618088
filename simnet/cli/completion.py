"""`simnet completion bash|zsh|fish`: the script by which a shell completes simnet's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(name="completion", short_help="Print the shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes simnet's commands and options.

    \b
    bash:  eval "$(simnet completion bash)"        in ~/.bashrc
    zsh:   eval "$(simnet completion zsh)"         in ~/.zshrc
    fish:  simnet completion fish > ~/.config/fish/completions/simnet.fish
    """
    completion_class = get_completion_class(shell)
    assert completion_class is not None  # click.Choice admits only shells that click knows
    group = ctx.find_root().command
    click.echo(completion_class(group, {}, "simnet", "_SIMNET_COMPLETE").source())
