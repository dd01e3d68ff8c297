"""Model calls of a good size: found while working, made smaller when memory runs out, nothing lost and nothing done twice."""

from __future__ import annotations

import gc
import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.model.batching import BatchSizer, _Size, is_out_of_memory, packer_for
from tests.problems import Counting, Observed, filled, tanh_mlp, wave

ROW = torch.zeros(6)


class Clock:
    """A stopwatch that a test turns by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("integrand.model.batching.time.perf_counter", lambda: self.now)


def run(
    packer: ig.fields.BatchSizer, total: int, seconds: Any, clock: Clock, like: Tensor = ROW
) -> list[int]:
    """Work through ``total`` rows whose calls take ``seconds(rows)``; returns the sizes of the calls."""
    sizes: list[int] = []
    done: list[int] = []

    def call(part: slice) -> None:
        sizes.append(part.stop - part.start)
        done.extend(range(part.start, part.stop))
        clock.now += seconds(part.stop - part.start)

    packer.run(total, call, like, "gradient")
    assert done == list(range(total))
    return sizes


@pytest.mark.parametrize("best", [64, 256, 1024])
def test_the_best_size_is_found(best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time per row falls up to ``best`` rows and rises behind it."""
    monkeypatch.setattr("integrand.model.batching._START_ELEMENTS", 32 * 6)
    clock, packer = Clock(monkeypatch), ig.fields.BatchSizer()
    cost = lambda rows: rows * (1 + abs(torch.tensor(rows / best).log2().item()))  # noqa: E731
    sizes = run(packer, 100_000, cost, clock)
    assert packer.size(ROW, "gradient") == best
    assert sizes[0] == 32
    assert sizes[-2] == best
    # Another batch starts where this one ended.
    assert run(packer, 5 * best, cost, clock) == [best] * 5


def test_one_slow_call_is_not_the_end_of_the_climb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integrand.model.batching._START_ELEMENTS", 32 * 6)
    clock, packer = Clock(monkeypatch), ig.fields.BatchSizer()
    calls = 0

    def cost(rows: int) -> float:
        nonlocal calls
        calls += 1
        return 10 * rows if calls in (1, 4) else 100 + rows

    run(packer, 100_000, cost, clock)
    assert packer.size(ROW, "gradient") >= 4096


def test_sizes_are_known_per_kind_of_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integrand.model.batching._START_ELEMENTS", 32 * 6)
    clock, packer = Clock(monkeypatch), ig.fields.BatchSizer()
    run(packer, 10_000, lambda rows: rows + 1000, clock)
    assert packer.size(ROW, "gradient") > 32
    assert packer.size(ROW, "value") == 32
    assert packer.size(ROW.double(), "gradient") == 32
    assert packer.size(torch.zeros(3), "gradient") == 64


