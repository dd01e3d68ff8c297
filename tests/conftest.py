"""Settings for every test: one thread, float64 by request, seeds as fixtures, hypothesis without a clock."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

import integrand as ig
from integrand.backprop.chords import ChordMode
from tests.pictures import coloured
from tests.problems import Observed

hypothesis.settings.register_profile(
    "integrand", deadline=None, derandomize=True, max_examples=25, database=None, print_blob=True
)
hypothesis.settings.load_profile("integrand")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--optimize",
        action="store_true",
        help="run every TorchField with optimize=True (see make test-optimized)",
    )


@pytest.fixture(autouse=True, scope="session")
def _optimized(request: pytest.FixtureRequest) -> Iterator[None]:
    """With ``--optimize``: the same tests, with a copy in the place of every model."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--optimize"):
            plain = ig.TorchField.__init__

            def optimized(self: ig.TorchField, model: Any, *args: Any, **options: Any) -> None:
                parts = model.modules() if isinstance(model, torch.nn.Module) else ()
                chosen = {"optimize": not any(isinstance(part, Observed) for part in parts)}
                with warnings.catch_warnings():
                    # Functions have no copy; their tests are run as they are.
                    warnings.simplefilter("ignore", ig.errors.OptimizeWarning)
                    plain(self, model, *args, **options | chosen)

            patch.setattr(ig.TorchField, "__init__", optimized)
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pictures_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a folder with three pictures, and the models of some code in toys.py, and works in
    it."""

    def made_with(code: str) -> Path:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "100")
        (tmp_path / "toys.py").write_text(code)
        (tmp_path / "many").mkdir()
        for channel, name in enumerate(("rose", "leaf", "sky")):
            coloured(tmp_path / "many" / f"{name}.png", channel)
        return tmp_path

    return made_with


@pytest.fixture(scope="session")
def shap() -> Any:
    """SHAP, its small functions as Python runs them: compiling these takes a quarter of a minute,
    and running them on what tests have next to nothing. What numba compiles of ours is compiled as
    before."""
    numba = pytest.importorskip("numba")
    before, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, True
    try:
        return pytest.importorskip("shap")
    finally:
        numba.config.DISABLE_JIT = before


@pytest.fixture(autouse=True)
def _strict_chords(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chord that fails is done without for users; here it fails the test."""
    monkeypatch.setattr(ChordMode, "strict", True)


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
