"""The work behind ``ig.text.explain``: rows of tokens and what is asked of them, explained pack by pack.

rows, baseline, target ──▶ packs of like length ──▶ ig.explain of each ──▶ one attribution, in the slots of the rows
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from ..baselines import Baseline, Given
from ..core.declared import Part, Stranger, with_fields
from ..core.random import reseeded
from ..core.shapes import norm
from ..errors import (
    InputError,
    IntegrandError,
    IntegrandWarning,
    ModelError,
    NonFiniteGradient,
    warn,
)
from ..explain import explain as explain_inputs
from ..explain import make_task, resolve_method
from ..explain_targets import explain_targets
from ..fields import Linear
from ..fields.views import CallCount
from ..integration.assemble import core
from ..integration.attribution import Attribution, Explainer, ExplainerLike, as_explainer
from ..integration.cost import Cost
from ..integration.method import Method
from ..integration.wrappers.base import warned_once, with_core
from ..methods import about
from ..model.turns import turn
from ..rules import GaussLegendre
from .baselines import BaselineLike, Batch, references_of
from .batch_questions import Questions, ask, passes
from .cost import CostEstimate
from .encoding import Encoded
from .forward import OutputReader
from .keeping import Keep, kept_tokens
from .layout import Row, padded_rows, token_labels
from .memory import Checkpoint, LongestText, rows_of_call, uses_checkpoints
from .models import CAUSAL, LanguageModel
from .packing import Pack, joined, packs_of
from .precision import NODES, in_float32, is_half
from .questions import Asker
from .result import TextAttribution
from .vocabulary import neighbours_of


@dataclass(frozen=True)
class TextJob:
    """Texts that a model is asked about.

    Args:
        model: which is asked.
        asker: finds what targets mean for it.
        texts: as tokens.
        rows: their slots.
        keep: which tokens stay as they are.
        checkpoint: whether the model's blocks run again on the way back.
    """

    model: LanguageModel
    asker: Asker
    texts: Sequence[Encoded]
    rows: Sequence[Row]
    keep: Keep
    checkpoint: Checkpoint = "auto"

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        asker: Asker,
        texts: Sequence[Encoded],
        keep: Keep,
        checkpoint: Checkpoint,
    ) -> TextJob:
        """Texts padded to one length, on the side on which the model expects it."""
        ids, types = [text.ids for text in texts], [text.types for text in texts]
        rows = padded_rows(ids, types, asker.pad, left=model.kind == CAUSAL)
        return cls(model, asker, texts, rows, keep, checkpoint)

    @turn()
    def prepared(
        self,
        target: Any,
        method: str | ExplainerLike,
        baseline: BaselineLike,
        *,
        per_token: bool,
        **options: Any,
    ) -> Prepared:
        """What the texts are asked, and where they begin; before any long work."""
        check_method(method)
        questions = ask(target, self.texts, self.asker, per_token=per_token)
        kept = kept_tokens(self.texts, self.keep, questions)
        self.model.checkpoint = uses_checkpoints(
            self.checkpoint, self.model, self.rows, questions, options.get("batch_size")
        )
        beginning = self.beginning(baseline, kept, options.get("seed"))
        options |= for_method(method, beginning.start, options, self.model, self.asker)
        return Prepared(questions, tuple(kept), beginning, method, per_token, options)

    @turn()
    def run(self, prepared: Prepared, *, check_precision: bool = True) -> TextAttribution:
        """Explain the texts."""
        questions, per_token = prepared.questions, prepared.per_token
        parts = self._attributions(prepared)
        slots = [row.real for row in self.rows]
        half: tuple[float, ...] = ()
        if check_precision and is_half(self.model):
            half = self._half_precision_error(prepared, parts[0].target)
        return TextAttribution(
            summed(parts, questions.target) if per_token else parts[0],
            tuple(self.texts),
            tuple(slots),
            prepared.kept,
            questions.words(self.model, len(self.texts), parts[0].target),
            matrices=tuple(
                _matrix(parts, i, len(question.columns), slots[i])
                for i, question in enumerate(questions.questions)
            )
            if per_token
            else (),
            columns=tuple(question.columns for question in questions.questions)
            if per_token
            else (),
            checkpointed=self.model.checkpoint,
            half_precision_error=half,
        )

    @turn()
    def estimate(self, prepared: Prepared) -> CostEstimate:
        """What it will take: from a gradient of the longest text, and short passes of it."""
        questions, model = prepared.questions, self.model
        lengths = [len(row.real) for row in self.rows]
        longest = lengths.index(max(lengths))
        text = LongestText.of(self.rows, questions, model)
        seconds = self._gradient_seconds(prepared, longest)
        gradients = self._gradients(prepared, longest)
        kept = text.kept(model)
        rows = rows_of_call(model, text, prepared.options.get("batch_size"))
        rows = rows if gradients is None else min(rows, gradients)
        # Forward passes are shared by the tokens of a target, backward passes are not.
        share = (1 + questions.count) / 2 if prepared.per_token else 1
        relative = sum(lengths) / max(lengths)
        return CostEstimate(
            texts=len(self.rows),
            tokens=len(text),
            gradients=gradients,
            gradient_seconds=seconds * share,
            seconds=None if gradients is None else gradients * seconds * share * relative,
            bytes=int(rows * (kept.recomputed if model.checkpoint else kept.plain)),
            checkpointed=model.checkpoint,
        )

    def _gradient_seconds(self, prepared: Prepared, number: int) -> float:
        """How long a gradient of one of the texts takes."""
        pack = Pack.of(self.rows, [number], self.padding, left=self.model.kind == CAUSAL)
        questions = prepared.questions.at([number])
        vectors, pad = pack.taken(prepared.beginning.vectors), self.padding
        extra = {"passes": passes(questions, pack.rows, self.model, pad)}
        reader = OutputReader(self.model, questions.score)
        task = make_task("integrated", reader, vectors, questions.target, extra=extra)
        with self.model.padding(pad), _repeatable(self.model), task.ready() as field:
            began = time.perf_counter()
            field.gradient(task.x)
            return time.perf_counter() - began

    def _gradients(self, prepared: Prepared, number: int) -> int | None:
        """How many gradients a method takes of one of the texts: asked of a linear function in the
        model's place. None where it says nothing beforehand."""

        class Told(Exception):
            pass

        def watch(tally: CallCount) -> None:
            if tally.expected is not None:
                raise Told(tally.expected)

        start = prepared.beginning.start
        vectors = prepared.beginning.vectors[number : number + 1].float()
        options = {**prepared.options, "progress": watch}
        if "baseline" in options and isinstance(start, Given):
            references = start.references[:, number : number + 1].to(vectors)
            options["baseline"] = dataclasses.replace(start, references=references)

        def total(vectors: Tensor) -> Tensor:
            return vectors.flatten(1).sum(1, keepdim=True)

        # A field says more than a function does, whose operations backward rules have to see.
        for linear, target in ((Linear(torch.ones_like(vectors[0])), None), (total, 0)):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    explain_inputs(
                        linear, vectors, target=target, method=prepared.method, **options
                    )
            except Told as told:
                return int(told.args[0])
            except IntegrandError:  # it asks more of a model than a linear function can tell
                continue
            return None
        return None

    def beginning(
        self, baseline: BaselineLike, kept: Sequence[tuple[bool, ...]], seed: int | None
    ) -> Beginning:
        """Where texts and paths begin and end, in the slots of the rows."""
        vectors = self.model.vectors(torch.tensor([row.ids for row in self.rows]))
        moves = torch.zeros(vectors.shape[:2], dtype=torch.bool)
        for number, (row, stays) in enumerate(zip(self.rows, kept, strict=True)):
            moves[number, list(row.real)] = ~torch.tensor(stays)
        moves = moves.to(vectors.device)
        if seed is not None:
            baseline = reseeded(baseline, seed)
        batch = Batch(self.model, self.asker.tokenizer, self.texts, self.rows, vectors, moves)
        return Beginning(vectors, moves, references_of(baseline, batch))

    def _attributions(self, prepared: Prepared) -> list[Attribution]:
        """The attribution of the texts; with ``per_token`` one for each token of the target."""
        vectors, start = prepared.beginning.vectors, prepared.beginning.start
        packs = self._packs(prepared)
        if packs is None:
            return self._explained(prepared, self.rows, range(len(self.rows)))
        assert isinstance(start, Given)
        parts: list[list[Attribution]] = []
        tally = _Tally(prepared.options.get("progress", False))
        with warned_once():
            for pack in packs:
                moves = pack.taken(prepared.beginning.moves)
                beginning = Beginning(pack.taken(vectors), moves, pack.start(start)).still(pack)
                changed = {"baseline": beginning.start} if "baseline" in prepared.options else {}
                of_pack = dataclasses.replace(
                    prepared,
                    questions=prepared.questions.at(pack.order),
                    beginning=beginning,
                    options={**prepared.options, **changed, "progress": tally.of_pack()},
                )
                attributions = self._explained(of_pack, pack.rows, pack.order)
                parts.append([pack.laid_back(part, vectors) for part in attributions])
        columns = prepared.questions.columns() if prepared.per_token else ()
        return _joined_questions(parts, packs, self._explainer(prepared), columns)

    def _explained(
        self, prepared: Prepared, rows: Sequence[Row], order: Sequence[int]
    ) -> list[Attribution]:
        """The attributions of some rows, which are the texts ``order``."""
        questions, beginning, pad = prepared.questions, prepared.beginning, self.padding
        vectors, moves = beginning.vectors, beginning.moves
        arranged = passes(questions, rows, self.model, pad)
        if not bool(moves.all()):
            arranged = [{**entries, "moves": moves, "vectors": vectors} for entries in arranged]
        reader = OutputReader(self.model, questions.score)
        options = {**self._counting_tokens(prepared, rows), "extra": {"passes": arranged}}
        with (
            self.model.padding(pad),
            _repeatable(self.model),
            _degenerate(self.model, beginning.start, moves),
            _numbered(order),
        ):
            if prepared.per_token:
                return explain_targets(reader, vectors, targets=questions.columns(), **options)
            return [explain_inputs(reader, vectors, target=questions.target, **options)]

    def _counting_tokens(self, prepared: Prepared, rows: Sequence[Row]) -> dict[str, Any]:
        """The method with its options; fitness, where it is asked, counts tokens and no padding."""
        method, options = prepared.method, prepared.options
        labels = token_labels(rows)
        if labels is None:
            return {**options, "method": method}
        explainer = self._explainer(prepared)
        counting = with_core(explainer, partial(_of_tokens, labels=labels))
        if core(counting) is core(explainer):
            return {**options, "method": method}
        if isinstance(method, str):
            return {**options, "method": method, "features": labels}
        return {**options, "method": with_core(method, partial(_of_tokens, labels=labels))}

    def _packs(self, prepared: Prepared) -> list[Pack] | None:
        """Texts of like length together; None where little is gained, and where something may be
        told in their order."""
        options = prepared.options
        of_words = {"table", "neighbours"}  # and of no text
        if not isinstance(prepared.beginning.start, Given) or any(
            isinstance(options[name], Tensor) for name in options if name not in of_words
        ):
            return None
        widths = [row.real[-1] + 1 - row.real[0] for row in self.rows]
        explainer = self._explainer(prepared)
        padded = not explainer.padding_takes_part
        if not isinstance(prepared.method, str) and (padded or not _fits_any_rows(explainer)):
            return None
        # A search may go by what the model makes of all places where any text of a pack is asked.
        alike = None if padded else prepared.questions.places(len(self.rows))
        orders = packs_of(widths, alike=alike)
        if len(orders) == 1 and max(widths) == len(self.rows[0].ids):
            return None
        # How many references a tolerance takes may be another number for each pack.
        if explainer.samples:
            return None
        left = self.model.kind == CAUSAL
        return [Pack.of(self.rows, order, self.padding, left=left) for order in orders]

    def _explainer(self, prepared: Prepared) -> Explainer:
        """What explains all rows."""
        options = prepared.options
        rest = {name: value for name, value in options.items() if name not in _OF_EXPLAIN}
        baseline, tol, seed = (options.get(name) for name in ("baseline", "tol", "seed"))
        vectors = prepared.beginning.vectors
        explainer = resolve_method(vectors, prepared.method, baseline, tol, rest)
        return explainer if seed is None else reseeded(explainer, seed)

    def _half_precision_error(self, prepared: Prepared, target: Any) -> tuple[float, ...]:
        """The relative error that half precision adds to a map of few nodes of each text, NaN where
        no copy in float32 can be made or run."""
        fine = in_float32(self.model)
        start = prepared.beginning.start
        if fine is None or not isinstance(start, Given):
            return (math.nan,) * len(self.rows)
        vectors = prepared.beginning.vectors.float()
        first = dataclasses.replace(start, references=start.references[:1].float(), names=())
        questions = prepared.questions
        if not questions.questions:  # the classes that the model itself predicts
            questions = dataclasses.replace(questions, target=target)
        few = dataclasses.replace(
            prepared,
            questions=questions,
            beginning=Beginning(vectors, prepared.beginning.moves, first),
            method="integrated",
            per_token=False,
            options={"baseline": first, "rule": GaussLegendre(NODES)},
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IntegrandWarning)
            coarse = self._attributions(few)[0].values.double()
            try:
                exact = dataclasses.replace(self, model=fine)._attributions(few)[0].values.double()
            except IntegrandError:  # one that asks for half precision somewhere inside
                return (math.nan,) * len(self.rows)
        return tuple((norm(coarse - exact) / norm(exact)).tolist())

    @property
    def padding(self) -> int:
        """The id of padding; where the model has none, one that no text holds."""
        if self.model.setting("pad_token_id") is not None or self.model.rows is None:
            return self.asker.pad
        used = {token for text in self.texts for token in text.ids}
        return next((token for token in range(self.model.rows) if token not in used), 0)


