"""Run every benchmark in a process of its own, and write docs/benchmarks.md, its figure and the table of the README."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from _measure import claim, show_figure, show_memory, show_others, show_time
from _record import read_record

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SCRIPTS = ("bench_block", "bench_catalogue", "bench_multimask", "bench_roi", "bench_joseph", "bench_strip",
           "bench_batch", "bench_osem", "bench_fbp", "bench_cohort", "bench_growth")
BEGIN, END = "<!-- speed: written by benchmarks/run_all.py -->", "<!-- end of speed -->"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=SCRIPTS, metavar="SCRIPT",
                        help="run these, and keep what is there of the others")
    parser.add_argument("--output", type=Path, default=ROOT / "bench_output", help="where the JSON goes")
    parser.add_argument("--root", type=Path, default=ROOT, help="whose docs and README are written")
    parser.add_argument("--libparallelproj", type=Path, metavar="PATH", help="its shared library, version 1 or 2")
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = arguments.root / "docs" / "images" / "benchmark_growth.png"
    failed = [name for name in SCRIPTS if name in arguments.only and not run(name, arguments, figure)]
    records = [read_record(parser, "output", path) for name in SCRIPTS
               if (path := arguments.output / f"{name}.json").exists()]
    write(records, arguments.root, figure)
    missed = [row["what"] for record in records for row in record["rows"] if row["met"] is False]
    print(f"\n{len(records)} of {len(SCRIPTS)} benchmarks, "
          f"{'every claim met' if not missed else 'claims not met: ' + '; '.join(missed)}")
    if failed:
        sys.exit(f"error: {', '.join(failed)} ended with an error")


def run(name, arguments, figure) -> bool:
    """Run one benchmark; its figures go to the output folder. Return whether it ended well."""
    command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(arguments.output / f"{name}.json")]
    if name == "bench_growth":
        command += ["--png", str(figure)]
    if arguments.libparallelproj:
        command += ["--libparallelproj", str(arguments.libparallelproj)]
    return subprocess.run(command, check=False, env={**os.environ, "PYTHONUNBUFFERED": "1"}).returncode == 0


def write(records: list[dict], root: Path, figure: Path) -> None:
    """Write docs/benchmarks.md, and the claims between the markers of README.md where it has them."""
    if not records:
        return
    document = root / "docs" / "benchmarks.md"
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text(page(records, figure.exists()))
    readme = root / "README.md"
    text = readme.read_text() if readme.exists() else ""
    if BEGIN in text and END in text:
        before, rest = text.split(BEGIN, 1)
        readme.write_text(f"{before}{BEGIN}\n{claims_table(records)}\n{machine_line(records)}\n{END}"
                          + rest.split(END, 1)[1])


def page(records: list[dict], with_figure: bool) -> str:
    """Return the Markdown page with every row, the machine and the remarks."""
    lines = [
        "# Benchmarks", "",
        "`make bench` runs every script of `benchmarks/` in a process of its own and writes this page; each also runs "
        "alone, as in `python benchmarks/bench_joseph.py`. In a script, ours and the peer take turns in one run, after "
        "one call each that is not timed; the times are medians, with the fastest and the slowest call. Absolute times "
        "move from machine to machine: compare ratios. ASTRA's own calls are timed, on data that stand in its memory "
        "already; its CPU kernels run on one thread, ours on all. A floor is the time to fill the same buffer with "
        "zeros by numpy, on one thread. The ratio is the peer's time over ours; beside a floor, ours over the floor's.",
        "",
        machine_line(records), "",
        "## What is claimed", "", claims_table(records), "",
    ]
    if with_figure:
        lines += ["## Growth", "", "![Times over image size, angles, blocks, batch](images/benchmark_growth.png)", ""]
    lines += ["## Every figure", ""]
    for record in records:
        if not record["rows"]:
            continue
        lines += [f"### {record['title']}", "", f"`{record['script']}.py`, {record['repeats']} rounds; "
                  f"{show_memory(record)}; {show_others(record)}.", "",
                  "| what | who | median | fastest to slowest | calls | ratio |", "|---|---|---|---|---|---|"]
        for row in record["rows"]:
            what = row["what"]
            for name, t in {"allpet": row["ours"], **row["also"], **row["others"]}.items():
                ratio = t["median"] / row["ours"]["median"]
                shown = "" if name == "allpet" else show_figure(
                    ratio if row["more_is_better"] else 1 / ratio, "×")
                lines.append(f"| {what} | {name} | {show_time(t['median'])} | {show_time(t['fastest'])} to "
                             f"{show_time(t['slowest'])} | {t['calls']} | {shown} |")
                what = ""
        lines += ["", *(f"- {remark}" for remark in record["remarks"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def claims_table(records: list[dict]) -> str:
    """Return the Markdown table of the rows with a claim."""
    lines = ["| what | allpet | against | ratio | claimed | |", "|---|---|---|---|---|---|"]
    for row in (row for record in records for row in record["rows"] if row["limit"] is not None):
        other = row["others"].get(row["against"])
        against = f"{row['against']}, {show_time(other['median'])}" if other else ""
        figure = "" if row["figure"] is None else show_figure(row["figure"], row["unit"])
        met = {True: "met", False: "**not met**", None: "not judged"}[row["met"]]
        lines.append(f"| {row['what']} | {show_time(row['ours']['median'])} | {against} | {figure} | {claim(row)} | "
                     f"{met} |")
    return "\n".join(lines)


def machine_line(records: list[dict]) -> str:
    """Return a sentence about where and with what the figures were taken."""
    m = records[-1]["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    return f"Taken on {m['date']}: {m['cpu']}, {m['cores']} cores, {m['system']}, Python {m['python']}, {versions}."


if __name__ == "__main__":
    main()
