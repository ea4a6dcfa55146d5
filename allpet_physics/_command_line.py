"""What every command shares: errors as sentences and exit codes, progress on stderr, one JSON object on stdout."""

import contextlib
import functools
import json
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path

import click

from allpet_physics import _interrupts
from allpet_physics._option_names import at_the_shell
from allpet_physics.errors import InputError

#: Exit codes that no exception class carries; `errors` has the others.
FAILED, EMPTY, INTERRUPTED = 1, 5, _interrupts.INTERRUPTED
#: Seconds between two plain progress lines where there is no terminal.
_LINE_EVERY_S = 10.0
#: What NumPy says, as a plain ValueError, of an array that no address could reach.
_TOO_BIG = ("array is too big", "Maximum allowed dimension exceeded", "array size exceeds")

json_option = click.option("--json", "as_json", is_flag=True,
                           help="Print one JSON object on standard output and nothing else there.")
quiet_option = click.option("--quiet", is_flag=True, help="Warnings and errors only, and the object of --json.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace existing files.")


class FilePath(click.Path):
    """A path of any kind, but not an empty text, which would otherwise mean the current folder."""

    def __init__(self):
        super().__init__(path_type=Path)

    def convert(self, value, param, ctx):
        """Return the path."""
        if value == "":
            self.fail("must be the name of a file or folder, but was empty.", param, ctx)
        return super().convert(value, param, ctx)


class EmptyResult(InputError):
    """The input holds nothing that the result could be made of."""

    exit_code = EMPTY


class Command(click.Command):
    """A click command that ends a user's mistake with one sentence on stderr and the exit code of its kind."""

    def parse_args(self, ctx, args):
        """Keep the arguments as typed, for the record, and answer a usage error in JSON too when that was asked."""
        ctx.meta["allpet.arguments"] = list(args)
        with usage_errors_in_json(list(args)):
            return super().parse_args(ctx, args)

    def invoke(self, ctx):
        """Run the command; show Python warnings as plain lines, turn exceptions into exit codes."""
        with warnings.catch_warnings(), usage_errors_in_json(ctx.meta.get("allpet.arguments", [])):
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *_args, **_kwargs: warn([str(message)])
            try:
                _interrupts.unwind()
                return super().invoke(ctx)
            except InputError as error:
                self.fail(ctx, type(error).__name__, at_the_shell(str(error), self), error.exit_code)
            except KeyboardInterrupt as interrupt:
                self.fail(ctx, "Interrupted", str(interrupt) or "interrupted; nothing was written.", INTERRUPTED)
            except MemoryError as error:
                self._fail_by_size(ctx, error)
            except OSError as error:
                where = f": {error.filename}" if error.filename else ""
                self.fail(ctx, type(error).__name__, f"{error.strerror or error}{where}.", FAILED)

            except (ValueError, OverflowError) as error:
                if not isinstance(error, OverflowError) and not any(text in str(error) for text in _TOO_BIG):
                    raise
                self._fail_by_size(ctx, error)

    @classmethod
    def _fail_by_size(cls, ctx, error):
        cls.fail(ctx, "MemoryError", f"not enough memory ({str(error).rstrip('.')}); choose fewer slices or a coarser "
                  "geometry.", FAILED)

    @staticmethod
    def fail(ctx, kind: str, message: str, code: int, as_json: bool | None = None):
        """End with a sentence on stderr, an object on stdout if JSON was asked for, and an exit code."""
        note(f"error: {message}")
        if ctx.params.get("as_json") if as_json is None else as_json:
            click.echo(json.dumps(_error_object(kind, message, code)))
        ctx.exit(code)


def command(name: str, *, example: str, **attributes):
    """Return a decorator that makes a `Command` whose help ends with an example, one command line per line."""
    return click.command(name, cls=Command, epilog="\b\nExample:\n" + "\n".join(f"  {line}" for line in
                                                                                 example.strip().splitlines()),
                         context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
                         **attributes)


def note(text: str) -> None:
    """Write one line to stderr."""
    click.echo(text, err=True)


def warn(texts) -> None:
    """Write each warning as one line to stderr, in the words of the command that is running."""
    ctx = click.get_current_context(silent=True)
    for text in texts:
        note(f"warning: {text if ctx is None else at_the_shell(text, ctx.command)}")


