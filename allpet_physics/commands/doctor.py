"""``allpet doctor``: what is installed, and whether it computes rightly."""

import click

from allpet_physics import _command_line as line


@line.command("doctor", short_help="Versions, threads, extras and a self-test.", example="""
allpet doctor --json""")
@line.json_option
@click.pass_context
def command(ctx, as_json):
    """Report versions, threads and extras, and test the projectors and FBP against an analytic disc.

    The exit code is 1 when the self-test fails.
    """
    from allpet_physics.doctor import diagnose

    report = diagnose()
    code = 0 if report["healthy"] else line.FAILED
    line.finish(report | {"exit_code": code}, _lines(report), as_json)
    ctx.exit(code)


def _lines(report: dict) -> list[str]:
    threads = report["threads"]
    lines = ["  ".join(f"{name} {version}" for name, version in report["versions"].items()),
             f"{report['system']}, {threads['processors']} processors, {threads['numba_threads']} threads "
             f"({threads['layer']})", ""]
    for name, extra in report["extras"].items():
        state = extra["version"] if extra["present"] else f"absent; {extra['install']}"
        lines.append(f"{name:<10} {state}  ({extra['for']})")
    lines.append("")
    for test in report["self_test"]:
        figures = test.get("problem") or f"error {test['error']:.2e}, at most {test['limit']:.0e}"
        lines.append(f"{'pass' if test['passed'] else 'FAIL'}  {test['name']}: {figures} ({test['seconds']:.2f} s)")
    return lines