def test_no_call_is_larger_than_memory_is_likely_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU running out of memory is the end of the process, so there is a ceiling, however fast larger calls are."""
    monkeypatch.setattr("integrand.model.batching._START_ELEMENTS", 32 * 6)
    monkeypatch.setattr("integrand.model.batching._MOST_ON_CPU", 200 * 6)
    sizes = run(ig.fields.BatchSizer(), 10_000, lambda rows: 1.0, Clock(monkeypatch))
    assert max(sizes) == sizes[-2] == 200
    assert ig.fields.BatchSizer().size(torch.empty(1).expand(3, 4000, 4000), "gradient") == 1


def test_a_gpu_is_filled() -> None:
    """As many rows as the free memory allows by what the last call took, and never fewer than are known to fit."""
    size = _Size(rows=8, most=10_000)
    size.fill(8, used=1000, free=100_000)
    assert (size.rows, size.settled) == (int(8 * 0.7 * 100), False)
    size.fill(560, used=70_000, free=100_000)
    assert (size.rows, size.settled) == (560, True)
    size.fill(8, used=1, free=10**9)
    assert size.rows == 10_000


def test_a_fixed_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(ig.fields.BatchSizer(7), 30, lambda rows: 1.0, Clock(monkeypatch)) == [7, 7, 7, 7, 2]
    assert repr(ig.fields.BatchSizer(7)) == "BatchSizer(7)"
    with pytest.raises(ig.errors.InputError, match=r"at least one row, not 0"):
        ig.fields.BatchSizer(0)


def test_wholes_are_not_torn_apart_where_a_call_holds_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    call = lambda part: sizes.append(part.stop - part.start)  # noqa: E731
    ig.fields.BatchSizer(50).run(150, call, ROW, "gradient", whole=12)
    assert sizes == [48, 48, 48, 6]
    sizes.clear()
    ig.fields.BatchSizer(50).run(150, call, ROW, "gradient", whole=26)
    assert sizes == [50, 50, 50]


def test_work_too_little_for_the_next_size_is_done_at_the_best_one_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("integrand.model.batching._START_ELEMENTS", 32 * 6)
    clock, packer = Clock(monkeypatch), ig.fields.BatchSizer()
    cost = lambda rows: rows + 10  # noqa: E731
    assert run(packer, 250, cost, clock) == [32, 32, 64, 122]
    assert packer.size(ROW, "gradient") == 128
    assert run(packer, 100, cost, clock) == [64, 36]
    assert run(packer, 300, cost, clock)[0] == 128


def test_the_climb_ends_at_the_second_size_that_gains_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first is timed twice, for it may have been noise; the second is timed once, for it may be very slow."""
    monkeypatch.setattr("integrand.model.batching._START_ELEMENTS", 32 * 6)
    cost = lambda rows: rows * {32: 2.0, 64: 1.0, 128: 0.99}.get(rows, 5.0)  # noqa: E731
    packer = ig.fields.BatchSizer()
    sizes = run(packer, 1000, cost, Clock(monkeypatch))
    assert sizes[:7] == [32, 32, 64, 128, 128, 256, 64]
    assert packer.size(ROW, "gradient") == 64


# --- chords, of which each cut takes a row along again ----------------------------------------------------------------

PHOTO = torch.empty(1).expand(3, 224, 224)


def chords(
    packer: BatchSizer, total: int, seconds: Any, clock: Clock, like: Tensor = PHOTO
) -> list[int]:
    sizes: list[int] = []

    def call(part: slice) -> None:
        sizes.append(part.stop - part.start)
        clock.now += seconds(sizes[-1])

    packer.run(total, call, like, "chords")
    assert sum(sizes) == total
    return sizes


def test_chords_take_a_few_rows_however_fast_one_seems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four at first, then eight, though the time per row rises; gradients settle at one."""
    clock, packer = Clock(monkeypatch), BatchSizer()
    dear = lambda rows: float(rows) ** 1.5  # noqa: E731
    assert chords(packer, 60, dear, clock) == [4, 8, 8, 16, 8, 8, 8]
    assert chords(packer, 20, dear, clock) == [8, 8, 4]
    run(packer, 60, dear, clock, PHOTO)
    assert packer.size(PHOTO, "gradient") == 1


def test_chords_go_on_to_more_rows_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, packer = Clock(monkeypatch), BatchSizer()
    chords(packer, 300, lambda rows: rows + 100.0, clock)
    assert packer.size(PHOTO, "chords") == 27  # as many as a call may hold of this size
    assert (
        BatchSizer().size(torch.empty(1).expand(3, 16, 16), "chords") == 42
    )  # small rows begin as ever


def test_few_chords_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, packer = Clock(monkeypatch), BatchSizer()
    assert chords(packer, 3, float, clock) == [3]
    assert chords(packer, 4, float, clock) == [4]
    assert chords(packer, 5, float, clock) == [5]
    assert chords(packer, 7, float, clock) == [7]


def test_memory_makes_chords_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, packer, used = Clock(monkeypatch), BatchSizer(), [0]

    def call(part: slice) -> None:
        sizes.append(part.stop - part.start)
        used[0] = max(
            used[0], sizes[-1] << 26
        )  # 64 MiB a row: from four to eight the peak would rise by 512

    sizes: list[int] = []
    monkeypatch.setattr("integrand.model.batching.peak_memory", lambda: used[0])
    packer.run(20, call, PHOTO, "chords")
    assert sizes == [4] * 5
    # Rows so large that eight would be too much to begin with begin one by one.
    large = torch.empty(1).expand(3, 512, 512)
    assert chords(BatchSizer(), 20, lambda rows: rows + 1.0, clock, large)[:3] == [1, 2, 4]


def test_chords_that_ran_out_of_memory_stay_small() -> None:
    sizes: list[int] = []

    def call(part: slice) -> None:
        if part.stop - part.start > 3:
            raise ERRORS[0]
        sizes.append(part.stop - part.start)

    packer = BatchSizer()
    packer.run(20, call, PHOTO, "chords")
    assert sizes == [2] * 10
    assert packer.size(PHOTO, "chords") == 2


@pytest.mark.parametrize("first", ["few rows seem fast", "few rows seem slow"])
def test_few_rows_of_a_photograph_are_run_twice(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted where they reach the model, whatever the machine is busy with: an eighth, and the first calls."""
    net = filled(
        nn.Sequential(
            nn.Conv2d(3, 4, 5, 8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 3),
        )
    )
    clock, model = Clock(monkeypatch), Counting(net)
    model.register_forward_hook(
        lambda module, given, made: setattr(
            clock,
            "now",
            clock.now + (len(given[0]) ** 2.0 if first == "few rows seem fast" else 1.0),
        )
    )
    x = wave(3, 224, 224).reshape(1, 3, 224, 224)
    made = ig.Method(rule=ig.rules.Chords(96))(ig.TorchField(model, 0), x)
    assert made.cost.gradients == model.gradients
    assert 97 <= model.gradients <= 97 * 9 / 8 + 2


