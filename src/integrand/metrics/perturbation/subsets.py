"""The change of F when subsets of features are replaced, whatever the maps: the engine of sampled
faithfulness.

    sizes ── seed ──▶ chosen (S, B, N) ── place ──▶ gone ── fill ──▶ rows ── packed ──▶ change (B, S)      asked once for all maps
    maps (M, B, *s) ── summed ──▶ shares (M, B, N) ── chosen ──▶ sums (M, B, S)

Draws are shared by the examples of a batch, and an example whose features are its own (label maps)
draws as if it were alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...baselines.base import adopted
from ...core.features import Features, feature_map
from ...core.random import generator
from ...core.segment import Evaluation
from ...core.shapes import describe, flattened
from ...errors import InputError
from ..task import Fill, Score, Subject
from .removal import replacement, unexpanded


@dataclass(frozen=True, eq=False)
class Cells:
    """The features of a batch, each example's numbered from 0 without gaps.

    Args:
        place: (1 or B, \\*s') which feature each element belongs to; axes along which all elements
            share a feature are 1 long.
        present: (1 or B, N) which of the numbers up to the largest an example has.
    """

    place: Tensor
    present: Tensor

    @classmethod
    def of(cls, features: Features, x: Tensor) -> Cells:
        groups = feature_map(features, x)
        per_example = groups.ndim == x.ndim
        place = unexpanded(groups) if per_example else unexpanded(groups)[None]
        present = torch.zeros(len(place), int(groups.max()) + 1, dtype=torch.bool, device=x.device)
        present.scatter_(1, flattened(place, 1), True)
        if per_example:  # numbered anew: label maps of a batch share their numbers
            place = (present.cumsum(1) - 1).gather(1, flattened(place, 1)).reshape(place.shape)
            counts = present.sum(1, keepdim=True)
            present = torch.arange(int(counts.max()), device=x.device) < counts
        return cls(place, present)

    def __len__(self) -> int:
        return self.present.shape[1]

    @property
    def counts(self) -> Tensor:
        """(1 or B,) how many features each example has."""
        return self.present.sum(1)

    def shares(self, values: Tensor) -> Tensor:
        """Maps (M, B, \\*s) summed, with sign, over the elements of each feature → (M, B, N), in
        float64; 0 where there is none."""
        methods, batch = values.shape[:2]
        where = (
            self.place.expand(batch, *values.shape[2:])
            .reshape(1, batch, -1)
            .expand(methods, -1, -1)
        )
        sums = torch.zeros(methods, batch, len(self), dtype=torch.float64, device=values.device)
        return sums.scatter_add_(2, where, values.reshape(methods, batch, -1).double())

    def gone(self, chosen: Tensor, example: Tensor) -> Tensor:
        """Which elements go (n, \\*s') where these features (n, N) of the examples (n,) do."""
        labels = self.place[example if len(self.place) > 1 else torch.zeros_like(example)]
        return chosen.gather(1, flattened(labels, 1)).reshape(labels.shape)

    def draw(self, sizes: Tensor, draws: int, *seed: int) -> Tensor:
        """Subsets (draws, 1 or B, N) bool of ``sizes`` (1 or B,) features each, every subset of a
        size as likely as any other."""
        counts = self.counts
        chosen = torch.zeros(draws, len(counts), len(self), dtype=torch.bool)
        for count, size in sorted(
            set(zip(counts.tolist(), sizes.expand(len(counts)).tolist(), strict=True))
        ):
            noise = torch.rand(
                draws, count, generator=generator(*seed, size, count), dtype=torch.float64
            )
            most = 2 * size > count  # then those that are left are found faster
            picked = torch.full((draws, count), most)
            few = noise.topk(count - size if most else size, dim=1, sorted=False).indices
            picked.scatter_(1, few, not most)
            matching = ((counts == count) & (sizes == size)).cpu()
            chosen[:, matching, :count] = picked[:, None]
        return chosen.to(self.present.device)

    def sized(self, size: float, name: str = "size") -> Tensor:
        """(1 or B,) how many features ``size`` means: a count, or a fraction of them between 0 and
        1.

        Raises:
            InputError: for none of the features, and for all or more of them.
        """
        counts = self.counts
        if isinstance(size, bool) or size <= 0:
            raise InputError(f"{name}= is a number of features or a fraction of them, not {size}.")
        if isinstance(size, int):
            sizes = torch.full_like(counts, size)
        elif size < 1:
            sizes = (size * counts).round().long().clamp_min(1)
        else:
            raise InputError(
                f"{name}={size} is no fraction below 1; a number of features is an int."
            )
        fewest = int((counts - sizes).min())
        if fewest < 1:
            raise InputError(
                f"{name}={size} of {int(counts.min())} features leaves nothing to choose: take fewer than there are, or finer "
                'features=, such as "elements".'
            )
        return sizes


def changes(
    subject: Subject, cells: Cells, chosen: Tensor, fill: Fill, score: Score = "output"
) -> Tensor:
    """F(x) − F(x with the chosen features replaced), for subsets (S, 1 or B, N) of every example →
    (B, S).

    Cost:
        B · S rows, whatever the number of maps; F(x) once.
    """
    replace = replacement(subject, fill)
    batch, subsets = len(subject), len(chosen)
    b = torch.arange(batch, device=subject.x.device).repeat(subsets)
    s = torch.arange(subsets, device=b.device).repeat_interleave(batch)
    per_example = chosen.shape[1] > 1

    def make(part: slice) -> Tensor:
        subset, example = s[part], b[part]
        picked = chosen[subset, example if per_example else torch.zeros_like(example)]
        return replace(subject.x[example], cells.gone(picked, example), example)

    values = _streamed_scores(subject, b, make, score)
    return subject.whole(score)[:, None] - values.reshape(subsets, batch).T


def changes_alone(subject: Subject, cells: Cells, fill: Fill, score: Score = "output") -> Tensor:
    """F(x) − F(x with one feature replaced), for every feature and every reference r of the fill →
    (R, B, N); 0 for absent ones.

    Cost:
        R · B · N rows, whatever the number of maps; F(x) once.
    """
    known = adopted(fill) if callable(fill) else None
    seeing = known is not None and known.sees_what_is_left
    blanks = subject.x[None] if seeing else subject.fills(fill)
    present = cells.present.expand(len(subject), -1)
    b, i = present.nonzero().T
    many, references = len(b), len(blanks)
    r = torch.arange(references, device=b.device).repeat_interleave(many)
    b, i = b.repeat(references), i.repeat(references)

    def make(part: slice) -> Tensor:
        example, rows = b[part], subject.x[b[part]]
        place = cells.place[example if len(cells.place) > 1 else torch.zeros_like(example)]
        mask = place == i[part].reshape(-1, *(1,) * (place.ndim - 1))
        return (
            known.without(rows, mask, example)
            if known is not None and seeing
            else torch.where(mask, blanks[r[part], example], rows)
        )

    values = _streamed_scores(subject, b, make, score)
    change = torch.zeros(references, *present.shape, dtype=values.dtype, device=values.device)
    change[r, b, i] = subject.whole(score)[b] - values
    return change


def _streamed_scores(
    subject: Subject, example: Tensor, make: Callable[[slice], Tensor], score: Score
) -> Tensor:
    """The score (n,) of rows of the examples (n,), each built when a model call needs it."""
    values = subject.x.new_empty(len(example))

    def use(part: slice, evaluation: Evaluation) -> None:
        values[part] = evaluation.value

    subject.score(score).stream(example, make, use, subject.x[0], gradient=False)
    return values


def sums(shares: Tensor, chosen: Tensor) -> Tensor:
    """What the chosen features (S, 1 or B, N) of maps (M, B, N) add up to: (M, B, S)."""
    picked = chosen.to(shares.dtype)
    if chosen.shape[1] == 1:
        return torch.einsum("mbn,sn->mbs", shares, picked[:, 0])
    return torch.einsum("mbn,sbn->mbs", shares, picked)


def noise_of(full_scores: Tensor) -> Tensor:
    """(B,) by how much F may change without meaning it: rounding of F(x) (B,)."""
    return 16 * torch.finfo(full_scores.dtype).eps * full_scores.abs().double()


def given_subsets(subsets: Tensor, cells: Cells, batch: int) -> Tensor:
    """Subsets of one's own (S, N) or (S, B, N) bool → (S, 1 or B, N).

    Raises:
        InputError: for another number of features or examples, fewer than two, or other types.
    """
    chosen = subsets.to(cells.present.device)
    fits = (
        chosen.ndim in (2, 3)
        and chosen.shape[-1] == len(cells)
        and (chosen.ndim == 2 or chosen.shape[1] == batch)
    )
    if chosen.dtype != torch.bool or not fits or len(chosen) < 2:
        raise InputError(
            f"subsets= are two booleans (subsets, features) at least for {len(cells)} features, or (subsets, examples, features) "
            f"for {batch} examples, not {chosen.dtype} of shape {describe(chosen.shape)}."
        )
    return chosen[:, None] if chosen.ndim == 2 else chosen
