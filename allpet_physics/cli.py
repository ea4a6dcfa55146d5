"""The command line ``allpet``. Commands are imported when they are called, so that ``allpet --help`` stays quick.

Other packages add commands through the entry point group ``allpet.commands``: the name of the command, and the click
command itself. Their module is imported for ``allpet --help`` too, so it must not import heavy packages at its top.
"""

from importlib import import_module

import click

from allpet_physics import _interrupts
from allpet_physics._command_line import FAILED, Command, entry, usage_errors_in_json, version_option

_COMMANDS = {
    "roi2sino": "allpet_physics.commands.roi2sino",
    "project": "allpet_physics.commands.project",
    "reconstruct": "allpet_physics.commands.reconstruct",
    "masks": "allpet_physics.commands.masks",
    "simulate": "allpet_physics.commands.simulate",
    "info": "allpet_physics.commands.info",
    "doctor": "allpet_physics.commands.doctor",
    "demo": "allpet_physics.commands.demo",
}


class _LazyGroup(click.Group):
    """A group whose commands live in modules and entry points."""

    def list_commands(self, ctx):
        """Return our commands in the order of a day's work, then those of other packages."""
        return [*_COMMANDS, *sorted(set(_plugins()) - set(_COMMANDS))]

    def parse_args(self, ctx, args):
        """Answer a usage error in JSON too when that was asked."""
        ctx.meta["allpet.words"] = list(args)
        with usage_errors_in_json(list(args)):
            return super().parse_args(ctx, args)

    def invoke(self, ctx):
        """Run the command; an unknown one is answered in JSON too when that was asked."""
        with usage_errors_in_json(ctx.meta["allpet.words"]):
            return super().invoke(ctx)

    def get_command(self, ctx, name):
        """Import one command; one that cannot be imported stays in the list and says why when called."""
        if name in _COMMANDS:
            return import_module(_COMMANDS[name]).command
        plugin = _plugins().get(name)
        if plugin is None:
            return None
        try:
            found = plugin.load()
            if not isinstance(found, click.Command):
                raise TypeError(f"{plugin.value} is not a click command")
            if not isinstance(found, Command):
                _interrupts.unwind()  # ours do it themselves, once all is imported
            return found
        except Exception as error:  # whatever a foreign module raises must not take the other commands with it
            return _broken(name, plugin.value, error)


def _plugins() -> dict:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group="allpet.commands")}


def _broken(name: str, where: str, error: Exception) -> click.Command:
    reason = f"{where} could not be loaded ({type(error).__name__}: {' '.join(str(error).split())[:200]})"

    @click.command(name, short_help=f"(not available: {type(error).__name__})", add_help_option=False,
                   context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
    @click.pass_context
    def broken(ctx):
        message = f"{reason}; install or repair the package that brings this command."
        Command.fail(ctx, "ImportError", message, FAILED, as_json="--json" in ctx.args)

    return broken


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
             epilog="\b\nExample:\n  allpet roi2sino pet_folder --mask lesion.nii.gz --out lesion/\n\n"
                    "Exit codes: 0 done, 1 failed outside the input (disk, permission), 2 usage, 3 geometry, "
                    "4 metadata, 5 empty result, 130 interrupted.")
@version_option
def cli():
    """PET sinograms: regions to sinogram space, projection, reconstruction."""


main = entry(cli, "allpet")


def roi2sino_main() -> None:
    """Run ``allpet-roi2sino``: the command ``allpet roi2sino`` standing alone."""
    _interrupts.stop_at_once()
    entry(import_module(_COMMANDS["roi2sino"]).command, "allpet-roi2sino")()


if __name__ == "__main__":
    main()
