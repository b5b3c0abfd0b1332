"""`inferctl completion-script` and `inferflux completion-script`."""

import click

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete this program's commands, options and model ids by Tab.

    \b
      source <(inferctl completion-script bash)                                 # in ~/.bashrc
      source <(inferctl completion-script zsh)                                  # in ~/.zshrc, behind compinit
      inferctl completion-script fish > ~/.config/fish/completions/inferctl.fish

    The same for inferflux. Model ids are asked of the server that the command line or the environment names, for at
    most a second; where nothing listens there are none.
    """
    from click.shell_completion import get_completion_class

    root = ctx.find_root()
    name = root.info_name or ""
    kind = get_completion_class(shell)
    assert kind is not None
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    complete = kind(root.command, {}, name, variable)
    # Not `source`, which asks an installed bash for its version: the script may be for another machine.
    click.echo(complete.source_template % complete.source_vars())
