"""A small dataset, and recipes over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

for package in ("pydantic", "zarr", "pyarrow"):
    pytest.importorskip(package)

from integrand.run import Recipe  # noqa: E402

MODELS = Path(__file__).parent / "models.py"


@pytest.fixture
def inputs(tmp_path: Path) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    np.save(tmp_path / "inputs.npy", rows)
    return rows


@pytest.fixture
def recipe(inputs: np.ndarray) -> Callable[..., Recipe]:
    def build(load: str = "load", **sections: dict[str, object]) -> Recipe:
        document: dict[str, dict[str, object]] = {
            "model": {"import": f"{MODELS}:{load}"},
            "data": {"kind": "npy", "path": "inputs.npy"},
            "method": {
                "method": "integrated(baseline=0.0, rule=GaussLegendre(8))",
                "target": "predicted",
                "batch": 8,
            },
            "store": {"rows_per_shard": 16},
        }
        for name, entries in sections.items():
            document[name] = {**document[name], **entries}
        return Recipe.of(document)

    return build
