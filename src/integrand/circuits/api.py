"""``edges``, ``nodes``, ``activation_patching`` and ``faithfulness``: from a model and pairs of prompts to
circuits, and to how faithful they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..backprop.modified import BackwardRule
from ..backprop.modified.base import During
from ..core.options import check_choice, whole
from ..core.random import generator
from ..errors import InputError
from ..integration.cost import Cost, peak_of
from ..integration.running_mean import RunningMean
from ..model.autograd import gradients
from ..model.batching import is_out_of_memory, make_room, warn_of_smaller_calls
from ..model.borrowed import borrowed
from ..rules.quadrature import GaussLegendre, Quadrature, Right
from ..text.models import ModelLike, TokenizerLike, language_model
from .architectures import Architecture, Decoder, decoder_of
from .graph import CircuitGraph
from .pairs import Group, Metric, Pairs, Prompts, in_words, pairs_of
from .patching import patched_values
from .result import Circuit, Completeness, FaithfulnessCurve, NodeScores
from .scoring import (
    Contrast,
    Count,
    PathNodes,
    along,
    branches_of,
    check_finite,
    contrast_of,
    edge_scores,
    node_scores,
)
from .stream import INPUT, Branch, Matrices, check_readers, check_stream, recorded

EAP = "eap"
INPUTS = "eap-ig-inputs"
ACTIVATIONS = "eap-ig-activations"
EXACT = "exact"
METHODS = (INPUTS, EAP, ACTIVATIONS, EXACT)

_FRACTIONS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
T = TypeVar("T")

_MASKS = 2**24  # numbers in sets of edges that are held at once


def edges(
    model: ModelLike,
    clean: Prompts,
    corrupt: Prompts,
    *,
    metric: Metric,
    tokenizer: TokenizerLike | None = None,
    method: str = INPUTS,
    steps: int = 10,
    rule: Quadrature | None = None,
    backward: BackwardRule | None = None,
    architecture: Architecture | None = None,
    batch_size: int = 8,
) -> Circuit:
    """Score every edge of a decoder: what it carries of F(clean) − F(corrupt).

        score(u → v) = Σ_td (s_u(clean) − s_u(corrupt))_td ∫₀¹ ∂F/∂r_v,td(α) dα

    s_u is what node u writes into the residual stream, r_v what node v reads of it. Positive scores
    raise F. Queries, keys and values of a head read the stream as nodes of their own; with grouped
    queries, keys and values are those of key-value heads (``a3.kv0<k>``). Behind the norms of Gemma
    2 and 3 a head writes what the norm makes of it at the scale that it has there.

    What adds up: of "eap-ig-inputs" the edges that leave the input, to F(clean) − F(corrupt), and
    nothing else; of "eap-ig-activations" those that leave the heads of a layer, an MLP or the
    input, to what F loses where all that these write is corrupt. ``completeness`` states both
    sides, and ``gap`` the worst of them.

    Args:
        model: a causal language model of Hugging Face, or its local folder. It is given back as it
            was.
        clean: a prompt or several, texts or token ids (T), (B, T), or lists of them, without
            padding.
        corrupt: as many, each of as many tokens as its clean one.
        metric: F. ``ig.text.NextToken(…, against=…)``, ``Continuation`` or ``Span`` (read off the
            clean prompt; or a list, one for each pair), an ``ig.targets`` value, or a function of
            the logits (N, T, V) of N rows that returns N numbers. Rows are not all pairs at once:
            what differs between pairs goes into ``ig.targets.Custom(function, data)``.
        tokenizer: for prompts in words; that in the model's folder unless given.
        method: "eap-ig-inputs" moves the input of the first block from corrupt to clean; "eap" is
            one gradient, at the clean prompt; "eap-ig-activations" moves what the heads of a layer,
            or an MLP, write, one after the other, with everything before them clean; "exact"
            patches every edge by itself.
        steps: gradients on each path, at the nodes of a Gauss–Legendre rule.
        rule: another rule with fixed nodes, in its place, such as ``ig.rules.Left(5)``.
        backward: a rule that gradients follow, such as ``ig.fields.FrozenNorm()`` or
            ``ig.fields.SoftmaxTemperature(2.0)``: nothing adds up then, and the gap says by how
            much.
        architecture: which modules write and read the stream, where the model is of a kind that is
            not known.
        batch_size: rows a model call, at most.

    Returns:
        A ``Circuit``: scores of edges and nodes in units of F, the mean over pairs with its
        standard error, the gap, and the estimated error.

    Raises:
        IntegrandError: one of the tree in ``integrand.errors``.

    Cost:
        for each pair 2 forward passes and ``steps`` gradients; 1 of "eap"; ``steps`` × (2 L + 1) of
        "eap-ig-activations" with L layers; of "exact" a forward pass for each edge.

    References:
        Hanna, Pezzelle, Belinkov, "Have Faith in Faithfulness", COLM 2024 (arXiv 2403.17806), whose
        scores have the other sign; "eap": Syed, Rager, Conmy 2023 (arXiv 2310.10348).

    Example:
        >>> import torch, transformers, integrand as ig
        >>> config = transformers.GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2)
        >>> model = transformers.GPT2LMHeadModel(config).eval()
        >>> circuit = ig.circuits.edges(
        ...     model, [1, 2, 3], [1, 5, 3], metric=lambda logits: logits[:, -1, 4]
        ... )
        >>> len(circuit.edges), circuit.completeness[0].nodes
        (13, 'input')
    """
    job = job_of(model, clean, corrupt, metric, tokenizer, architecture, batch_size)
    job.follow(backward, method)
    scores, nodes = _MeanOverPairs(), _MeanOverPairs()
    with job.running():
        estimates = _RuleDifference()
        for _, both in job.each(lambda contrast: _edges_of(contrast, job, method, steps, rule)):
            scores.add(both[0])
            nodes.add(both[0].sum(-1))
            estimates.add(both)
        return Circuit(
            **job.stated(method, steps, rule, estimates.error(method)),
            node_scores=nodes.mean,
            node_standard_error=nodes.standard_error,
            scores=scores.mean,
            standard_error=scores.standard_error,
        )


def nodes(
    model: ModelLike,
    clean: Prompts,
    corrupt: Prompts,
    *,
    metric: Metric,
    tokenizer: TokenizerLike | None = None,
    method: str = INPUTS,
    steps: int = 10,
    rule: Quadrature | None = None,
    backward: BackwardRule | None = None,
    architecture: Architecture | None = None,
    batch_size: int = 8,
) -> NodeScores:
    """Score every head, every MLP and the input: what it carries of F(clean) − F(corrupt).

        score(u) = Σ_td (s_u(clean) − s_u(corrupt))_td ∫₀¹ ∂F/∂s_u,td(α) dα  =  Σ_v score(u → v)

    The same numbers as ``edges(…).node_scores``, for less: readers are not told apart. "exact"
    patches every node by itself, which is more than the sum of its edges patched one by one.

    Args:
        model: as in ``edges``, and so are all others.
        clean: see there.
        corrupt: see there.
        metric: see there.
        tokenizer: see there.
        method: see there.
        steps: see there.
        rule: see there.
        backward: see there.
        architecture: see there.
        batch_size: see there.

    Returns:
        ``NodeScores``: in units of F, the mean over pairs with its standard error, the gap, and the
        estimated error.

    Raises:
        IntegrandError: one of the tree in ``integrand.errors``.

    Cost:
        that of ``edges``, without the sums over readers; of "exact" a forward pass for each node.
    """
    job = job_of(model, clean, corrupt, metric, tokenizer, architecture, batch_size)
    job.follow(backward, method)
    scores, estimates = _MeanOverPairs(), _RuleDifference()
    with job.running():
        for _, both in job.each(lambda contrast: _nodes_of(contrast, job, method, steps, rule)):
            scores.add(both[0])
            estimates.add(both)
        return NodeScores(
            **job.stated(method, steps, rule, estimates.error(method)),
            node_scores=scores.mean,
            node_standard_error=scores.standard_error,
        )


def activation_patching(
    model: ModelLike,
    clean: Prompts,
    corrupt: Prompts,
    edges: Sequence[tuple[str, str]],
    *,
    metric: Metric,
    tokenizer: TokenizerLike | None = None,
    architecture: Architecture | None = None,
    batch_size: int = 8,
) -> Tensor:
    """What F really loses where single edges carry what they carry for the corrupt prompt.

        F(clean) − F(clean, v reads s_u(corrupt) in place of s_u),  everything behind v following

    This is what scores of edges estimate, and the truth to hold them against.

    Args:
        model: as in ``ig.circuits.edges``.
        clean: see there.
        corrupt: see there.
        edges: pairs of names (source, sink), such as ("a0.h1", "m1"); ``circuit.top(20)`` does,
            too.
        metric: as in ``ig.circuits.edges``.
        tokenizer: see there.
        architecture: see there.
        batch_size: see there.

    Returns:
        (E, P) one number for each edge and pair, in units of F.

    Raises:
        UnknownName: for an edge that there is not.
        InputError: for edges that are no pairs of names.

    Cost:
        E + 2 forward passes for each pair.
    """
    job = job_of(model, clean, corrupt, metric, tokenizer, architecture, batch_size)
    places = [job.graph.edge(source, sink) for source, sink in _pairs_of_names(edges)]
    with job.running():
        losses = torch.zeros(len(places), job.pairs.count, dtype=torch.float64)
        for contrast, lost in job.each(lambda contrast: _losses(contrast, job, places)):
            losses[:, contrast.group.numbers] = lost
    return losses


def _pairs_of_names(edges: Iterable[object]) -> Iterator[tuple[str, str]]:
    """(source, sink) of each edge; those of ``circuit.top`` have a score behind them."""
    for edge in [edges] if isinstance(edges, str) else edges:
        if isinstance(edge, str) or not isinstance(edge, Sequence) or len(edge) < 2:
            raise InputError(
                f"edges= takes pairs of names (source, sink), such as [('a0.h1', 'm1')], not {edge!r}."
            )
        yield edge[0], edge[1]


def faithfulness(
    model: ModelLike,
    clean: Prompts,
    corrupt: Prompts,
    circuit: Circuit,
    *,
    metric: Metric,
    counts: Sequence[int] | None = None,
    draws: int = 3,
    seed: int = 0,
    tokenizer: TokenizerLike | None = None,
    architecture: Architecture | None = None,
    batch_size: int = 8,
) -> FaithfulnessCurve:
    """How much of F(clean) − F(corrupt) the strongest edges of a circuit keep, beside random ones.

        (F(kept) − F(corrupt)) / (F(clean) − F(corrupt)),  each F a mean over pairs

    All edges that are not kept carry what they carry for the corrupt prompt.

    Args:
        model: as in ``ig.circuits.edges``.
        clean: see there; other pairs than those that the circuit was found with say more.
        corrupt: see there.
        circuit: whose edges are kept, in the order of |score|.
        metric: as in ``ig.circuits.edges``.
        counts: how many edges are kept; shares from a thousandth to all unless given.
        draws: how often as many edges are drawn by chance.
        seed: of the draws.
        tokenizer: as in ``ig.circuits.edges``.
        architecture: see there.
        batch_size: see there.

    Returns:
        ``FaithfulnessCurve``: both curves, and the areas under them.

    Raises:
        InputError: where F of the corrupt prompts is that of the clean ones, and for a circuit of
            another model.

    Cost:
        (1 + draws) forward passes for each count and pair, and 2 for each pair.
    """
    job = job_of(model, clean, corrupt, metric, tokenizer, architecture, batch_size)
    _check_circuit(circuit, job)
    total = job.graph.edge_count
    kept_counts = _kept_counts(counts, total)
    masks = [circuit.mask(count) for count in kept_counts]
    rng = generator(seed)
    for _ in range(whole("draws", draws, least=0)):
        order = torch.randperm(total, generator=rng)
        masks += [_drawn(job.graph, order[:count]) for count in kept_counts]
    kept = torch.stack(masks)
    with job.running():
        left = torch.zeros(len(masks), dtype=torch.float64)
        for _, values in job.each(lambda some: patched_values(some, kept, job.batch_size)):
            left += values.sum(1)
        left /= job.pairs.count
        clean_mean, corrupt_mean = job.values.mean(1)
        if clean_mean == corrupt_mean:
            raise InputError(
                "F of the corrupt prompts is that of the clean ones: there is no change that a circuit could keep."
            )
        curves = ((left - corrupt_mean) / (clean_mean - corrupt_mean)).reshape(-1, len(kept_counts))
    return FaithfulnessCurve(tuple(kept_counts), curves[0], curves[1:], total, job.cost())


def _check_circuit(circuit: object, job: CircuitJob) -> None:
    """Check that what was handed in is a circuit of the model."""
    if not isinstance(circuit, Circuit):
        raise InputError(
            f"A circuit has scores of edges, and a {type(circuit).__name__} has none: give what ig.circuits.edges returns."
        )
    if circuit.graph != job.graph:
        raise InputError(
            f"The circuit is one of {circuit.graph}, and {job.decoder.model.name} has {job.graph}."
        )


def _kept_counts(counts: Iterable[int] | None, total: int) -> list[int]:
    """How many edges are kept, in order and each once."""
    shares = dict.fromkeys(round(share * total) for share in _FRACTIONS)
    if not isinstance(counts, Iterable | None):
        raise InputError(f"counts= says how many edges are kept, as a list: give [{counts!r}].")
    given = [whole("counts", n, least=0) for n in (shares if counts is None else counts)]
    if not given:
        raise InputError("counts= is empty: say how many edges are kept, once at least.")
    return sorted({min(count, total) for count in given})


def _drawn(graph: CircuitGraph, chosen: Tensor) -> Tensor:
    mask = torch.zeros_like(graph.edges)
    places = graph.edges.nonzero()[chosen]
    mask[places[:, 0], places[:, 1]] = True
    return mask


# --- the work ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class CircuitJob:
    """Pairs that a model is asked about, and what has been measured so far.

    Attributes:
        values: (2, P) F of the clean and of the corrupt prompts.
        changes: for each branch whose scores are complete, what F loses and what they add up to,
            sums over pairs.
    """

    decoder: Decoder
    graph: CircuitGraph
    pairs: Pairs
    batch_size: int
    count: Count = field(default_factory=Count)
    changes: dict[Branch, tuple[float, float]] = field(default_factory=dict)
    backward: BackwardRule | None = None
    during: During = nullcontext
    began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.values = torch.zeros(2, self.pairs.count, dtype=torch.float64)
        self.matrices = Matrices(self.decoder)
        self._checked = False

    def follow(self, backward: BackwardRule | None, method: str) -> None:
        """Let gradients follow a rule.

        Raises:
            InputError: for what is none, and for a method without gradients.
        """
        check_choice("method", method, METHODS)
        if backward is None:
            return
        if method == EXACT:
            raise InputError(
                'method="exact" patches, and takes no gradients that could follow a rule: leave backward= out.'
            )
        if not isinstance(backward, BackwardRule):
            raise InputError(
                f"backward= is a rule such as ig.fields.FrozenNorm(), not {type(backward).__name__}."
            )
        self.backward, self.during = backward, backward.bound(self.decoder.module)

    @contextmanager
    def running(self) -> Iterator[None]:
        """While this lasts the model is fit to be run."""
        with borrowed(self.decoder.module), gradients(False):
            yield

    def each(self, work: Callable[[Contrast], T]) -> Iterator[tuple[Contrast, T]]:
        """The pairs, as many at a time as a call has rows, with both prompts run, and what ``work``
        makes of them. Where memory runs out, the same pairs are taken again in calls of half as
        many rows.

        Raises:
            ModelTooLarge: where one row alone does not fit.
        """
        for group in self.pairs.groups:
            first = 0
            while first < len(group):
                some = group.at(torch.arange(first, min(first + self.batch_size, len(group))))
                before = dict(self.changes)
                attempt = self._attempt(some, work)
                if isinstance(attempt, str):
                    self.changes = before
                    self._take_fewer(attempt)
                else:
                    first += len(some)
                    yield attempt

    def _attempt(self, some: Group, work: Callable[[Contrast], T]) -> tuple[Contrast, T] | str:
        """Some pairs and what ``work`` makes of them; or, where memory runs out, what torch said of
        it: the traceback holds the tensors that did not fit, and only words survive."""
        try:
            contrast = self._contrast(some)
            return contrast, work(contrast)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return str(error)

    def _contrast(self, some: Group) -> Contrast:
        contrast = contrast_of(
            self.decoder, self.graph, some, self.matrices, self.count, self.during
        )
        if not self._checked:
            check_stream(self.decoder, contrast.clean)
            check_readers(self.matrices, contrast.clean)
            self._checked = True
        self.values[:, some.numbers] = contrast.values
        return contrast

    def _take_fewer(self, failure: str) -> None:
        """Halve the rows of a call, after one ran out of memory."""
        rows = self.batch_size
        make_room(rows, failure)
        self.batch_size = rows // 2
        warn_of_smaller_calls(rows, self.batch_size)

    def complete(self, branch: Branch, change: Tensor, total: Tensor) -> None:
        """Note what F loses (P,) without what a branch writes, and what scores add up to (P,)."""
        before = self.changes.get(branch, (0.0, 0.0))
        self.changes[branch] = (before[0] + float(change.sum()), before[1] + float(total.sum()))

    def cost(self) -> Cost:
        """What it took so far."""
        peak = peak_of(self.decoder.model.device)
        seconds = time.perf_counter() - self.began
        return Cost(self.count.gradients, self.count.values, self.count.calls, seconds, peak)

    def stated(
        self, method: str, steps: int, rule: Quadrature | None, error: float
    ) -> dict[str, Any]:
        """What a result says beside its scores."""
        words = method
        if method in (INPUTS, ACTIVATIONS):
            words = f"{method}, {GaussLegendre(steps) if rule is None else rule!r}"
        words += "" if self.backward is None else f", backward={self.backward!r}"
        return {
            "graph": self.graph,
            "clean": self.values[0],
            "corrupt": self.values[1],
            "completeness": tuple(
                Completeness(_name(branch), *(number / self.pairs.count for number in numbers))
                for branch, numbers in self.changes.items()
            ),
            "error": error,
            "method": words,
            "metric": self.pairs.metric,
            "cost": self.cost(),
        }


def _name(branch: Branch) -> str:
    return branch[0] if branch[0] == INPUT else f"{branch[0]} {branch[1]}"


@gradients(False)  # what is made here is written to outside the caller's inference mode
def job_of(
    model: ModelLike,
    clean: Prompts,
    corrupt: Prompts,
    metric: Metric,
    tokenizer: TokenizerLike | None,
    architecture: Architecture | None,
    batch_size: int,
) -> CircuitJob:
    """A model, pairs and a metric, checked.

    Raises:
        IntegrandError: one of the tree in ``integrand.errors``.
    """
    if architecture is not None and not isinstance(architecture, Architecture):
        raise InputError(
            f"architecture= is an ig.circuits.Architecture, such as those in ig.circuits.ARCHITECTURES, not {architecture!r}."
        )
    language = language_model(model, None if architecture is None else architecture.embeddings)
    where = tokenizer
    if tokenizer is None and not isinstance(model, torch.nn.Module) and in_words(clean):
        where = model  # the one in its folder
    described = architecture is not None
    pairs = pairs_of(language, clean, corrupt, metric, where, described=described)
    decoder = decoder_of(language, architecture)
    graph = CircuitGraph(
        len(decoder.blocks),
        decoder.heads,
        decoder.key_value_heads,
        decoder.parallel,
    )
    return CircuitJob(decoder, graph, pairs, whole("batch_size", batch_size, least=1))


def _path(method: str, steps: int, rule: Quadrature | None) -> PathNodes:
    if method == EAP:
        return PathNodes.of(Right(1).table())
    if rule is None:
        rule = GaussLegendre(whole("steps", steps, least=1))
    if not isinstance(rule, Quadrature):
        raise InputError(f"rule= is one with fixed nodes, such as ig.rules.Right(5), not {rule!r}.")
    return PathNodes.of(rule.table())


Score = Callable[..., None]


def _edges_of(
    contrast: Contrast, job: CircuitJob, method: str, steps: int, rule: Quadrature | None
) -> Tensor:
    """(2, P, S, V) scores by the rule, and by a coarser one."""
    graph = contrast.graph
    shape = (len(contrast.group), len(graph.sources), len(graph.sinks))
    if method == EXACT:
        places = [(int(u), int(v)) for u, v in graph.edges.nonzero()]
        scores = torch.zeros(shape, dtype=torch.float64)
        sources, sinks = graph.edges.nonzero(as_tuple=True)
        scores[:, sources, sinks] = _losses(contrast, job, places).T
        return torch.stack([scores, scores])
    return _scored(contrast, job, _path(method, steps, rule), method, shape, edge_scores)


def _nodes_of(
    contrast: Contrast, job: CircuitJob, method: str, steps: int, rule: Quadrature | None
) -> Tensor:
    """(2, P, S) scores by the rule, and by a coarser one."""
    graph = contrast.graph
    if method == EXACT:
        kept = graph.edges.expand(len(graph.sources), *graph.edges.shape).clone()
        every = torch.arange(len(graph.sources))
        kept[every, every] = False
        lost = contrast.values[0] - patched_values(contrast, kept, job.batch_size)
        return torch.stack([lost.T, lost.T])
    shape = (len(contrast.group), len(graph.sources))
    return _scored(contrast, job, _path(method, steps, rule), method, shape, node_scores)


def _scored(
    contrast: Contrast,
    job: CircuitJob,
    path: PathNodes,
    method: str,
    shape: tuple[int, ...],
    score: Score,
) -> Tensor:
    start = contrast.clean.branch((INPUT, 0))
    into = start.new_zeros((2, *shape), dtype=contrast.accumulator)
    every: list[Branch] = list(branches_of(contrast.graph))
    moves = (
        [(branch, [branch]) for branch in every] if method == ACTIVATIONS else [(every[0], every)]
    )
    for branch, scored in moves:
        for sloped in along(contrast, branch, path, job.batch_size, edges=score is edge_scores):
            score(contrast, scored, sloped, into)
        written = into[0][:, contrast.graph.group(*branch)].double().cpu()
        job.complete(branch, _lost(contrast, branch), written.flatten(1).sum(1))
    check_finite(into[0], "Scores", job.decoder)
    return into.double().cpu()


def _lost(contrast: Contrast, branch: Branch) -> Tensor:
    """What F loses (P,) where all that a branch writes is that of the corrupt prompts."""
    if branch[0] == INPUT:
        return contrast.values[0] - contrast.values[1]
    with recorded(contrast.decoder, branch, contrast.corrupt.branch(branch)):
        value = contrast.group.value().double().cpu()
    contrast.count.forward(len(value))
    return contrast.values[0] - value


def _losses(contrast: Contrast, job: CircuitJob, places: Sequence[tuple[int, int]]) -> Tensor:
    """What F loses (E, P) where single edges are those of the corrupt prompts."""
    graph = contrast.graph
    if not places:
        return contrast.values.new_zeros(0, len(contrast.group))
    at_once = max(1, _MASKS // graph.edges.numel())
    values = []
    for first in range(0, len(places), at_once):
        some = places[first : first + at_once]
        kept = graph.edges.expand(len(some), *graph.edges.shape).clone()
        for number, (source, sink) in enumerate(some):
            kept[number, source, sink] = False
        values.append(patched_values(contrast, kept, job.batch_size))
    return contrast.values[0] - torch.cat(values)


# --- means over pairs -------------------------------------------------------------------------------------------------


class _MeanOverPairs:
    """The mean over pairs and its standard error, a few pairs at a time."""

    def __init__(self) -> None:
        self._running: RunningMean | None = None

    def add(self, scores: Tensor) -> None:
        """More pairs (P, …)."""
        if self._running is None:
            self._running = RunningMean(scores[:1])
        self._running.add(scores[:, None])

    @property
    def mean(self) -> Tensor:
        """(…) of all pairs."""
        assert self._running is not None
        return self._running.value[0]

    @property
    def standard_error(self) -> Tensor:
        """(…) of the mean; NaN for one pair."""
        assert self._running is not None
        return (self._running.variance()[0] / self._running.count).sqrt()


class _RuleDifference:
    """Scores by a rule and by a coarser one, summed over pairs."""

    def __init__(self) -> None:
        self.total: Tensor | None = None

    def add(self, both: Tensor) -> None:
        """More pairs (2, P, …)."""
        sums = both.sum(1)
        self.total = sums if self.total is None else self.total + sums

    def error(self, method: str) -> float:
        """The estimated relative L2 error; NaN where there is no estimate."""
        assert self.total is not None
        if method == EXACT:
            return 0.0
        fine, coarse = self.total
        size = float(fine.norm())
        apart = float((fine - coarse).norm())
        return apart / size if size else apart  # 0 of nothing, NaN without an estimate
