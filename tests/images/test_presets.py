"""Recipes: every published method can be set up for a picture, and gets what its documentation says."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
import torch
from torch import nn

import integrand as ig
from integrand.cli import presets as recipes
from integrand.cli.presets import PresetInputs, method
from integrand.cli.supplies import Supplies
from integrand.errors import InputError, UnknownName
from integrand.images import ImageModel
from integrand.methods import known, registry

PHOTO = torch.full((3, 8, 8), 0.3)
POOL = torch.linspace(0, 1, 4 * 3 * 64).reshape(4, 3, 8, 8)


def network() -> nn.Module:
    """Places, a bend, three classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).eval()


def supplies(**changes: Any) -> Supplies:
    model = ImageModel("toy", network(), ig.Normalisation.unit(), 16)
    pictures = torch.rand(13, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        # Undecided between every two of its classes, over all of them.
        model.module[-1].bias -= model.module(pictures).median(0).values
        logits = model.module(pictures)
    return dataclasses.replace(
        Supplies(model, pictures[:1], 1, pictures[1:], logits[1:]), **changes
    )


def test_every_published_method_has_a_setting() -> None:
    given = supplies()
    recipes.check(recipes.every(), [])
    setting = PresetInputs(photo=given.pool[0], pool=given.pool, others=4, supplies=given)
    for name in recipes.every():
        assert callable(method(name, setting)), name
    assert set(recipes.every()) == set(known()) - {
        "discretized",
        "graph",
        "gaussian_process",
    }  # over words, of nodes, of processes


def test_what_differs_in_a_brief_setting_is_a_parameter_of_the_method() -> None:
    assert set(recipes.BRIEF) <= set(known())
    for name, options in recipes.BRIEF.items():
        assert set(options) <= set(inspect.signature(ig.methods.about(name).build).parameters), name


def test_brief_unless_asked_otherwise() -> None:
    assert method("guided", PresetInputs(brief=True)) == ig.methods.guided("black", 100)
    assert method("guided", PresetInputs(brief=True, nodes=7)) == ig.methods.guided("black", 7)
    assert method("guided", PresetInputs()) == ig.methods.guided("black")
    assert method("ig2", PresetInputs(pool=POOL, others=2, brief=True)).record == ()
    assert method("integrated", PresetInputs(brief=True)) == ig.methods.integrated("black")


def test_what_is_supplied_is_handed_on() -> None:
    given = supplies()
    setting = PresetInputs(supplies=given)
    assert method("latent", setting).path.codec is given.codec
    assert method("pattern_guided", setting).rule is given.patterns
    assert method("geodesic", setting).path.points is given.pool
    assert method("layer", setting).site == given.site
    made = method("artificial_distancing", setting)
    assert made.classes == given.classes
    assert made.method == ig.methods.integrated("black")
    assert recipes.supplied("artificial_distancing") == ("data", "classes")
    assert recipes.wants("layer") == "supplies"
    with pytest.raises(
        InputError,
        match=r"latent needs codec, which is made from other photographs, and there are none",
    ):
        method("latent", PresetInputs())


def test_methods_that_need_something_else_are_refused(monkeypatch) -> None:
    strange = dataclasses.replace(
        ig.methods.about("integrated"), name="strange", build=lambda tree, baseline=0.0: None
    )
    monkeypatch.setitem(registry._PUBLISHED, "strange", strange)
    with pytest.raises(
        InputError,
        match=r"strange needs tree, which pictures and a model do not give: in Python, ig.explain",
    ):
        recipes.check(["strange"], [])
    assert "strange" not in recipes.every()


def test_methods_around_a_method() -> None:
    assert method("smoothgrad", PresetInputs()) == ig.methods.smoothgrad(baseline="black")
    assert method("greedy_pig", PresetInputs(nodes=7)) == ig.methods.greedy_pig(
        baseline="black", rule=ig.rules.GaussLegendre(7)
    )
    assert method("xrai", PresetInputs()) == ig.methods.xrai()
    assert method("xrai", PresetInputs(baselines=("white",))) == ig.methods.xrai(baseline="white")
    # Pixel by pixel would be fifty thousand maps.
    assert method("sequential", PresetInputs(tol=0.1)) == ig.methods.sequential(
        features=recipes.PATCH, baseline="black", rule=ig.rules.Adaptive(0.1)
    )
    assert [recipes.wants(name) for name in ("smoothgrad", "greedy_pig", "xrai", "sequential")] == [
        None
    ] * 4
    assert recipes.wants("xrai", ["photo"]) == "photo"


def test_usual_baselines() -> None:
    assert method("integrated", PresetInputs()) == ig.methods.integrated("black")
    several = method("expected", PresetInputs(photo=PHOTO))
    field = ig.TorchField(nn.Linear(8, 2), 0, normalisation=ig.Normalisation.unit())
    references = several.baseline(torch.zeros(1, 3, 8, 8), field)
    assert references[:3, 0, 0, 0, 0].tolist() == [0.0, 1.0, 0.5]
    assert not torch.equal(references[3], references[4])  # two different noises
    assert torch.equal(references[5, 0], PHOTO)
    assert several.rule == ig.rules.GaussLegendre(50)
    assert method("expected", PresetInputs(photo=PHOTO, nodes=50)).rule == ig.rules.GaussLegendre(
        50
    )
    assert method("integrated", PresetInputs(tol=0.01)).rule == ig.rules.Adaptive(0.01)
    assert method("weighted", PresetInputs(photo=PHOTO)).baseline == several.baseline


def test_asked_for_baselines_and_nodes() -> None:
    setting = PresetInputs(baselines=("white", "-0.5"), nodes=7)
    assert method("integrated", setting).baseline.parts == (
        ig.baselines.white(),
        ig.baselines.Constant(-0.5, "-0.5"),
    )
    assert (
        method("weighted", setting).rule
        == method("integrated", setting).rule
        == ig.rules.GaussLegendre(7)
    )
    assert method(
        "integrated", PresetInputs(baselines=("0.25",))
    ).baseline == ig.baselines.Constant(0.25, "0.25")


def test_paths_that_go_in_steps() -> None:
    """Nodes are their steps; a tolerance is kept on each; else both are their own."""
    assert method("blur", PresetInputs()) == ig.methods.blur()
    assert method("spectral", PresetInputs()) == ig.methods.spectral("black")
    assert method("blur", PresetInputs(nodes=7)) == ig.methods.blur(steps=7)
    assert method("spectral", PresetInputs(tol=0.1)) == ig.methods.spectral(
        "black", rule=ig.rules.Adaptive(0.1)
    )


def test_ig2_takes_what_the_pool_offers() -> None:
    made = method("ig2", PresetInputs(pool=POOL, others=1, nodes=3))
    assert made.baseline == ig.baselines.Relevant(POOL, 1)
    assert made.rule == ig.rules.Simpson(3)
    assert made.record == ("path",)
    with pytest.raises(
        InputError, match="another class, and there are none: give some with --references"
    ):
        method("ig2", PresetInputs())
    with pytest.raises(InputError, match="there are none"):
        method("ig2", PresetInputs(pool=POOL, others=0))


def test_a_missing_photograph_is_left_out() -> None:
    assert len(method("weighted", PresetInputs()).baseline.parts) == 5
    with pytest.raises(InputError, match="no other photograph"):
        method("integrated", PresetInputs(baselines=("photo",)))


def test_what_methods_want() -> None:
    four = ("integrated", "expected", "weighted", "ig2")
    assert [recipes.wants(name) for name in four] == [None, "photo", "photo", "pool"]
    assert [recipes.wants(name, ["photo"]) for name in four] == ["photo", "photo", "photo", "pool"]
    assert [recipes.wants(name, ["black"]) for name in four] == [None, None, None, "pool"]


def test_unknown_names_are_refused_beforehand() -> None:
    recipes.check(["ig2"], ["photo", "noise", "1e-3"])
    with pytest.raises(UnknownName, match=r"method named 'ig3'. Did you mean 'ig2'"):
        recipes.check(["ig3"], [])
    with pytest.raises(UnknownName, match=r"baseline named 'blak'. Did you mean 'black'"):
        recipes.check([], ["blak"])
