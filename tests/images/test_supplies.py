"""What methods need that a picture is not: made of other photographs, said so, and refused where they are too few."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import integrand as ig
from integrand.cli.patch_autoencoder import Patches
from integrand.cli.supplies import NAMES, Supplies
from integrand.errors import InputError, ModelError
from integrand.images import ImageModel
from tests.images.test_presets import supplies


def test_everything_is_made_once_and_told() -> None:
    given = supplies()
    for name in NAMES:
        assert given.of(name) is given.of(name)
    assert set(given.remarks) == {"codec", "patterns", "points", "classes", "site"}
    assert given.made_for(("data", "classes")) == given.remarks["classes"]
    assert given.made_for(()) == ""


def test_the_codec_is_the_best_linear_one_and_a_bend() -> None:
    """Principal components by hand: the bend must not spoil them where it was fitted."""
    waves = torch.linspace(0, 40, 6 * 3 * 32 * 32).sin().reshape(6, 3, 32, 32)
    pictures = waves.cumsum(3) / 8 + 0.3 * torch.rand(
        6, 3, 32, 32, generator=torch.Generator().manual_seed(0)
    )
    made = Patches.fit(pictures, codes=10)
    rows = pictures.reshape(6, 3, 4, 8, 4, 8).permute(0, 2, 4, 1, 3, 5).reshape(-1, 192)
    centred = rows - rows.mean(0)
    *_, directions = torch.linalg.svd(centred, full_matrices=False)
    first = directions[:10]
    linear = float(
        (centred @ first.T @ first - centred).norm() / (pictures - pictures.mean()).norm()
    )
    assert made.error(pictures) < linear * 1.0001
    straight = Patches.fit(pictures, codes=10)
    straight.outer.zero_()
    assert straight.error(pictures) == pytest.approx(linear, rel=1e-4)
    assert made.encode(pictures).shape == (6, 10, 4, 4)
    assert made.decode(made.encode(pictures)).shape == pictures.shape
    assert not any(parameter.requires_grad for parameter in made.parameters())
    assert torch.equal(made.outer, Patches.fit(pictures, codes=10).outer)


def test_fitting_leaves_the_global_generator_alone_and_minds_no_inference_mode() -> None:
    pictures = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    with torch.inference_mode():
        Patches.fit(pictures.clone())
    assert torch.equal(torch.get_rng_state(), before)


def test_patches_divide_the_picture() -> None:
    assert Patches.fit(torch.rand(2, 3, 21, 14)).side == 7
    with pytest.raises(InputError, match=r"11x13|11×13|11 x 13|\(11, 13\)|11"):
        Patches.fit(torch.rand(2, 3, 11, 13))


def test_latent_methods_run_on_it() -> None:
    given = supplies()
    made = ig.explain(
        given.model.module, given.x, target=1, method="latent", codec=given.codec, steps=4, tol=0.02
    )
    assert float(made.gap) < 0.05


def test_the_class_that_parts_the_photographs_most_evenly() -> None:
    logits = torch.tensor([[0.0, 1.0, -9.0]] * 6 + [[0.0, -1.0, -9.0]] * 6)
    given = dataclasses.replace(supplies(), logits=logits, target=0)
    given.model = ImageModel("fixed", nn.Sequential(nn.Flatten(), Fixed(logits)), size=16)
    assert given.classes == (0, 1)
    assert "class 1, which 12 of 24" in given.remarks["classes"]
    uneven = dataclasses.replace(given, target=2)
    with pytest.raises(InputError, match="No class parts the 24 photographs from class 2"):
        uneven.classes  # noqa: B018


class Fixed(nn.Module):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(x)] + 0 * x.sum(1, keepdim=True)


def test_the_site_is_the_last_layer_with_places() -> None:
    given = supplies()
    assert given.site == "0"  # what comes later has no parameters, or too few places
    assert given.remarks["site"] == "at 0, 4 channels of 16 × 16 places"
    flat = ImageModel("flat", nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), size=16)
    with pytest.raises(ModelError, match="'flat' has no layer with at least 12 × 12 places"):
        dataclasses.replace(given, model=flat).site  # noqa: B018


def test_too_few_photographs_are_said_to_be() -> None:
    given = supplies()
    lonely = dataclasses.replace(given, pool=given.pool[:1], logits=given.logits[:1])
    for name in ("codec", "patterns", "points", "data"):
        with pytest.raises(
            InputError, match=r"too few other photographs \(1\) to make .* --references"
        ):
            lonely.of(name)
    assert isinstance(lonely, Supplies)
