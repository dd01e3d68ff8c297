"""Advice is about what the reader can do: every option that a message names is one, and takes what the message says."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch

import integrand as ig
from integrand.errors import IncompleteWarning, UnknownName
from integrand.methods.hints import _ALIASES, formal
from tests.problems import tanh_mlp, wave


def steep(z: torch.Tensor) -> torch.Tensor:
    """Smooth, and too steep for a few gradients."""
    return (40 * (z - 0.43)).tanh().sum(1) + (3 * z[:, 0] * z[:, 1]).sin()


def said(model: Any = steep, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ig.explain(model, 1 + wave(2, 4).abs(), target=ig.targets.Output(), **options)
    return [str(one.message) for one in caught if issubclass(one.category, IncompleteWarning)]


def test_more_gradients_are_asked_for_in_words_that_explain_takes() -> None:
    """The rule in the message is typed back in: it is accepted, and allows twice as many gradients."""
    (message,) = [
        one
        for one in said(rule=ig.rules.Adaptive(1e-7, max_gradients=40))
        if "did not reach" in one
    ]
    rule = re.search(r"rule=(ig\.rules\.Adaptive\([^)]*\))", message)
    assert rule is not None, message
    assert rule[1] == "ig.rules.Adaptive(1e-07, max_gradients=80)"
    again = said(rule=eval(rule[1]))
    assert "max_gradients=160" in " ".join(again)


def test_who_gave_a_tolerance_is_not_told_to_give_one() -> None:
    messages = said(lambda z: torch.floor(3 * z).sum(1), tol=0.01)
    assert any("miss more than a tenth" in one for one in messages)
    assert not [one for one in messages if "Ask for a tolerance" in one]
    assert any("Ask for a smaller tolerance than tol=0.01" in one for one in messages)
    fixed = said(rule=ig.rules.Left(2))
    assert any("Ask for a tolerance (tol=0.05) or more nodes" in one for one in fixed)


def test_steps_are_told_of_their_own() -> None:
    (message,) = said(method="guided", baseline=0.0, steps=4, rule=ig.rules.Left(1))
    assert (
        "Integrate each step with more nodes (rule=ig.rules.Simpson(2)), or take shorter steps."
        in message
    )
    many = " ".join(said(method="guided", baseline=0.0, steps=4, tol=1e-7))
    assert re.search(
        r"allow each more gradients \(rule=ig\.rules\.Adaptive\(1e-07, max_gradients=2000\)\)", many
    )


@pytest.mark.parametrize(
    ("method", "option", "value", "hint"),
    [
        ("integrated", "n_steps", 50, "rule=ig.rules.GaussLegendre(50)"),
        ("integrated", "n_steps", 7, "rule=ig.rules.GaussLegendre(7)"),
        ("guided", "n_steps", 30, "Say steps=30."),
        ("integrated", "baselines", 0, "Say baseline="),
        ("expected", "n_samples", 9, "Say draws=9."),
        ("integrated", "max_gradients", 5000, "rule=ig.rules.Adaptive(0.05, max_gradients=5000)"),
        ("integrated", "return_convergence_delta", True, "result.residual"),
        ("integrated", "internal_batch_size", 8, "batch_size="),
    ],
)
def test_options_of_other_libraries(method: str, option: str, value: Any, hint: str) -> None:
    with pytest.raises(UnknownName) as caught:
        ig.explain(tanh_mlp(), wave(2, 6), target=0, method=method, **{option: value})
    assert hint in str(caught.value)
    assert f"There is no option of method '{method}' named '{option}'." in str(caught.value)


def test_the_options_named_in_hints_are_options() -> None:
    ig.explain(
        tanh_mlp(), wave(2, 6), target=0, baseline=0.0, rule=ig.rules.GaussLegendre(7), batch_size=8
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IncompleteWarning)
        ig.explain(tanh_mlp(), wave(2, 6), target=0, method="guided", baseline=0.0, steps=3)
    ig.explain(tanh_mlp(), wave(2, 6), target=0, rule=ig.rules.Adaptive(0.05, max_gradients=5000))
    ig.explain(tanh_mlp(), wave(2, 6), target=0, tol=0.05)


def test_other_mistakes_still_name_what_is_near() -> None:
    with pytest.raises(UnknownName, match=r"named 'baselin'\. Did you mean 'baseline'"):
        ig.explain(tanh_mlp(), wave(2, 6), target=0, baselin=0)


@pytest.mark.parametrize(
    "name", ["gradcam", "Grad-CAM", "lime", "SHAP", "kernel_shap", "DeepLift", "occlusion", "LRP"]
)
def test_what_is_not_in_this_library_is_said_to_be_elsewhere(name: str) -> None:
    with pytest.raises(UnknownName, match=r"is not in this library") as caught:
        ig.explain(tanh_mlp(), wave(2, 6), target=0, method=name)
    assert "Did you mean" not in str(caught.value)


def test_aliases_are_names_of_methods() -> None:
    assert set(_ALIASES.values()) <= set(ig.methods.known())
    found = {name: formal(name) for name in ("IG", "EG", "WG", "AGI", "ig2", "Expected Gradients")}
    assert list(found.values()) == [
        "integrated",
        "expected",
        "weighted",
        "adversarial",
        "ig2",
        "expected",
    ]
    for one in ig.methods.known().values():  # no alias is the name or title of another method
        assert formal(one.name) == one.name
        assert formal(one.title) in (one.title, one.name)
    with pytest.raises(UnknownName, match=r"It goes by 'weighted'\."):
        ig.methods.about("WG")
