"""The options of how a prompt steers the generator, alike in all commands that draw."""

import click

from allpet_gen.prompt_guidance import GUIDANCE, GUIDANCE_START, parse_guidance
from allpet_physics.errors import InputError


class _Guidance(click.ParamType):
    name = "guidance"

    def convert(self, value, param, ctx):
        """Return a number or a mapping."""
        try:
            return parse_guidance(value) if isinstance(value, str) else value
        except InputError as error:
            self.fail(str(error), param, ctx)


def guidance_options(command):
    """Add ``--guidance`` and ``--guidance-start``, in this order."""
    start = click.option("--guidance-start", type=click.FloatRange(0, 1), default=GUIDANCE_START, show_default=True,
                         metavar="F", help="Part of the steps before a weight above 1 takes effect.")
    weight = click.option("--guidance", type=_Guidance(), default=GUIDANCE, show_default=True, metavar="W",
                          help="Weight of the prompt, or of its words as in region=3,tracer=7: 1 as learned, more "
                               "exaggerates, 0 ignores it.")
    return weight(start(command))
