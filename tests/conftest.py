"""Settings for every test: one thread, float64 by request, seeds as fixtures, hypothesis without a clock."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import hypothesis
import pytest
import torch

import integrand as ig

hypothesis.settings.register_profile(
    "integrand", deadline=None, derandomize=True, max_examples=25, database=None, print_blob=True
)
hypothesis.settings.load_profile("integrand")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rng() -> torch.Generator:
    """Numbers for a test: the same on every run, drawn from nothing global."""
    return torch.Generator().manual_seed(20250607)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Lets Integrand's own warnings pass, for tests that are about numbers and not about warnings."""
    with _quiet():
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        yield
