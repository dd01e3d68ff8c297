"""All that weightings of one photograph may need, each found once: maps of its baselines, D under every fill, areas, outputs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import integrand as ig
from integrand.bench.problems import Problem
from integrand.compare.subset import Counts, Portion
from integrand.core.features import feature_map, feature_scores
from integrand.metrics import Subject
from integrand.task import Task

from .candidates import Evidence
from .judge import FILLS, IMPUTED, Judge, Predict, frozen

NODES = 12
CHUNK = 4
"""Rows of photographs in a call: their activations stay in the cache."""
SEEN = tuple(fill for fill in FILLS if fill != IMPUTED)
"""Fills that weightings may look at."""


@dataclass
class Cost:
    """What a piece of evidence took: CPU seconds of one thread, rows with a gradient, and rows without."""

    seconds: float = 0.0
    gradients: float = 0.0
    rows: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.gradients + other.gradients,
            self.rows + other.rows,
        )


@dataclass(eq=False)
class Photograph:
    """One photograph with the maps (R, C, H, W) of its baselines, and what is known of them.

    costs   by piece: "maps", "outputs", and "fitness, FILL" and "areas, FILL" for each fill
    facts   for the record: its class, and what the network says of it
    """

    judge: Judge
    shares: Tensor
    evidence: Evidence
    costs: dict[str, Cost]
    facts: dict[str, Any] = field(default_factory=dict)

    def map(self, weights: Tensor) -> Tensor:
        """The maps (M, C, H, W) of weights (M, R)."""
        return torch.einsum("mr,rchw->mchw", weights.to(self.shares), self.shares)


@contextmanager
def judging(problem: Problem, number: int, predict: Predict | None = None) -> Iterator[Judge]:
    """The judge of a photograph of the problem by its number, for the class predicted, while its
    network is fit to be asked."""
    x = problem.load([number]).x
    chunk = CHUNK if x.numel() > 10_000 else 128
    task = Task.of(
        problem.model,
        x,
        "predicted",
        normalisation=problem.normalisation,
        optimize=True,
        batch_size=chunk,
    )
    with Subject.ready(task) as subject:
        assert subject.field.target is not None
        target = int(subject.field.outputs(x).argmax(1))
        fills = {**FILLS, "blur": problem.words.get("blurred", FILLS["blur"])}
        yield Judge(subject, predict or frozen(problem.model, x), target, fills, chunk)


@contextmanager
def taken(
    problem: Problem,
    number: int,
    predict: Predict | None = None,
    *,
    seen: tuple[str, ...] = SEEN,
    nodes: int = NODES,
    scratch: Path | None = None,
    known: Mapping[str, Any] | None = None,
) -> Iterator[Photograph]:
    """A photograph of the problem by its number, while its network is fit to be asked.

    ``scratch``: a folder in which maps of baselines are kept, so that a second study need not integrate again.
    ``known``: what an earlier study wrote of this photograph, from which D and areas are taken.
    """
    with judging(problem, number, predict) as judge:
        subject, x = judge.subject, judge.subject.x
        costs: dict[str, Cost] = {}
        file = (
            None
            if scratch is None
            else scratch / f"{problem.ids[number].replace('/', '_')}-{nodes}.pt"
        )
        maps = _integrated(subject, problem.words["several"], nodes, file)
        baselines, shares = maps["baselines"], maps["shares"]
        costs["maps"] = Cost(float(maps["seconds"]), gradients=nodes * len(shares))
        with _spent(judge, costs, "outputs"):
            classes = judge.predict(x).shape[1]
            outputs = judge.score(baselines)
        fitness, removal, insertion = {}, {}, {}
        whole = subject.once("whole", lambda: judge.score(x))[0]
        for fill in seen:
            if known is not None:
                fitness[fill] = torch.tensor(known["fitness"][fill], dtype=torch.float64)
                removal[fill] = torch.tensor(known["removal"][fill])
                insertion[fill] = torch.tensor(known["insertion"][fill])
                continue
            fitness[fill] = _fitness(judge, shares, fill, costs)
            with _spent(judge, costs, f"areas, {fill}"):
                found_areas = judge.measured(shares, fill, "signed").values
            removal[fill] = found_areas["deletion"] / whole[1]
            insertion[fill] = found_areas["insertion"] / whole[1]
        scores = feature_scores(shares[:, None], feature_map("auto", x))[:, 0]
        evidence = Evidence(fitness, removal, insertion, outputs[:, 1], classes, scores)
        facts = {
            "class": judge.target,
            "logit": float(whole[0]),
            "probability": float(whole[1]),
            "logits of baselines": outputs[:, 0].tolist(),
            "gap": float(maps["gap"]),
        }
        yield Photograph(judge, shares, evidence, costs, facts)


def _integrated(
    subject: Subject, baselines: Any, nodes: int, file: Path | None
) -> dict[str, Tensor]:
    """Baselines and their maps (R, C, H, W), the gap of their mean, and the CPU seconds that took; read from ``file`` where that exists."""
    if file is not None and file.is_file():
        kept: dict[str, Tensor] = torch.load(file, weights_only=True)
        return kept
    began = time.process_time()
    method = ig.methods.expected(baselines, rule=ig.rules.GaussLegendre(nodes), record=("shares",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)  # the gap is noted
        found = method(subject.field, subject.x)
    assert found.shares is not None
    assert found.baselines is not None
    maps = {
        "baselines": found.baselines[:, 0].clone(),
        "shares": found.shares[:, 0].clone(),
        "gap": found.gap[0],
        "seconds": torch.tensor(time.process_time() - began),
    }
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(maps, file)
    return maps


def _fitness(judge: Judge, shares: Tensor, fill: str, costs: dict[str, Cost]) -> Tensor:
    """D (R,) as the library finds it, with one fill."""
    counts = Counts(1)
    counted = Portion(judge.subject.field, torch.zeros(1, dtype=torch.long), counts)
    began = time.process_time()
    weighing = ig.weightings.Fitness(judge.fills[fill]).prepared(judge.subject.x, counted)
    weighed = weighing(shares[:, None])
    costs[f"fitness, {fill}"] = Cost(time.process_time() - began, rows=float(counts.values[0]))
    assert weighed.fitness is not None
    return weighed.fitness[:, 0].double()


@contextmanager
def _spent(judge: Judge, costs: dict[str, Cost], name: str) -> Iterator[None]:
    began, rows = time.process_time(), judge.rows[0]
    yield
    costs[name] = Cost(time.process_time() - began, rows=judge.rows[0] - rows)
