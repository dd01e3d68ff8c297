"""Pictures for tests of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def coloured(file: Path, seed: int) -> None:
    """Write a picture of 24 x 20 pixels whose strongest channel is ``seed`` modulo three."""
    from PIL import Image

    numbers = np.random.default_rng(seed).integers(0, 120, (20, 24, 3), dtype=np.uint8)
    numbers[:, :, seed % 3] += 100
    Image.fromarray(numbers).save(file)
