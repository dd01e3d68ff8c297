"""What every token contributed: an attribution that knows its texts.

scores_i = Σ_d values_id          Σ scores + residual = F(x) − F(baseline)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.formatting import beside, number, percent
from ..core.frames import frame_of
from ..core.optional import room
from ..errors import InputError, UnknownName
from ..integration.attribution import Attribution
from ..tables.results import per_example
from .encoding import Encoded
from .groups import GRANULARITIES, Groups, groups_of


class Scored(NamedTuple):
    """Words of a text, and what they contributed, in units of F."""

    text: str
    score: float


@dataclass(frozen=True, eq=False, repr=False)
class TextAttribution:
    """What the tokens of B texts contributed to F, with what the map misses and its estimated error.

    Attributes:
        attribution: of the vectors: ``values`` (B, T, D), ``residual``, ``gap``, ``error``,
            ``converged``, ``cost``; padding gets zeros.
        texts: each as tokens.
        slots: where the tokens of each text lie along the T of ``attribution.values``.
        kept: whether each token stayed as it is.
        targets: F of each text, in words.
        matrices: (Q, T) what each token contributed to each of the Q tokens of the target; empty
            unless that was asked for.
        columns: (Q,) what these are called.
        granularity: what ``scores`` are of.
        checkpointed: whether the model's blocks were run again on the way back, to save memory.
        half_precision_error: of each text, the relative L2 error that the model's half precision
            adds to a map: that of a map of three nodes against a copy of the model in float32. NaN
            where there was no room for one; empty for models in float32.
    """

    attribution: Attribution
    texts: tuple[Encoded, ...]
    slots: tuple[tuple[int, ...], ...]
    kept: tuple[tuple[bool, ...], ...]
    targets: tuple[str, ...]
    matrices: tuple[Tensor, ...] = ()
    columns: tuple[tuple[str, ...], ...] = ()
    granularity: str = "token"
    checkpointed: bool = False
    half_precision_error: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise UnknownName("granularity", self.granularity, GRANULARITIES)

    # --- numbers --------------------------------------------------------------------------------------------------

    @property
    def tokens(self) -> list[list[str]]:
        """What scores are of: the tokenizer's tokens, or the words, sentences … of each text."""
        if self.granularity == "token":
            return [list(text.tokens) for text in self.texts]
        return [list(groups.names) for groups in self._groups()]

    @property
    def scores(self) -> list[Tensor]:
        """What each token, word … of each text contributed, in units of F: one (T,) for each
        text."""
        return [groups.summed(self._token_scores(i)) for i, groups in enumerate(self._groups())]

    @property
    def offsets(self) -> list[list[tuple[int, int]]]:
        """Where each of ``tokens`` stands in its text; (0, 0) for what does not."""
        return [list(groups.spans) for groups in self._groups()]

    @property
    def matrix(self) -> list[Tensor]:
        """What each token, word … (T) contributed to each token of the target (Q): one (Q, T) for
        each text. Rows add up to ``scores``.

        Raises:
            InputError: where it was not asked for.
        """
        if not self.matrices:
            raise InputError(
                "Each token of the target was not explained by itself: ask for it with per_token=True."
            )
        return [
            groups.summed(matrix)
            for groups, matrix in zip(self._groups(), self.matrices, strict=True)
        ]

    def _groups(self) -> list[Groups]:
        return [groups_of(text, self.granularity) for text in self.texts]

    def _token_scores(self, i: int) -> Tensor:
        values: Tensor = self.attribution.values[i, list(self.slots[i])]
        return values.sum(-1)

    # --- other granularities --------------------------------------------------------------------------------------

    def by(self, granularity: str) -> TextAttribution:
        """The same with scores of "token", "word", "sentence", "message" or "source": sums of
        those of tokens, so that they add up as these do.

        Raises:
            InputError: for messages or sources, where there are none.
        """
        regrouped = dataclasses.replace(self, granularity=granularity)
        regrouped._groups()
        return regrouped

    def words(self) -> list[list[Scored]]:
        """Every word of each text and what it contributed, in its order."""
        return self.by("word").listed()

    def listed(self) -> list[list[Scored]]:
        """What scores are of, and what each contributed."""
        return [
            [Scored(*pair) for pair in zip(groups.names, scores.tolist(), strict=True)]
            for groups, scores in zip(self._groups(), self.scores, strict=True)
        ]

    def top(self, count: int = 5) -> list[list[Scored]]:
        """The words that contributed most in either direction, the largest first; of tokens the
        words they are in, of messages or sources these."""
        view = self if self.granularity != "token" or not self._has_words() else self.by("word")
        return [
            sorted((e for e in entries if e.score), key=lambda entry: -abs(entry.score))[:count]
            for entries in view.listed()
        ]

    def _has_words(self) -> bool:
        return all(text.text for text in self.texts)

    # --- texts ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[TextAttribution]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | slice) -> TextAttribution:
        """The attribution of one or some texts."""
        chosen = range(len(self))[index]
        numbers = [chosen] if isinstance(chosen, int) else list(chosen)

        def picked(entries: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(entries[i] for i in numbers) if entries else ()

        changes: dict[str, Any] = {
            name: picked(getattr(self, name))
            for name in (
                "texts",
                "slots",
                "kept",
                "targets",
                "matrices",
                "columns",
                "half_precision_error",
            )
        }
        return dataclasses.replace(
            self, attribution=self.attribution[torch.tensor(numbers, dtype=torch.long)], **changes
        )

    def kept_tokens(self, i: int = 0) -> list[str]:
        """The tokens of a text that stayed as they are."""
        text = self.texts[i]
        return [name for name, stays in zip(text.tokens, self.kept[i], strict=True) if stays]

    def __repr__(self) -> str:
        count = len(self)
        kept = sum(map(sum, self.kept))
        total = sum(map(len, self.texts))
        gap = float(self.attribution.gap.max())
        error = float(self.attribution.error.max())
        stated = "" if error != error else f", estimated error {percent(error)}"
        staying = f", {kept} of {total} tokens kept in place" if kept else ""
        return (
            f"<TextAttribution of {count} text{'s' * (count != 1)}, F = {self.targets[0]}"
            f"{' …' if count > 1 else ''}{staying}, worst gap {percent(gap)}{stated}, "
            f"{self.attribution.cost.gradients} gradients>"
        )

    # --- doors ----------------------------------------------------------------------------------------------------

    def to_pandas(self, kind: str = "tokens") -> Any:
        """The scores as a pandas DataFrame.

        Args:
            kind: "tokens": a line for each token, word …, with the text's number, where it starts
                and stops, its score, and of tokens whether it was kept; "texts": a line for each
                text, with F, base, change, residual, gap, error, converged; "matrix": a line for
                each pair of a token of the target and a token.

        Raises:
            MissingExtra: without pandas.
            UnknownName: for another kind.
        """
        if kind == "texts":
            return frame_of({"target": list(self.targets), **per_example(self.attribution)})
        if kind == "tokens":
            return frame_of(self._lines())
        if kind == "matrix":
            return frame_of(self._pairs())
        raise UnknownName("kind of frame", kind, ("tokens", "texts", "matrix"))

    def _lines(self) -> dict[str, list[Any]]:
        names, spans, scores = self.tokens, self.offsets, self.scores
        count = [len(entries) for entries in names]
        lines: dict[str, list[Any]] = {
            "text": [i for i, n in enumerate(count) for _ in range(n)],
            self.granularity: [name for entries in names for name in entries],
            "start": [start for entries in spans for start, _ in entries],
            "stop": [stop for entries in spans for _, stop in entries],
            "score": [score for entries in scores for score in entries.tolist()],
        }
        if self.granularity == "token":
            lines["kept"] = [stays for entries in self.kept for stays in entries]
        return lines

    def _pairs(self) -> dict[str, list[Any]]:
        lines: dict[str, list[Any]] = {
            name: [] for name in ("text", "target", self.granularity, "score")
        }
        for i, matrix in enumerate(self.matrix):
            for column, scores in zip(self.columns[i], matrix.tolist(), strict=True):
                for name, score in zip(self.tokens[i], scores, strict=True):
                    for key, entry in zip(lines, (i, column, name, score), strict=True):
                        lines[key].append(entry)
        return lines

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file with a JSON header, whole or not at all; ``ig.load`` reads
        it back. Needs integrand[save].

        Raises:
            OSError: where the disk refuses.
        """
        room("text.io").save(self, path)

    def to_html(self, path: str | Path | None = None, *, title: str = "Texts explained") -> str:
        """A self-contained page: the texts in colour, what their words contributed, what the maps
        miss. No script, nothing fetched; texts are shown, and never obeyed.

        Args:
            path: where to write it, too.
            title: of the page.

        Returns:
            The page.
        """
        return str(room("report.text").page(self, path, title))

    def to_json(self) -> dict[str, Any]:
        """Tokens, scores, offsets, what was kept, F, residual, gap and error of every text, as JSON
        has them."""
        stated: dict[str, Any] = room("report.text").as_json(self)
        return stated

    def show(self, *, colour: bool | None = None) -> None:
        """Print the texts in colour, with their numbers.

        Args:
            colour: whether to; None for where the output is a terminal.
        """
        print(room("report.text").terminal(self, colour))

    def _repr_html_(self) -> str:
        return str(room("report.text").fragment(self))

    def summary(self, i: int = 0) -> str:
        """F of a text, its change, what the map misses and its error, in a line."""
        attribution = self.attribution[i]
        change = float(attribution.output[0] - attribution.base[0])
        parts = [
            f"F = {self.targets[i]} = {number(float(attribution.output[0]))}",
            f"{number(change, signed=True)} from the baseline",
            f"the map misses {beside(float(attribution.residual[0]), change)}"
            f" ({percent(float(attribution.gap[0]))})",
        ]
        error = float(attribution.error[0])
        if error == error:
            parts.append(f"estimated error {percent(error)}")
        if self.half_precision_error:
            half = self.half_precision_error[i]
            stated = percent(half) if half == half else "an error that was not measured"
            parts.append(f"half precision adds {stated}")
        return " · ".join(parts)