@contextlib.contextmanager
def usage_errors_in_json(arguments):
    """Print an error of click's as a JSON object too where the arguments ask for JSON, once; then let it through."""
    try:
        yield
    except click.ClickException as error:
        if "--json" in arguments and not getattr(error, "allpet_printed", False):
            kind = "UsageError" if isinstance(error, click.UsageError) else type(error).__name__
            click.echo(json.dumps(_error_object(kind, error.format_message(), error.exit_code)))
            error.allpet_printed = True
        raise


def finish(record: dict, lines: list[str], as_json: bool, quiet: bool = False) -> None:
    """Print the result: one JSON object, or lines for a reader who did not ask for quiet."""
    if as_json:
        click.echo(json.dumps(record))
    elif not quiet:
        click.echo("\n".join(lines))


def version() -> str:
    """Return the installed version of allpet, which stands in its package metadata alone."""
    try:
        return metadata.version("allpet")
    except metadata.PackageNotFoundError:
        return "not installed"


version_option = click.version_option(package_name="allpet", prog_name="allpet", message="%(prog)s %(version)s")


#: Options whose values identify a study or a moment of a patient's life; the record keeps that they were given.
_WITHHELD = ("series_uid", "injection_time", "scan_time")


def command_line(ctx) -> str:
    """Return the command as typed, with every path cut to its last part: folder names often carry patients' names.

    A series UID and times of day are withheld too.
    """
    withheld = {str(ctx.params[name]) for name in _WITHHELD if ctx.params.get(name) is not None}
    values = [v for value in ctx.params.values() for v in (value if isinstance(value, tuple) else (value,))]
    paths = {str(v): base_name(v) for v in values if isinstance(v, Path)}
    words = []
    for word in ctx.meta.get("allpet.arguments", []):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        name, is_pair, folder = value.partition("=")
        if is_pair and set(folder) & set("/\\"):  # NAME=DIR
            value = f"{name}={base_name(folder.rstrip('/'))}"
        # click turns the text into a Path, which drops a trailing slash.
        words.append(f"{option}{equals}{'(withheld)' if value in withheld else paths.get(str(Path(value)), value)}")
    return " ".join([ctx.command_path, *(f'"{w}"' if " " in w else w for w in words)])


def base_name(path) -> str:
    """Return the last part of a path, whatever the system it was typed on."""
    return Path(str(path).replace("\\", "/")).name


class Progress:
    """Progress on stderr: a bar with a named stage on a terminal, plain lines elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool = False):
        self.quiet, self.terminal = quiet, sys.stderr.isatty()

    def stage(self, name: str) -> None:
        """Name what is being done."""
        if not self.quiet:
            note(f"{name} ...")

    def __call__(self, items, stage: str, *, total: int | None = None, unit: str = "step"):
        """Yield from `items` under the name of a stage; `total` is their number where they have no length."""
        total = len(items) if total is None else total
        if self.quiet:
            yield from items
        elif self.terminal:
            from tqdm import tqdm

            yield from tqdm(items, desc=stage, total=total, unit=unit, file=sys.stderr, leave=True, dynamic_ncols=True)
        else:
            start = shown = time.monotonic()
            note(f"{stage} ...")
            for done, item in enumerate(items):
                if time.monotonic() - shown > _LINE_EVERY_S:
                    shown = time.monotonic()
                    note(f"{stage}: {done} of {total} {unit}s, {shown - start:.0f} s")
                yield item


@contextlib.contextmanager
def collected_warnings():
    """Yield a list that receives every UserWarning of the block as text, each once, instead of stderr."""
    texts = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        previous = warnings.showwarning

        def show(message, category, *args, **kwargs):
            if not issubclass(category, UserWarning):
                previous(message, category, *args, **kwargs)
            elif str(message) not in texts:
                texts.append(str(message))

        warnings.showwarning = show
        yield texts


def entry(click_command, name: str):
    """Return the function that a console script calls for a command."""
    @functools.wraps(entry)
    def main():
        _interrupts.stop_at_once()
        _end_cleanly_when_terminated()
        click_command(prog_name=name)
    return main


def _end_cleanly_when_terminated() -> None:
    """Let SIGTERM unwind like any other exit, so that temporary files are removed."""
    import signal

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _error_object(kind: str, message: str, code: int) -> dict:
    return {"error": kind, "message": message, "exit_code": code}
