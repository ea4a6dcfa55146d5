"""Contact sheets: as wide as their panels, with all of their text."""

import numpy as np
import pytest
from PIL import Image

from allpet_gen.pictures import Panel, contact_sheet, shown_half_width

from .tiny_pipeline import GEOMETRY, disc

TEXT = "What must be said of all panels of a sheet, in a sentence that is longer than a narrow sheet is wide."


def sheet(path, n, with_image=True, **options):
    """Return the greys of a sheet of n panels of one group."""
    image = disc(200.0).astype(float) if with_image else None
    panels = [Panel(np.ones(GEOMETRY.sinogram_shape), image, f"seed {i}", group="one") for i in range(n)]
    contact_sheet(path, panels, GEOMETRY, dpi=60, **options)
    return np.asarray(Image.open(path).convert("L"))


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_panels_fill_the_width_whatever_the_text(tmp_path, n):
    picture = sheet(tmp_path / "p.png", n, title="Title", subtitle=f"{TEXT} {TEXT}\n{TEXT}")
    height, width = picture.shape
    below = picture[height // 2:]  # where no text of the sheet is
    assert np.flatnonzero((below < 200).any(axis=0)).max() > 0.85 * width


def test_a_long_text_makes_a_sheet_higher_not_wider(tmp_path):
    none, short, long = (sheet(tmp_path / f"{k}.png", 3, subtitle=" ".join([TEXT] * k)) for k in (0, 1, 4))
    assert none.shape[1] == short.shape[1] == long.shape[1]
    assert none.shape[0] < short.shape[0] < long.shape[0]
    # All of the words are on it.
    ink = [(255.0 - picture).sum() for picture in (none, short, long)]
    assert ink[2] - ink[0] == pytest.approx(4 * (ink[1] - ink[0]), rel=0.1)


def test_a_single_image_stands_beside_its_sinogram(tmp_path):
    alone, below = sheet(tmp_path / "a.png", 1), sheet(tmp_path / "b.png", 1, beside=False)
    assert alone.shape[0] < 0.7 * below.shape[0]


def test_a_patient_is_shown_and_an_empty_rim_is_not():
    image = disc(100.0).astype(float)
    assert 100 < shown_half_width([image], GEOMETRY) < 200
    ring = disc(330.0) & ~disc(310.0)  # uncorrected randoms
    assert shown_half_width([image + ring], GEOMETRY) < 200
