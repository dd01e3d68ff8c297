"""Draw docs/images/chelsea.png from what the command line saved.

integrand explain sample:chelsea --method integrated --method expected --method weighted --method ig2 --save --out DIR
python scripts/readme_picture.py DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import integrand as ig
from integrand.report.arrays import display_image, limit_of, pixel_map
from integrand.report.colours import overlay_rgb

METHODS = {
    "integrated": "Integrated Gradients",
    "expected": "Expected Gradients",
    "weighted": "Weighted Gradients",
    "ig2": "IG2",
}
CELL = 8  # signed sums over squares of this many pixels: single pixels are too fine for a page


def main(folder: Path) -> None:
    results = {
        title: ig.load(folder / f"chelsea-{name}.safetensors") for name, title in METHODS.items()
    }
    figure = Figure(figsize=(12.5, 2.95), layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(results) + 1)
    photograph = display_image(next(iter(results.values())), 0)
    axes[0].imshow(photograph)
    axes[0].set_title("the photograph", fontsize=10)
    axes[0].set_xlabel("tiger cat, 38 %", fontsize=9)
    for ax, (title, result) in zip(axes[1:], results.items(), strict=True):
        cells = np.kron(summed(pixel_map(result, 0)), np.ones((CELL, CELL)))
        ax.imshow(overlay_rgb(photograph, cells, limit_of([cells])))
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(
            f"residual {float(result.residual[0]):+.2f} of {float((result.output - result.base)[0]):.1f}",
            fontsize=9,
        )
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])
    figure.savefig("docs/images/chelsea.png", dpi=110)


def summed(values: np.ndarray) -> np.ndarray:
    """A map (H, W) summed over squares of CELL pixels."""
    rows, columns = values.shape
    return values.reshape(rows // CELL, CELL, columns // CELL, CELL).sum((1, 3))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
