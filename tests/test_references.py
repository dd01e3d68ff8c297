"""Numbers that published and peer implementations produce; see ../research for where each comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import integrand as ig
from tests.problems import T6_INPUT, img, img_input, shallow, t6

HERE = Path(__file__).parent / "references"
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


def case(name: str, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    with np.load(HERE / f"{name}.npz", allow_pickle=False) as file:
        found = {key: torch.from_numpy(file[key]) for key in file.files}
    return {key: t.to(dtype) if t.is_floating_point() and t.ndim else t for key, t in found.items()}


def explained(z: dict[str, Any], method: Any, batch_size: int | None = None) -> ig.Attribution:
    model = shallow(z["W"], z["V"])
    return ig.explain(
        model, z["x"][None], target=int(z["target"]), method=method, batch_size=batch_size
    )


def weighted(z: dict[str, Any], **options: Any) -> ig.Method:
    return ig.methods.weighted(z["baselines"], rule=ig.rules.Midpoint(20), **options)


def assert_near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["weighted_a", "weighted_b"])
@pytest.mark.parametrize("fill", ["corners", "the file's"])
def test_weighted(name: str, fill: str) -> None:
    z = case(name)
    made = explained(z, weighted(z, fill=z["fill"] if fill == "the file's" else fill))
    assert made.fitness is not None
    assert made.fitness[:, 0].tolist() == z["fitness"].tolist()
    assert_near(made.weights[:, 0], z["weights"], 1e-12)
    assert_near(made.shares[:, 0], z["per_baseline"], 1e-9)
    assert_near(made.values[0], z["values"], 1e-9)


@pytest.mark.parametrize("name", ["weighted_a", "weighted_b"])
def test_weighted_filtered(name: str) -> None:
    z = case(name)
    made = explained(z, weighted(z, keep=0.25))
    assert made.fitness is not None
    assert made.fitness[:, 0].tolist() == z["fitness"].tolist()
    assert_near(made.weights[:, 0], z["weights_filtered"], 1e-12)
    assert_near(made.values[0], z["values_filtered"], 1e-9)


def test_the_filter_drops_something_in_b() -> None:
    assert (case("weighted_b")["weights_filtered"] == 0).sum() == 1


def ig2(z: dict[str, Any], **options: Any) -> ig.Method:
    options = {"representation": "2"} | options
    clip = tuple(z["clip"].tolist())
    return ig.methods.ig2(
        z["references"], steps=int(z["steps"]), rate=float(z["rate"]), clip=clip, **options
    )


@pytest.mark.parametrize("name", ["ig2_a", "ig2_b"])
@pytest.mark.parametrize("representation", ["2", None], ids=["layer by name", "default"])
def test_ig2(name: str, representation: str | None, quiet: None) -> None:
    z = case(name)
    made = explained(z, ig2(z, representation=representation))
    assert_near(made.values[0], z["values"], 1e-9)
    assert_near(made.baselines[:, 0], z["ends"], 1e-9)


def test_a_number_for_the_rate_means_the_published_rule() -> None:
    published = ig2(case("ig2_a"))
    assert published.rule == ig.rules.Right()
    assert published.path.step == ig.paths.Fixed()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", ["weighted_a", "weighted_b", "ig2_a", "ig2_b"])
def test_precision_and_rows_per_call(
    name: str, dtype: torch.dtype, batch_size: int, quiet: None
) -> None:
    z = case(name, dtype)
    made = explained(z, weighted(z) if name.startswith("weighted") else ig2(z), batch_size)
    assert made.values.dtype == dtype
    assert_near(made.values[0], case(name)["values"], TOLERANCE[dtype])


PATHS = json.loads((HERE / "paths.json").read_text())
MIDPOINT = ig.methods.integrated(rule=ig.rules.Midpoint(50))


def test_integrated_t6() -> None:
    made = ig.explain(t6, T6_INPUT, target=ig.targets.Output(), method=MIDPOINT)
    assert_near(made.values[0], torch.tensor(PATHS["IG_T6_mid50"], dtype=torch.float64), 1e-9)
    assert_near(made.change[0], torch.tensor([PATHS["T6_dF"]], dtype=torch.float64), 1e-9)


@pytest.mark.parametrize(
    ("target", "key"),
    [(ig.targets.Logit(0), "IMG_dF_logit"), (ig.targets.Probability(0), "IMG_dF_prob")],
)
def test_integrated_img(target: ig.targets.Target, key: str) -> None:
    x = img_input()
    made = ig.explain(img, x, target=target, method=MIDPOINT)
    assert_near(made.change[0], torch.tensor([PATHS[key]], dtype=torch.float64), 1e-9)
    # The same sum, written out: x ⊙ the mean of ∇F at (q + ½)/50 · x.
    points = ((torch.arange(50, dtype=torch.float64) + 0.5) / 50)[:, None, None, None] * x
    points.requires_grad_()
    score = img(points)[:, 0] if "logit" in key else img(points).softmax(1)[:, 0]
    (gradient,) = torch.autograd.grad(score.sum(), points)
    assert_near(made.values, x * gradient.mean(0), 1e-12)
