"""The code of the guide runs: every page from top to bottom, in a folder with the files that it names."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .physics.dicom_series import BQML_PER_SUV, write_series
from .physics.test_roi_files import two_segments, write_rtstruct, write_seg

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guide"
PAGES = sorted(path.relative_to(GUIDE).as_posix() for path in GUIDE.rglob("*.md"))
#: Runs the blocks of a page: Python in one namespace, commands by a shell that gives up at the first error.
DRIVER = """
import json, subprocess, sys
names = {"__name__": "__main__"}
for language, line, text in json.load(sys.stdin):
    print(f"--- line {line}", flush=True)
    if language == "python":
        exec(compile("\\n" * line + text, sys.argv[1], "exec"), names)
    else:
        subprocess.run(["sh", "-e", "-c", text], check=True)
"""


def blocks(page):
    """Return (language, line, text) of a page's blocks of Python and of commands; plain blocks are not to be run."""
    text = (GUIDE / page).read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```(python|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        body = match[2]
        if match[1] == "console":
            lines = body.splitlines()
            assert all(line.startswith("$ ") for line in lines), f"{page}: a line of commands must begin with '$ '"
            body = "\n".join(line[2:] for line in lines)
        found.append((match[1], text[:match.start()].count("\n") + 1, body))
    return found


def run(page, folder):
    """Run the blocks of a page in a folder."""
    # Small work on one thread: on a busy machine, threads that wait for each other make it many times slower.
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "NUMBA_NUM_THREADS": "1"}
    environment = threads | os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                                "MPLBACKEND": "Agg"}
    done = subprocess.run([sys.executable, "-c", DRIVER, page], cwd=folder, env=environment, text=True,
                          input=json.dumps(blocks(page)), capture_output=True, check=False)
    assert done.returncode == 0, f"{page}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files that the guide's own page makes, and DICOM such as a reader has."""
    folder = tmp_path_factory.mktemp("guide")
    run("files-to-try.md", folder)
    suv = np.full((6, 24, 24), 0.4)
    suv[2:4, 6:12, 14:20] = 5.0
    write_series(folder / "dicom" / "pet_folder", suv * BQML_PER_SUV, pixel_mm=(4.0, 4.0))
    regions = folder / "regions"
    regions.mkdir()
    write_seg(regions, two_segments(), ["GTV", "node"]).rename(regions / "segments.dcm")
    (regions / "pet").rename(regions / "pet_folder")
    first = sorted((regions / "pet_folder").glob("*.dcm"))
    write_rtstruct(regions / "structures.dcm", [(1, "GTV", square_on(first))])
    return folder


def square_on(paths):
    """Return a square contour in the plane of every slice of a series, LPS mm."""
    import pydicom

    contours = []
    for path in paths:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        row, column = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
        corner = np.array(header.ImagePositionPatient, float)
        contours.append([corner + along * row + down * column
                         for along, down in ((8, 8), (30, 8), (30, 30), (8, 30))])
    return contours


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page != "files-to-try.md" and blocks(page)])
def test_the_code_of_a_page_runs(page, files, tmp_path):
    inside = {"inputs/dicom.md": "dicom", "inputs/rtstruct-and-seg.md": "regions"}.get(page)
    for path in sorted((files / inside if inside else files).iterdir()):
        target = tmp_path / path.name
        shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target)
    run(page, tmp_path)


def test_every_page_on_an_input_or_a_task_has_code():
    for page in PAGES:
        if page.startswith(("inputs/", "tasks/")):
            assert blocks(page), page


def test_the_links_of_the_guide_lead_to_files_of_the_repository():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", (GUIDE / page).read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (GUIDE / page).parent.joinpath(target).is_file(), f"{page}: {target} leads nowhere"
                assert "made/" not in target, f"{page}: {target} is there only while the site is built"
