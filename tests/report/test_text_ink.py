"""Letters are read on every colour of a text: WCAG's contrast ratio is 4.5 or more."""

from __future__ import annotations

import numpy as np
import pytest

from integrand.report.colours import contrast, ink_on, signed_rgb


def test_contrast_by_hand() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.478, abs=1e-3)  # #777
    assert ink_on((255, 255, 200)) == (23, 25, 27)
    greys = [(level, level, level) for level in range(256)]
    assert min(contrast(ink_on(grey), grey) for grey in greys) >= 4.5


def test_letters_are_read_on_the_whole_scale() -> None:
    colours = signed_rgb([np.linspace(-1, 1, 201)], 1.0)[0].tolist()
    assert min(contrast(ink_on(tuple(c)), tuple(c)) for c in colours) >= 4.5
