"""Recipes: what is read, what is refused, and what a fingerprint says."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrand.errors import InputError, IntegrandError
from integrand.run import Recipe
from integrand.run.recipe import differences

SMALLEST = """
[model]
import = "my.py:load"
[data]
kind = "npy"
path = "inputs.npy"
"""


def test_the_smallest_recipe_has_the_defaults_of_explain() -> None:
    recipe = Recipe.parsed(SMALLEST)
    assert (recipe.method.method, recipe.method.target) == ("integrated", None)
    assert recipe.store.rows_per_shard == 256
    assert recipe.model.import_ == "my.py:load"


def test_fingerprints_say_what_changes_a_number() -> None:
    recipe = Recipe.parsed(SMALLEST)
    reordered = Recipe.parsed("[data]" + SMALLEST.split("[data]")[1] + SMALLEST.split("[data]")[0])
    spelled_out = Recipe.of(json.loads(recipe.canonical))
    assert recipe.fingerprint == reordered.fingerprint == spelled_out.fingerprint
    other = Recipe.parsed(SMALLEST + "[method]\nseed = 1\n[store]\nrows_per_shard = 8")
    assert other.fingerprint != recipe.fingerprint
    assert differences(recipe, other) == ["method.seed", "store.rows_per_shard"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[model", "is no TOML"),
        ("", r"recipe: model is missing; data is missing\."),
        (SMALLEST + "[store]\nrows_per_shard = 0", "store.rows_per_shard: Input should be greater"),
        (SMALLEST + "[method]\nsed = 1", "method.sed is no entry of a recipe"),
        (SMALLEST + "[method]\ntol = -1", "method.tol"),
        (SMALLEST + '[method]\nseed = "x"', "method.seed"),
        (SMALLEST.replace('import = "my.py:load"', ""), "model: give import"),
        (SMALLEST.replace('"npy"', '"pickle"'), "data.kind: Input should be 'npy', 'zarr'"),
        (SMALLEST + "[store]\npool = 0", "store.pool"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Recipe.parsed(text)


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no recipe"):
        Recipe.read(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no text in UTF-8"):
        Recipe.read(tmp_path / "binary.toml")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip
sections = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries({}, optional={"import": json_like, "name": json_like}) | json_like,
        "data": st.fixed_dictionaries({"kind": st.just("npy") | json_like, "path": json_like}) | json_like,
    },
    optional={
        "method": st.dictionaries(st.sampled_from(["method", "target", "tol", "seed", "batch", "metrics", "x"]), json_like),
        "store": st.dictionaries(st.sampled_from(["rows_per_shard", "pool", "dtype", "channels"]), json_like),
    },
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(sections | json_like)
def test_any_document_is_a_recipe_or_an_error_of_ours(document: Any) -> None:
    try:
        recipe = Recipe.of(document)
    except IntegrandError:
        return
    assert Recipe.of(json.loads(recipe.canonical)).fingerprint == recipe.fingerprint


@settings(max_examples=400, deadline=None)
@given(st.text() | st.text().map(lambda text: SMALLEST + text))
def test_any_text_is_a_recipe_or_an_error_of_ours(text: str) -> None:
    with contextlib.suppress(IntegrandError):
        Recipe.parsed(text)
