"""Concurrent calls on one model are right for every method, in training mode too, and nothing is left changed.

Every published method is called from several threads at once, on models that share layers, and gives to the last bit what it
gives alone. Forked processes are not held up by a thread that is not there.
"""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.methods.registry import known
from integrand.model.turns import turn, undone
from tests.problems import filled, wave

IMAGES = [0.5 + 0.5 * wave(2, 3, 4, 4, phase=0.1 * i) for i in range(4)]
REFERENCES = 0.5 + 0.5 * wave(2, 3, 4, 4, phase=1)
TABLE = wave(8, 4, phase=0.2)
SENTENCES = [TABLE[torch.tensor([[i, 3, 5], [1, 2 + i, 7]])] for i in range(4)]
FEW = ig.rules.Midpoint(3)


def image_model() -> nn.Module:
    layers = (
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    return filled(nn.Sequential(*layers))


class Sentences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.last = nn.BatchNorm1d(3), nn.Dropout(0.3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.drop(self.norm(x))).sum(1))


class Codec(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.drop, self.up = nn.Linear(48, 5), nn.Dropout(0.3), nn.Linear(5, 48)

    def encode(self, x: Tensor) -> Tensor:
        return self.drop(self.down(x.flatten(1)))

    def decode(self, code: Tensor) -> Tensor:
        return torch.sigmoid(self.up(code)).reshape(-1, 3, 4, 4)


CODEC = filled(Codec())
DATA = 0.5 + 0.5 * wave(12, 3, 4, 4, phase=2)

OPTIONS: dict[str, dict[str, Any]] = {
    "integrated": {},
    "expected": {"baseline": REFERENCES, "draws": 4},
    "weighted": {"baseline": REFERENCES, "fill": 0.0, "rule": FEW},
    "ig2": {"baseline": REFERENCES, "steps": 3},
    "adversarial": {"count": 2, "steps": 3},
    "mfaba": {"steps": 3},
    "boundary": {"steps": 3},
    "guided": {"steps": 4},
    "samp": {"steps": 4, "fraction": 0.1},
    "blur": {"sigma": 2.0, "steps": 3},
    "spectral": {"steps": 4},
    "latent_guided": {"codec": CODEC, "steps": 3, "ends": 2},
    "latent": {"codec": CODEC, "steps": 3, "ends": 2, "rule": FEW},
    "manifold": {"codec": CODEC, "points": 4, "iterations": 3, "ends": 2, "rule": FEW},
    "geodesic": {"baseline": 0.5, "points": DATA, "neighbours": 3, "nodes": 2},
    "relaxed": {"corners": 3, "iterations": 2},
    "nonuniform": {"steps": 4, "pilot": 4},
    "idgi": {"steps": 4},
    "decision": {"steps": 4, "pilot": 4},
    "path_weighted": {"steps": 4},
    "path_sampled": {"steps": 4},
    "left": {"pilot": 4, "rule": FEW},
    "pattern_guided": {"rule": ig.rules.Right(3)},
    "geometric": {"steps": 3, "iterations": 2},
    "greedy_pig": {"rounds": 2, "rule": FEW, "features": "elements"},
    "smoothgrad": {"draws": 2, "rule": FEW},
    "xrai": {
        "rule": FEW,
        "segments": torch.arange(16).reshape(1, 4, 4) // 4,
        "least": 2,
        "dilation": 0,
    },
    "artificial_distancing": {
        "data": DATA,
        "classes": (0, 1),
        "epochs": 1,
        "rule": FEW,
        "distances": (1.0,),
    },
    "discretized": {"table": TABLE, "neighbours": 5, "steps": 3},
    "sequential": {"features": torch.arange(48).reshape(3, 4, 4) // 24, "rule": FEW},
    "layer": {"site": ["1", "2"], "rule": FEW},
    "conductance": {"site": "2", "steps": 3},
    "region_neurons": {"site": "2", "rule": FEW},
    "generalized": {"smooth": FEW},
    "baseline_shapley": {"permutations": 2},
    "graph": {"edges": torch.tensor([[0, 1], [1, 2]]), "node": 0},
}


def problem(method: str) -> tuple[nn.Module, list[Tensor], dict[str, Any]]:
    """A model, four batches of inputs, and options: cheap ones, in calls of fixed size so that sums are put together alike."""
    options = dict(OPTIONS[method])
    if method in ("discretized", "graph"):
        return filled(Sentences()), SENTENCES, options
    model = image_model()
    if method == "pattern_guided":
        options["patterns"] = ig.fields.Patterns.fit(model.eval(), DATA)
    return model, IMAGES, options


def explained(model: Any, x: Tensor, method: str, options: dict[str, Any]) -> Tensor:
    target = torch.tensor([0, 1])
    made = ig.explain(model, x, target=target, method=method, batch_size=16, **options).values
    return torch.cat([part.flatten() for part in made]) if isinstance(made, tuple) else made


def state(model: nn.Module) -> list[Any]:
    """Everything about a model that anybody could notice."""
    found: list[Any] = []
    for module in model.modules():
        hooks = (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
        found += [module.training, sorted(vars(module)), [list(kind.items()) for kind in hooks]]
        found += [
            (parameter.requires_grad, parameter.grad)
            for parameter in module._parameters.values()
            if parameter is not None
        ]
    found.append([buffer.tolist() for buffer in model.buffers()])
    buffer = io.BytesIO()
    torch.save(model, buffer)
    return found


def process() -> list[Any]:
    """Switches of the whole process."""
    cudnn, mha = torch.backends.cudnn, torch.backends.mha
    return [
        list(warnings.filters),
        cudnn.enabled,
        mha.get_fastpath_enabled(),
        torch.is_grad_enabled(),
    ]


@contextmanager
def hurried() -> Iterator[None]:
    """Threads are switched as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def at_once(jobs: list[Callable[[], Any]], seconds: float = 600) -> list[Any]:
    """All jobs in threads of their own, begun together; their results, or the first error."""
    begin = threading.Barrier(len(jobs))

    def started(job: Callable[[], Any]) -> Any:
        begin.wait()
        return job()

    with hurried(), ThreadPoolExecutor(len(jobs)) as pool:
        return [found.result(seconds) for found in [pool.submit(started, job) for job in jobs]]


def stress(method: str, training: bool, repetitions: int, threads: int, calls: int) -> None:
    model, inputs, options = problem(method)
    model.train(training)
    CODEC.train(training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        serial = [explained(model, x, method, options) for x in inputs]
        before, switches = state(model), process()

        def many(first: int) -> list[int]:
            """Which calls gave anything else."""
            wrong = []
            for call in range(calls):
                which = (first + call) % len(inputs)
                found = explained(model, inputs[which], method, options)
                if not torch.allclose(found, serial[which], rtol=0, atol=0, equal_nan=True):
                    wrong.append(call)
            return wrong

        for _ in range(repetitions):
            found = at_once([lambda first=first: many(first) for first in range(threads)])  # type: ignore[misc]
            assert found == [[]] * threads
        assert state(model) == before
        assert process() == switches


def test_every_method_has_its_options() -> None:
    assert set(OPTIONS) == set(known()) - {"gaussian_process"}  # it has no model that is lent


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("method", list(OPTIONS))
def test_every_method_from_three_threads(method: str, training: bool) -> None:
    stress(method, training, repetitions=1, threads=3, calls=1)


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("method", list(OPTIONS))
def test_every_method_sixteen_times_from_four_threads(method: str, training: bool) -> None:
    """16 × 4 × 20 calls of each, half of them on a model in training mode."""
    stress(method, training, repetitions=8, threads=4, calls=20)


# --- what models can share --------------------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_two_models_that_share_a_layer(silent: None) -> None:
    """One in eval mode, one in training mode, at the layer they have in common."""
    shared = filled(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))
    one = nn.Sequential(shared, nn.Tanh(), filled(nn.Linear(6, 3))).train()
    other = nn.Sequential(filled(nn.Linear(6, 6)), shared, nn.Sigmoid(), filled(nn.Linear(6, 3)))
    x = wave(3, 6)
    jobs = [
        lambda: ig.explain(one, x, target=1, method="layer", site=shared, batch_size=8).values,
        lambda: ig.explain(other, x, target=1, method="layer", site=shared, batch_size=8).values,
        lambda: ig.explain(lambda z: other(one[0](z)), x, target=1, batch_size=8).values,
    ]
    alone = [job() for job in jobs]
    before = state(one), state(other)
    for found in [at_once(jobs) for _ in range(10)]:
        assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))
    assert (state(one), state(other)) == before


def test_models_that_are_representations_of_one_another(silent: None) -> None:
    """Taken in opposite orders by two threads: nobody waits for ever."""
    a, b = (
        filled(nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.2), nn.Linear(5, 3))).train()
        for _ in range(2)
    )
    x, options = (
        wave(3, 6),
        {"method": "ig2", "baseline": wave(2, 6, phase=1), "steps": 4, "batch_size": 8},
    )
    jobs = [
        lambda: ig.explain(a, x, target=1, representation=b, **options).values,
        lambda: ig.explain(b, x, target=1, representation=a, **options).values,
    ]
    alone = [job() for job in jobs]
    for found in [at_once(jobs, 60) for _ in range(10)]:
        assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))


def test_one_field_and_one_method_for_all_threads(silent: None) -> None:
    model = image_model().train()
    field, method = ig.TorchField(model, 1, batch_size=16), ig.Layered("2", ig.methods.integrated())
    alone = [method(field, x).values for x in IMAGES]
    for _ in range(5):
        found = at_once([lambda x=x: method(field, x).values for x in IMAGES])  # type: ignore[misc]
        assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))
    assert all(module.training for module in model.modules())


def test_metrics_and_comparisons_beside_explanations(silent: None) -> None:
    model = image_model().train()
    made = ig.explain(model, IMAGES[0], target=1, batch_size=16)
    jobs = [
        lambda: ig.metrics.deletion(model, IMAGES[0], made, target=1, batch_size=16),
        lambda: (
            ig.explain(
                model, IMAGES[1], target=1, method="conductance", site="2", steps=3, batch_size=16
            ).values
        ),
        lambda: (
            ig.explain(
                model, IMAGES[2], target=1, method="smoothgrad", draws=3, batch_size=16
            ).values
        ),
    ]
    alone = [job() for job in jobs]
    before, switches = state(model), process()
    for found in [at_once(jobs) for _ in range(5)]:
        assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))
    assert state(model) == before
    assert process() == switches


def test_switches_of_the_process(silent: None) -> None:
    """Recurrent and attention layers in three threads at once: the last one gives cuDNN and the fused attention back."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 4, batch_first=True)
            self.attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.1)
            self.last = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.attention(self.gru(x)[0]).mean(1))

    for enabled in (True, False):
        torch.backends.mha.set_fastpath_enabled(enabled)
        try:
            before, model = process(), filled(Mixed()).train()
            jobs = [
                lambda x=x, m=model: ig.explain(m, x, target=1, batch_size=8).values
                for x in SENTENCES
            ]
            alone = [job() for job in jobs]
            assert process() == before
            assert all(
                torch.equal(one, other) for one, other in zip(at_once(jobs), alone, strict=True)
            )
            assert process() == before
        finally:
            torch.backends.mha.set_fastpath_enabled(True)


def test_borrowers_that_come_and_go_in_any_order() -> None:
    """Two fields of one model, made ready one in the other's time and let go in the order they came."""
    model = image_model().train()
    before = state(model)
    first, second = (ig.TorchField(model, 1).ready() for _ in range(2))
    with pytest.warns(ig.errors.TrainingModeWarning):
        first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    second.__exit__(None, None, None)
    assert state(model) == before


def test_an_error_in_one_thread_leaves_the_others_alone(silent: None) -> None:
    model = image_model().train()
    before, alone = state(model), ig.explain(model, IMAGES[0], target=1, batch_size=16).values

    def failing() -> bool:
        with pytest.raises(ZeroDivisionError):
            ig.explain(
                model, IMAGES[1], target=lambda out: out[:, 0] / 0 if 1 / 0 else None, batch_size=16
            )
        return True

    found = at_once(
        [lambda: ig.explain(model, IMAGES[0], target=1, batch_size=16).values, failing] * 3
    )
    assert all(torch.equal(one, alone) for one in found[::2])
    assert state(model) == before


def test_fields_and_models_are_copied_and_pickled(silent: None) -> None:
    model = image_model()
    field = ig.TorchField(model, 1)
    ig.methods.integrated()(field, IMAGES[0])
    for other in (copy.deepcopy(field), pickle.loads(pickle.dumps(field))):
        assert torch.equal(other.gradient(IMAGES[0]), field.gradient(IMAGES[0]))
    with field.ready():
        other_model = copy.deepcopy(model)
    assert torch.equal(other_model.eval()(IMAGES[0]), model.eval()(IMAGES[0]))


def test_models_are_not_kept_alive(silent: None) -> None:
    gc.collect()
    before = sum(isinstance(thing, nn.Conv2d) for thing in gc.get_objects())
    for _ in range(3):
        ig.explain(image_model().train(), IMAGES[0], target=1, method="layer", site="2")
    gc.collect()
    assert sum(isinstance(thing, nn.Conv2d) for thing in gc.get_objects()) == before


# --- processes --------------------------------------------------------------------------------------------------------


def in_a_child(job: Callable[[], bool], seconds: float = 60) -> bool:
    """What a forked process makes of a job; False where it does not come to an end."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # forking beside threads is what is tested
        child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if job() else 2
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_process_forked_while_another_thread_explains(silent: None) -> None:
    """Caught in the middle of a layer's forward pass, every layer patched and the lock held: the child has neither."""
    model = image_model().train()
    before, alone = (
        state(model),
        ig.explain(model, IMAGES[0], target=1, method="layer", site="2", batch_size=16).values,
    )
    inside, go_on = threading.Event(), threading.Event()

    class Waits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if threading.current_thread() is not threading.main_thread():
                inside.set()
                go_on.wait(60)
            return x

    waiting = nn.Sequential(*model, Waits()).train()
    thread = threading.Thread(
        target=lambda: ig.explain(waiting, IMAGES[0], target=1, method="layer", site="2")
    )
    thread.start()
    assert inside.wait(60)
    assert "forward" in vars(model[0])
    assert not model[0].training

    def job() -> bool:
        again = ig.explain(
            model, IMAGES[0], target=1, method="layer", site="2", batch_size=16
        ).values
        return torch.equal(again, alone) and state(model) == before

    try:
        assert in_a_child(job)
    finally:
        go_on.set()
        thread.join(60)
    assert state(model) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_process_forked_after_trees_were_walked(silent: None) -> None:
    """Compiled walks leave no pool of threads behind, which torch would wait for in the child."""
    tree = pytest.importorskip("sklearn.tree")
    rows = torch.arange(800.0).reshape(200, 4).double().sin()
    fitted = tree.DecisionTreeRegressor().fit(rows.numpy(), rows[:, 0].numpy())
    ig.explain(fitted, rows, target=ig.targets.Output())
    model = image_model()
    alone = ig.explain(model, IMAGES[0], target=1, batch_size=16).values

    def job() -> bool:
        again = ig.explain(model, IMAGES[0], target=1, batch_size=16).values
        return torch.equal(again, alone)

    assert in_a_child(job)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_process_forked_by_the_thread_that_explains(silent: None) -> None:
    """As a data loader's workers are, when a baseline draws from it: they may explain, in any of their threads."""
    model = image_model()
    alone = ig.explain(model, IMAGES[0], target=1, batch_size=16).values
    forked: list[bool] = []

    def job() -> bool:
        found = at_once([lambda: ig.explain(model, IMAGES[0], target=1, batch_size=16).values], 30)
        return torch.equal(found[0], alone)

    def progress(_: Any) -> None:
        if not forked:
            forked.append(in_a_child(job))

    made = ig.explain(model, IMAGES[0], target=1, batch_size=16, progress=progress)
    assert forked == [True]
    assert torch.equal(made.values, alone)


class Explained(torch.utils.data.Dataset[Tensor]):
    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> Tensor:
        return ig.explain(self.model, IMAGES[number], target=1, batch_size=16).values


def test_in_the_workers_of_a_data_loader(silent: None) -> None:
    model = image_model()
    alone = [ig.explain(model, x, target=1, batch_size=16).values for x in IMAGES]
    loader = torch.utils.data.DataLoader(Explained(model), batch_size=None, num_workers=2)
    assert all(torch.equal(one, other) for one, other in zip(loader, alone, strict=True))


# --- turns ------------------------------------------------------------------------------------------------------------


def test_turns_are_reentrant_and_exclude_one_another() -> None:
    inside: list[str] = []

    def other() -> None:
        with turn():
            inside.append("other")

    with turn(), turn():
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.05)
        inside.append("first")
    thread.join(10)
    assert inside == ["first", "other"]


def test_what_is_undone_is_undone_once_and_in_order() -> None:
    order: list[int] = []
    with (
        pytest.raises(KeyboardInterrupt),
        undone(lambda: order.append(1)),
        undone(lambda: order.append(2)),
    ):
        raise KeyboardInterrupt
    assert order == [2, 1]
