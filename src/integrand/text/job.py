"""The work behind ``ig.text.explain``: rows of tokens and what is asked of them, explained pack by pack.

rows, baseline, target ──▶ packs of like length ──▶ ig.explain of each ──▶ one attribution, in the slots of the rows
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from ..baselines import Baseline, Given
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
from ..explain import resolve_method
from ..explain_targets import explain_targets
from ..fields.views import CallCount
from ..integration.attribution import Attribution, Explainer, ExplainerLike, as_explainer
from ..integration.cost import Cost
from ..methods import about
from .baselines import BaselineLike, Batch, references_of
from .batch_questions import Questions, ask, passes
from .encoding import Encoded
from .forward import OutputReader
from .keeping import Keep, kept_tokens
from .layout import Row
from .memory import Checkpoint, uses_checkpoints
from .models import CAUSAL, LanguageModel
from .packing import Pack, joined, packs_of
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

    def run(
        self,
        target: Any,
        method: str | ExplainerLike,
        baseline: BaselineLike,
        *,
        per_token: bool,
        **options: Any,
    ) -> TextAttribution:
        """Explain the texts."""
        check_method(method)
        questions = ask(target, self.texts, self.asker, per_token=per_token)
        kept = kept_tokens(self.texts, self.keep, questions)
        self.model.checkpoint = uses_checkpoints(
            self.checkpoint, self.model, self.rows, questions, options.get("batch_size")
        )
        beginning = self.beginning(baseline, kept, options.get("seed"))
        parts = self._attributions(questions, method, beginning, per_token=per_token, **options)
        slots = [row.real for row in self.rows]
        return TextAttribution(
            summed(parts, questions.target) if per_token else parts[0],
            tuple(self.texts),
            tuple(slots),
            tuple(kept),
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
        )

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

    def _attributions(
        self,
        questions: Questions,
        method: str | ExplainerLike,
        beginning: Beginning,
        *,
        per_token: bool,
        **options: Any,
    ) -> list[Attribution]:
        """The attribution of the texts; with ``per_token`` one for each token of the target."""
        vectors, start = beginning.vectors, beginning.start
        options = {**options, **for_method(method, start, options, self.model, self.asker)}
        packs = self._packs(start, method, vectors, options)
        if packs is None:
            order = list(range(len(self.rows)))
            return self._explained(
                questions, method, beginning, self.rows, order, per_token, options
            )
        assert isinstance(start, Given)
        parts: list[list[Attribution]] = []
        tally = _Tally(options.get("progress", False))
        for pack in packs:
            own = Beginning(
                pack.taken(vectors), pack.taken(beginning.moves), pack.start(start)
            ).still(pack)
            changed = {"baseline": own.start} if "baseline" in options else {}
            pack_options = {**options, **changed, "progress": tally.of_pack()}
            attributions = self._explained(
                questions.at(pack.order),
                method,
                own,
                pack.rows,
                pack.order,
                per_token,
                pack_options,
            )
            parts.append([pack.laid_back(part, vectors) for part in attributions])
        explainer = self._explainer(method, vectors, options)
        return _joined_questions(parts, packs, explainer, questions.columns() if per_token else ())

    def _explained(
        self,
        questions: Questions,
        method: str | ExplainerLike,
        beginning: Beginning,
        rows: Sequence[Row],
        order: Sequence[int],
        per_token: bool,
        options: dict[str, Any],
    ) -> list[Attribution]:
        """The attributions of some rows, which are the texts ``order``."""
        pad, vectors, moves = self.padding, beginning.vectors, beginning.moves
        arranged = passes(questions, rows, self.model, pad)
        if not bool(moves.all()):
            arranged = [{**entries, "moves": moves, "vectors": vectors} for entries in arranged]
        reader = OutputReader(self.model, questions.score)
        options = {**options, "method": method, "extra": {"passes": arranged}}
        with (
            self.model.padding(pad),
            _repeatable(self.model),
            _degenerate(self.model, beginning.start, moves),
            _numbered(order),
        ):
            if per_token:
                return explain_targets(reader, vectors, targets=questions.columns(), **options)
            return [explain_inputs(reader, vectors, target=questions.target, **options)]

    def _packs(
        self,
        start: Baseline,
        method: str | ExplainerLike,
        vectors: Tensor,
        options: dict[str, Any],
    ) -> list[Pack] | None:
        """Texts of like length together; None where little is gained, and where something may be
        told in their order."""
        plain = isinstance(method, str) and isinstance(start, Given)
        of_words = {"table", "neighbours"}  # and of no text
        if not plain or any(
            isinstance(options[name], Tensor) for name in options if name not in of_words
        ):
            return None
        orders = packs_of([row.real[-1] + 1 - row.real[0] for row in self.rows])
        wide = max(row.real[-1] + 1 - row.real[0] for row in self.rows) < len(self.rows[0].ids)
        if len(orders) == 1 and not wide:
            return None
        # How many references a tolerance takes may be another number for each pack.
        if self._explainer(method, vectors, options).samples:
            return None
        left = self.model.kind == CAUSAL
        return [Pack.of(self.rows, order, self.padding, left=left) for order in orders]

    def _explainer(
        self, method: str | ExplainerLike, vectors: Tensor, options: dict[str, Any]
    ) -> Explainer:
        """What explains all rows."""
        rest = {name: value for name, value in options.items() if name not in _OF_EXPLAIN}
        explainer = resolve_method(
            vectors, method, options.get("baseline"), options.get("tol"), rest
        )
        seed = options.get("seed")
        return explainer if seed is None else reseeded(explainer, seed)

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
    zeros = {
        name: torch.zeros_like(getattr(like, name))
        for name in ("values", "output", "change", "residual", "error")
    }
    return dataclasses.replace(
        like, **zeros, converged=torch.ones_like(like.converged), target=target, cost=Cost()
    )