_OF_EXPLAIN = frozenset(explain_inputs.__kwdefaults__ or {})
"""What belongs to the call and not to the method."""


@dataclass(frozen=True)
class Prepared:
    """Texts ready to be explained.

    Attributes:
        questions: what is asked of them.
        kept: (T,) of each: whether a token stays as it is.
        beginning: where they end, and paths begin.
        method: a published name, or a method.
        per_token: whether each token of the target is explained by itself.
        options: of the method, and of the call.
    """

    questions: Questions
    kept: tuple[tuple[bool, ...], ...]
    beginning: Beginning
    method: str | ExplainerLike
    per_token: bool
    options: dict[str, Any]


@dataclass(frozen=True)
class Beginning:
    """Where paths end and begin.

    Attributes:
        vectors: (B, T, D) of the tokens.
        moves: (B, T) whether each may move.
        start: the references.
    """

    vectors: Tensor
    moves: Tensor
    start: Baseline

    def still(self, pack: Pack) -> Beginning:
        """The same where padding of a pack does not move, whatever it was taken from."""
        real = (pack.slots >= 0).to(self.moves.device)
        moves = self.moves & real
        assert isinstance(self.start, Given)
        references = torch.where(moves[..., None], self.start.references, self.vectors)
        return Beginning(
            self.vectors, moves, dataclasses.replace(self.start, references=references)
        )