def test_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(ig.fields.BatchSizer(), 0, lambda rows: 1.0, Clock(monkeypatch)) == []


def test_what_was_learnt_stays_with_the_model() -> None:
    model, other = tanh_mlp(), tanh_mlp()
    one = ig.TorchField(model, 0)
    assert ig.TorchField(model, 1).packer is one.packer
    assert one.score().packer is one.packer
    assert ig.TorchField(other, 0).packer is not one.packer
    assert ig.TorchField(model, 0, batch_size=3).packer.rows == 3
    assert one.packer.rows is None


def test_models_are_not_kept_alive() -> None:
    from integrand.model import batching as packing

    model = tanh_mlp()
    ig.TorchField(model, 0)
    gc.collect()
    before = len(packing._PACKERS)
    del model
    gc.collect()
    assert len(packing._PACKERS) == before - 1
    assert isinstance(packer_for([].append, None), ig.fields.BatchSizer)


# --- out of memory ----------------------------------------------------------------------------------------------------


class Cramped(Observed):
    """A model that holds no more than ``most`` rows at a time."""

    def __init__(self, inner: nn.Module, most: int, error: Exception) -> None:
        super().__init__()
        self.inner, self.most, self.error = inner, most, error
        self.attempts: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.attempts.append(len(x))
        if len(x) > self.most:
            raise self.error
        return self.inner(x)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: f"{type(e).__name__}: {str(e)[-28:]}")
def test_out_of_memory_halves_and_goes_on(error: Exception, quiet: None) -> None:
    inner, x = tanh_mlp(), wave(5, 6)
    cramped, counted = Cramped(Counting(inner), 9, error), Counting(inner)
    options = dict(
        target=0, method="weighted", baseline=[0.0, 1.0], fill=0.0, rule=ig.rules.Midpoint(20)
    )
    small = ig.explain(cramped, x, batch_size=64, **options)
    large = ig.explain(counted, x, batch_size=64, **options)
    torch.testing.assert_close(small.values, large.values, rtol=0, atol=1e-14)
    assert small.fitness.tolist() == large.fitness.tolist()
    # First the scores of 5 inputs and of 5 fills, which fit. Then gradients of 10 rows per node: 64 make 6 nodes; 60, 30 and 15
    # rows do not fit, 7 do, two of which are asked again. What failed is the only work done twice, once for gradients and once for
    # values.
    assert cramped.attempts[:8] == [5, 5, 60, 30, 15, 7, 2, 7]
    assert (
        10 in cramped.attempts
    )  # the first round of the search: 2 references of 5 examples, which do not fit
    assert cramped.inner.gradients == counted.gradients == 5 * 2 * 20
    assert cramped.inner.values == counted.values
    assert small.cost.gradients == large.cost.gradients


@pytest.mark.filterwarnings("ignore::integrand.errors.SmallerCallsWarning")
def test_the_smaller_size_is_remembered() -> None:
    cramped = Cramped(tanh_mlp(), 9, ERRORS[0])
    field = ig.TorchField(cramped, 0, batch_size=64)
    field.gradient(wave(64, 6))
    cramped.attempts.clear()
    field.gradient(wave(64, 6))
    assert cramped.attempts == [8] * 8


