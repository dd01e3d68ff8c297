"""Memory is flat in steps, for every path: what is alive at its most, with ten times as many.

Counted are the bytes of all tensors that torch makes while a method works, from when they are made until they are let go. Nothing
depends on the allocator, on the clock, or on what else the process holds.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import integrand as ig
from integrand.core.segment import Segment
from integrand.model.batching import BatchSizer
from tests.catalogue.paths import LONG, PATHS
from tests.problems import PROBLEMS, wave

SIZE = 32  # of pictures
STEPS = 12
GROWN = 1.2


class Alive(TorchDispatchMode):
    """The bytes of tensors made inside that are alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:  # a view
            return

        def gone(_: Any) -> None:
            del self.known[key]
            self.now -= size

        self.known[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


def most_alive(path: Any, rule: Any, size: int = SIZE) -> float:
    """The most that was alive while a map was made, in inputs."""
    x = wave(1, 3, size, size, phase=0.3).float()
    field = ig.TorchField(
        lambda z: torch.tanh(0.01 * z.flatten(1)).sum(1), ig.targets.Output(), batch_size=4
    )
    gc.collect()
    with Alive() as alive:
        made = ig.Method(ig.baselines.Constant(0.1), path, rule)(field, x)
    assert bool(torch.isfinite(made.values).all())
    return alive.most / x.nbytes


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of five pieces, so that a few dozen steps are many blocks; calls to codecs of four rows, whatever the clock says."""
    block = 5 * 3 * SIZE * SIZE
    monkeypatch.setattr("integrand.core.memory_budget._BLOCK_ELEMENTS", block)
    monkeypatch.setattr("integrand.paths.latent.legs._STACK_ELEMENTS", block)
    monkeypatch.setattr("integrand.paths.geodesic._STACK_ELEMENTS", block)
    monkeypatch.setattr(
        "integrand.paths.latent.autoencoder.packer_for", lambda *known: BatchSizer(4)
    )


LEFT, GAUSS = ig.rules.Left(), ig.rules.GaussLegendre(2)
PAIRS = [(name, ig.rules.IDGI()) for name in LONG] + [
    (name, rule) for name in ("Straight", "Guided") for rule in (LEFT, GAUSS)
]


def test_every_path_is_here() -> None:
    walked = {type(way.build(PROBLEMS["img"])).__name__ for way in PATHS.values()}
    assert set(LONG) == walked - {"ElasticBand"}


@pytest.mark.parametrize(("name", "rule"), PAIRS)
@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
@pytest.mark.usefixtures("small_blocks")
def test_memory_is_flat_in_steps(name: str, rule: Any) -> None:
    few, many = (most_alive(LONG[name](n, SIZE), rule) for n in (STEPS, 10 * STEPS))
    assert many <= GROWN * few


@pytest.mark.parametrize("name", ["Straight", "NonUniform", "Spectral"])
@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
def test_blocks_are_small_beside_photographs(name: str) -> None:
    """With blocks as they are: 30 and 300 steps to a picture of 224²."""
    few, many = (most_alive(LONG[name](n, 224), LEFT, 224) for n in (30, 300))
    assert many <= GROWN * few < 120


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
def test_a_relaxed_path_holds_its_corners_and_no_iterations() -> None:
    """All corners move together and are held; that is what its docstring says."""
    few, longer, more = (
        most_alive(ig.paths.ElasticBand(corners, 0.4, iterations), LEFT)
        for corners, iterations in ((6, 4), (6, 40), (60, 4))
    )
    assert longer <= GROWN * few
    assert more > 5 * few


class Hoarding(ig.paths.Straight):
    """Keeps its pieces."""

    def __call__(self, field: Any, start: Tensor, end: Tensor) -> Iterator[Segment]:
        kept = [
            Segment(torch.lerp(start, end, k / self.segments)[None], torch.lerp(start, end, (k + 1) / self.segments)[None],
                    (torch.tensor([k / self.segments]), torch.tensor([(k + 1) / self.segments])))
            for k in range(self.segments)
        ]  # fmt: skip
        yield from kept


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
def test_what_is_kept_is_seen() -> None:
    few, many = (most_alive(Hoarding(n), LEFT) for n in (STEPS, 10 * STEPS))
    assert many > 5 * few
    assert many > 2 * 10 * STEPS


def test_what_is_let_go_is_not_counted() -> None:
    with Alive() as alive:
        for _ in range(50):
            torch.zeros(1000).exp().sum()
        kept = torch.zeros(1000)[10:].exp()
    assert alive.most <= 3 * 4000
    assert alive.now == kept.nbytes