class _Tally:
    """A running tally over packs, for whoever watches."""

    def __init__(self, progress: bool | Callable[[CallCount], None]) -> None:
        self.progress = progress
        self.before = self.last = CallCount()

    def of_pack(self) -> bool | Callable[[CallCount], None]:
        """What the next pack is watched by."""
        if isinstance(self.progress, bool):
            return self.progress
        watch = self.progress
        self.before = self.last

        def added(tally: CallCount) -> None:
            self.last = CallCount(
                self.before.gradients + tally.gradients,
                self.before.values + tally.values,
                self.before.calls + tally.calls,
            )
            watch(self.last)

        return added


def check_method(method: str | ExplainerLike) -> None:
    """Check that a method explains inputs.

    Raises:
        InputError: for those of layers.
    """
    explains = about(method).explains if isinstance(method, str) else as_explainer(method).explains
    if explains == "layer":
        raise InputError(
            f"{method!r} explains a layer, and not the tokens: ask ig.explain(model, ids, method=…, extra={{'attention_mask': …}})."
        )


def for_method(
    method: str | ExplainerLike,
    start: Baseline,
    options: dict[str, Any],
    model: LanguageModel,
    asker: Asker,
) -> dict[str, Any]:
    """What a method is built with that the texts have: where it starts, the vectors of all words,
    and their neighbours."""
    if not isinstance(method, str):
        return {"baseline": start}
    published = about(method)
    wanted: dict[str, Any] = {} if published.start is None else {"baseline": start}
    if "table" in published.needs and "table" not in options:
        wanted["table"] = model.table
        count = options.get("neighbours", published.defaults.get("neighbours"))
        if isinstance(count, int) and not isinstance(count, bool):
            wanted["neighbours"] = neighbours_of(model, asker.tokenizer, count)
    return wanted


