"""Warnings of many texts, batches and methods: each kind once, with its count, whatever runs inside whatever."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import integrand as ig
from integrand.errors import FitnessWarning, IncompleteWarning
from integrand.integration.wrappers.base import RepeatedWarnings, warned_once
from tests.problems import tanh_mlp, wave

X = wave(6, 6)
SAME = {"method": "weighted", "baseline": [0.0, 0.0], "fill": 0.0, "target": "predicted"}
"""Two baselines that are one, which no fitness tells apart."""


def said(run: Callable[[], Any]) -> list[str]:
    """FitnessWarnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(warning.message) for warning in caught if warning.category is FitnessWarning]


def test_one_call_counts_its_examples() -> None:
    model = tanh_mlp()
    (told,) = said(lambda: ig.explain(model, X, **SAME))
    assert told.startswith("Fitness says nothing about 6 of 6 examples, first example 0: ")
    assert "result.reasons" in told
    (told,) = said(lambda: ig.explain(model, X[:1], **SAME))
    assert told.startswith("Fitness says nothing about example 0: ")


def test_batches_of_a_loader_and_of_a_folder(tmp_path: Path) -> None:
    model = tanh_mlp()
    loader: Any = DataLoader(X, batch_size=2)  # type: ignore[arg-type]
    for run in (
        lambda: ig.explain(model, loader, **SAME),
        lambda: ig.explain_batches(model, list(X.split(2)), out=tmp_path / "out", **SAME),
    ):
        told, counted = said(run)
        assert "about 2 of 2 examples, first example 0: " in told
        assert (
            counted
            == "Fitness says nothing about 2 of 2 examples, first example … (3 such warnings of single runs in all)"
        )
    assert not said(  # what is there is not explained again
        lambda: ig.explain_batches(
            model, list(X.split(2)), out=tmp_path / "out", resume=True, **SAME
        )
    )


def test_what_was_caught_is_told_when_a_later_batch_fails(tmp_path: Path) -> None:
    def batches() -> Iterator[torch.Tensor]:
        yield X[:2]
        yield X[2:4]
        raise OSError("the disk is gone")

    def run() -> None:
        with pytest.raises(OSError, match="the disk is gone"):
            ig.explain_batches(tanh_mlp(), batches(), out=tmp_path, **SAME)

    told, counted = said(run)
    assert "about 2 of 2 examples" in told
    assert "2 such warnings of single runs in all" in counted


def test_what_a_batch_warned_of_is_said_before_the_next_begins(tmp_path: Path) -> None:
    """Whatever stops the call then, a kill for one, cannot take it back."""
    told: list[list[str]] = []
    model = tanh_mlp()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def batches() -> Iterator[torch.Tensor]:
            for batch in X.split(2):
                told.append([str(w.message) for w in caught if w.category is FitnessWarning])
                yield batch

        ig.explain_batches(model, batches(), out=tmp_path, **SAME)
    assert [len(before) for before in told] == [0, 1, 1]
    assert "about 2 of 2 examples" in told[1][0]


def test_where_warnings_are_errors_the_batch_that_warned_is_kept(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FitnessWarning)
        with pytest.raises(FitnessWarning):
            ig.explain_batches(tanh_mlp(), X.split(2), out=tmp_path, **SAME)
    assert len(ig.load(tmp_path)) == 1


def test_a_comparison_of_several_methods() -> None:
    field = ig.TorchField(tanh_mlp(), 1)
    two = {
        name: ig.methods.weighted([0.0, 0.0], fill=0.0, keep=keep)
        for name, keep in (("one", 0.0), ("other", 0.5))
    }
    (told,) = said(lambda: ig.compare(field, X, methods=two, metrics=["complexity"]))
    assert "the first of 2 such warnings" in told


def test_counts_are_those_of_all_runs_however_they_are_nested() -> None:
    def runs() -> None:
        with warned_once():
            for _ in range(3):
                with warned_once():
                    for _ in range(4):
                        ig.errors.warn("odd", FitnessWarning)
                        ig.errors.warn("short", IncompleteWarning)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs()
        with RepeatedWarnings() as repeated:
            with repeated.collected():
                ig.errors.warn("alone", FitnessWarning)
            with repeated.collected():
                warnings.warn("of somebody else", UserWarning, stacklevel=1)
                warnings.warn("of somebody else", UserWarning, stacklevel=1)
            with repeated.collected():
                for _ in range(2):
                    ig.errors.warn("alone no more", FitnessWarning)
                ig.errors.warn("short again", IncompleteWarning)
    assert [str(warning.message) for warning in caught] == [
        "odd (the first of 12 such warnings of single runs)",
        "short (the first of 12 such warnings of single runs)",
        "alone",
        "of somebody else",
        "of somebody else",
        "short again",
        "alone (3 such warnings of single runs in all)",
    ]


def test_no_batches(tmp_path: Path) -> None:
    with pytest.raises(ig.errors.InputError, match="batches is empty"):
        ig.explain_batches(tanh_mlp(), [], out=tmp_path / "out", target=1)
    assert not list(tmp_path.iterdir())