@pytest.mark.filterwarnings("ignore::integrand.errors.SmallerCallsWarning")
def test_out_of_memory_halfway_through() -> None:
    """The first calls fit; what they found is kept, and only the rows that failed are taken again."""

    class Later(Observed):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Tensor] = []
            self.inner = tanh_mlp()

        def forward(self, x: Tensor) -> Tensor:
            if len(self.seen) >= 2 and len(x) > 4:
                raise ERRORS[0]
            self.seen.append(x.detach().clone())
            return self.inner(x)

    model, z = Later(), wave(40, 6)
    found = ig.TorchField(model, 0, batch_size=10).gradient(z)
    torch.testing.assert_close(found, ig.TorchField(model.inner, 0).gradient(z), rtol=0, atol=1e-14)
    assert torch.equal(torch.cat(model.seen), z)


def test_out_of_memory_in_a_descent(quiet: None) -> None:
    inner, x = tanh_mlp(), wave(4, 6)
    run = lambda model: ig.explain(  # noqa: E731
        model,
        x,
        target=0,
        method="ig2",
        baseline=wave(3, 6, phase=1),
        representation="inner.1",
        steps=4,
        batch_size=64,
    )
    small, large = run(Cramped(inner, 5, ERRORS[1])), run(Counting(inner))
    torch.testing.assert_close(small.values, large.values, rtol=0, atol=1e-14)


@pytest.mark.filterwarnings("ignore::integrand.errors.SmallerCallsWarning")
def test_a_single_row_that_does_not_fit() -> None:
    cramped = Cramped(tanh_mlp(), 0, ERRORS[1])
    with pytest.raises(
        ig.errors.ModelTooLarge,
        match=r"single row does not fit into memory\. .*torch said: .*can't allocate memory",
    ):
        ig.explain(cramped, wave(5, 6), target=0, batch_size=4)
    assert cramped.attempts == [4, 2, 1]
    assert cramped.inner.training is False


def test_other_errors_are_not_swallowed() -> None:
    cramped = Cramped(tanh_mlp(), 2, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match=r"mat1 and mat2"):
        ig.explain(cramped, wave(5, 6), target=0, batch_size=4)
    assert cramped.attempts == [
        4,
        4,
    ]  # with chords, whose fault it might be, and without; never with fewer rows
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(KeyboardInterrupt())


@pytest.mark.parametrize("best", [16, 2])
def test_no_call_is_tried_that_would_take_much_memory(
    monkeypatch: pytest.MonkeyPatch, best: int
) -> None:
    """On a CPU there is no error to back off from: the climb ends before a call raises the peak by a lot, at the best size so far."""
    used = 0

    def call(part: slice) -> None:
        nonlocal used
        sizes.append(part.stop - part.start)
        used = max(used, sizes[-1] << 25)  # 32 MiB a row
        # The larger, the faster per row, up to the best; from there on as slow as one by one.
        time.sleep(0.01 if sizes[-1] <= best else 0.01 * sizes[-1])

    sizes: list[int] = []
    monkeypatch.setattr("integrand.model.batching.peak_memory", lambda: used)
    BatchSizer().run(200, call, torch.zeros(1 << 15), "gradient")
    assert sum(sizes) == 200
    assert max(sizes) <= 16  # from 16 to 32 rows the peak would rise by 512 MiB
    assert max(sizes[-20:-1]) == best


@pytest.mark.parametrize(("gain", "largest"), [(0.95, 8), (0.85, 32)])
def test_a_lot_of_memory_is_spent_on_a_lot_of_time_only(
    gain: float, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From eight rows to sixteen the peak would rise by 128 MiB: not for a twentieth of the time. From 32 to 64, by 512: never."""
    clock, used, sizes = Clock(monkeypatch), 0, []

    def call(part: slice) -> None:
        nonlocal used
        rows = part.stop - part.start
        sizes.append(rows)
        used = max(used, rows << 24)  # 16 MiB a row
        clock.now += rows * gain ** math.log2(rows)  # a row's time falls with every doubling

    monkeypatch.setattr("integrand.model.batching.peak_memory", lambda: used)
    BatchSizer().run(400, call, torch.zeros(1 << 15), "gradient")
    assert sum(sizes) == 400
    assert max(sizes) == largest