def _fits_any_rows(part: object) -> bool:
    """Whether a method can explain some of the texts: it holds no numbers that may have an entry
    for each of their slots, and no part of the user's, which may. Its baseline is the texts'."""
    if isinstance(part, Tensor | np.ndarray | Stranger):
        return False
    if isinstance(part, Mapping):
        return all(map(_fits_any_rows, part.values()))
    if isinstance(part, tuple | list):
        return all(map(_fits_any_rows, part))
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return not isinstance(part, Part)
    return all(
        _fits_any_rows(getattr(part, entry.name))
        for entry in dataclasses.fields(part)
        if not (isinstance(part, Method) and entry.name == "baseline")
    )


def _of_tokens(inner: Any, labels: Tensor) -> Any:
    """A method whose fitness counts the tokens of each text, by the ``labels`` of its slots, and no
    padding; the method itself where there is no fitness, or somebody said what a feature is."""
    if not isinstance(inner, Method):
        return inner
    features = inner.weighting.features
    if not isinstance(features, str) or features != "auto":
        return inner
    return with_fields(inner, weighting=with_fields(inner.weighting, features=labels))


@contextmanager
def _numbered(order: Sequence[int]) -> Iterator[None]:
    """Warnings and errors of texts in another ``order`` number them as they were given."""
    if list(order) == list(range(len(order))):
        yield
        return

    def as_given(message: object) -> str:
        return re.sub(
            r"\b(example|text) (\d+)\b",
            lambda match: (
                f"{match[1]} {order[int(match[2])] if int(match[2]) < len(order) else match[2]}"
            ),
            str(message),
        )

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    except IntegrandError as error:
        if len(error.args) == 1:
            error.args = (as_given(error),)
        raise
    finally:
        for warning in caught:
            if issubclass(warning.category, IntegrandWarning):
                warn(as_given(warning.message), warning.category)
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )


@contextmanager
def _degenerate(model: LanguageModel, start: Baseline, moves: Tensor) -> Iterator[None]:
    """Where gradients are not finite because vectors begin at zero, that is what is said."""
    try:
        yield
    except NonFiniteGradient as error:
        zero = isinstance(start, Given) and bool((start.references[:, moves] == 0).all(-1).any())
        if not zero:
            raise
        raise NonFiniteGradient(
            f"Tokens begin at the zero vector, which the normalisations of {model.name} cannot take: its gradient is not finite there. Take "
            "baseline='mean', and keep='special' or 'first'."
        ) from error


@contextmanager
def _repeatable(model: LanguageModel) -> Iterator[None]:
    """Where blocks that are run again do something else, that is what is said."""
    try:
        yield
    except CheckpointError as error:
        raise ModelError(
            f"The blocks of {model.name} do something else when they are run again, so that they cannot be checkpointed: checkpoint=False "
            "keeps what they computed."
        ) from error


# --- what comes back --------------------------------------------------------------------------------------------------


def summed(parts: Sequence[Attribution], target: Any) -> Attribution:
    """The attribution of a sum of targets: maps, changes and residuals add up.

    ``error`` is an upper bound, as if the errors of all maps pointed one way.
    """
    first = parts[0]
    values = sum((part.values for part in parts), torch.zeros_like(first.values))
    errors = sum((part.error * norm(part.values) for part in parts), torch.zeros_like(first.error))
    change = sum(
        ((part.weights * part.change).sum(0) for part in parts), torch.zeros_like(first.output)
    )
    exact = errors == 0
    return dataclasses.replace(
        first,
        values=values,
        output=sum((part.output for part in parts), torch.zeros_like(first.output)),
        weights=torch.ones_like(first.output)[None],
        change=change[None],
        residual=sum((part.residual for part in parts), torch.zeros_like(first.residual)),
        error=torch.where(exact, 0.0, errors / norm(values)),
        converged=torch.stack([part.converged for part in parts]).all(0),
        shares=None,
        baselines=first.baselines if len(first.weights) == 1 else None,
        fitness=None,
        reasons=(),
        notes={},
        names=first.names if len(first.weights) == 1 else (),
        cost=sum((part.cost for part in parts), Cost()),
        resolution=max(part.resolution for part in parts),
        target=target,
    )


def _matrix(parts: Sequence[Attribution], i: int, count: int, slots: Sequence[int]) -> Tensor:
    """What each token of a text (T) contributed to each of its targets (Q): (Q, T)."""
    return torch.stack([part.values[i, list(slots)].sum(-1) for part in parts[:count]])


def _joined_questions(
    parts: Sequence[Sequence[Attribution]],
    packs: Sequence[Pack],
    method: Explainer,
    targets: Sequence[Any],
) -> list[Attribution]:
    """An attribution for each question, from those of each pack."""
    longest = max(parts, key=len)
    columns = []
    for number, like in enumerate(longest):
        target = targets[number] if len(longest) > 1 else like.target
        several = [
            pack[number] if number < len(pack) else _unasked(pack[0], target) for pack in parts
        ]
        columns.append(joined(several, packs, method))
    return columns


def _unasked(like: Attribution, target: Any) -> Attribution:
    """What a question leaves of texts that it is not asked of."""
    zeros: dict[str, Any] = {
        name: torch.zeros_like(getattr(like, name))
        for name in ("values", "output", "change", "residual", "error")
    }
    return dataclasses.replace(
        like, **zeros, converged=torch.ones_like(like.converged), target=target, cost=Cost()
    )
