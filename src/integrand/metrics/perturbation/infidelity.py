"""Infidelity: the error of a map as a prediction of what perturbations do to F."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ...core.features import Features
from ...core.random import generator
from ...core.segment import Evaluation
from ...core.shapes import describe, flattened
from ...core.values import part
from ...errors import InputError, ShapeError
from ..base import Metric, functional, metric
from ..maps import Maps
from ..task import Fill, Score, Subject
from .removal import Replace, replacement
from .subsets import Cells

Perturb = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""(x rows (n, \\*s), fill rows (n, \\*s), generator) -> rows (n, \\*s) as they become, or bool (n
or 1, \\*s), what the fill replaces.

Called once for every draw and some of the examples, each time with the same generator: draw noise
of shape (1, \\*s), so that examples share it."""


@part
class NoisyFill:
    """The fill with normal noise: every feature is perturbed at once.

    Yeh et al.'s "Gaussian" perturbation as their code has it: black, std 0.2, cut to [0, 1].

    Args:
        std: the deviation of the noise, in the model's numbers.
        low: where it is cut off below; nowhere unless given.
        high: where it is cut off above; nowhere unless given.

    Example:
        >>> import integrand as ig
        >>> ig.metrics.Infidelity(perturb=ig.metrics.NoisyFill(0.2, 0.0, 1.0)).perturb
        NoisyFill(low=0.0, high=1.0)
    """

    std: float = 0.2
    low: float | None = None
    high: float | None = None

    def __call__(self, x: Tensor, blank: Tensor, random: torch.Generator) -> Tensor:
        noise = torch.randn((1, *x.shape[1:]), generator=random, dtype=torch.float64).to(x)
        moved = blank + self.std * noise
        return moved if self.low is None and self.high is None else moved.clamp(self.low, self.high)


@part
class Jitter:
    """The input with normal noise of deviation ``std``: I ~ N(0, std²), small ones for
    gradient-like maps."""

    std: float = 0.2

    def __call__(self, x: Tensor, blank: Tensor, random: torch.Generator) -> Tensor:
        return x - self.std * torch.randn(
            (1, *x.shape[1:]), generator=random, dtype=torch.float64
        ).to(x)


@part
class Square:
    """A square of an image replaced: its side is one of 1 … ``most``, and it lies anywhere in the
    image (Yeh et al.: 10 of 28)."""

    most: int = 10

    def __call__(self, x: Tensor, blank: Tensor, random: torch.Generator) -> Tensor:
        if x.ndim != 4:
            raise ShapeError(
                f'Squares are cut from images (C, H, W), not from {describe(x.shape[1:])}: take perturb="subset".'
            )
        height, width = x.shape[2:]
        side, row, column = torch.rand(3, generator=random, dtype=torch.float64).tolist()
        side = 1 + int(side * min(self.most, height, width))
        top, left = int(row * (height - side + 1)), int(column * (width - side + 1))
        mask = torch.zeros(1, 1, height, width, dtype=torch.bool, device=x.device)
        mask[..., top : top + side, left : left + side] = True
        return mask


@part
class RandomFeatures:
    """Features replaced at random, one at least.

    Args:
        share: how probable it is for each.
        features: what is replaced at a time, as in ``Deletion``.

    Example:
        >>> import integrand as ig
        >>> ig.metrics.Infidelity(perturb=ig.metrics.RandomFeatures(0.1)).perturb
        RandomFeatures(0.1)
    """

    share: float = 0.5
    features: Features = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"share= is between 0 and 1, not {self.share}.")

    def __call__(self, x: Tensor, blank: Tensor, random: torch.Generator) -> Tensor:
        if isinstance(self.features, Tensor) and self.features.ndim == x.ndim - 1:
            raise InputError(
                "Subsets for infidelity need label maps that the examples share (H, W), not one for each."
            )
        cells = Cells.of(self.features, x[:1])
        noise = torch.rand(1, len(cells), generator=random, dtype=torch.float64).to(x.device)
        chosen = (noise < self.share) | (noise == noise.amin())
        return cells.gone(chosen, torch.zeros(1, dtype=torch.long, device=x.device))


PERTURB: dict[str, Perturb] = {
    "gaussian": NoisyFill(),
    "jitter": Jitter(),
    "square": Square(),
    "subset": RandomFeatures(),
}
"""Perturbations by name."""


@metric("infidelity")
@part
class Infidelity(Metric):
    """Infidelity: the squared error of what a map says a perturbation I does, against what it does.

    Lower is better, 0 at best.

        E_I [ ( β · φ[I] − (F(x) − F(x − I)) )² ]

        form="global"   φ[I] = Σ_i φ_i · I_i / (x_i − fill_i)    for maps that add up: all of I = x − fill moves what they sum to
        form="local"    φ[I] = Σ_i φ_i · I_i                     for maps that are slopes, such as a gradient

    Units: those of F, squared. A map of zeros has E[ΔF²], with or without β.

    Args:
        form: "global" is right for Integrated Gradients, Shapley values, input × gradient and
            everything multiplied by the input; say which one was used: each makes a perfect map of
            the other kind look bad.
        perturb: "subset": features replaced by the fill, each with probability ½; "square": a
            square of 1 to 10 pixels; "gaussian": everything, by the fill and noise of deviation 0.2
            (as coded by the authors, who also cut to [0, 1]: ``NoisyFill(0.2, 0, 1)``); "jitter":
            the input and such noise; ``ig.metrics.NoisyFill``, ``Jitter``, ``Square`` or
            ``RandomFeatures`` with other numbers; or a function (x, fill, generator) → rows as they
            become, or bool, what the fill replaces. Where it replaces, φ[I] of the global form is
            just the sum of the replaced.
        draws: perturbations, the same for all maps and examples.
        fill: a number, a tensor, a name, or any baseline.
        scale: True: β = E[φ[I] ΔF] / E[φ[I]²] for each map and example, the factor that serves it
            best, as in all the paper's numbers; False: β = 1, the definition.
        score: "output", the scalar that the map explains, "probability" of its class, or a target.
        seed: of the draws.

    Cost:
        ``draws`` rows for each example, whatever the number of maps, and one for F(x).

    Pitfalls:
        Large values come from large F, compare maps of one model only; perturbations that move
        everything judge one direction over and over; a feature equal to its fill is moved by noise,
        but the global form has nothing to say of it.

    Peers:
        Captum's infidelity agrees (to 1e-5 for the same perturbations) with form="local", and with
        form="global" where its perturbations are divided by x − fill (multiply_by_inputs); its
        normalize=True is scale=True. Quantus' Infidelity never puts back the block it replaced
        before the next one, always takes φ · (x − x'), and repeats one number n_perturb_samples
        times.

    References:
        Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019 (10 000
        draws).

    Example:
        >>> import torch, integrand as ig
        >>> model, x = torch.nn.Linear(4, 3), torch.randn(5, 4)
        >>> found = ig.metrics.infidelity(model, x, ig.explain(model, x, target=0), target=0)
        >>> bool((found < 1e-6).all())
        True
    """

    form: str = "global"
    perturb: str | Perturb = "subset"
    draws: int = 1000
    fill: Fill = 0.0
    scale: bool = False
    score: Score = "output"
    seed: int = 0

    higher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.form not in ("global", "local"):
            raise InputError(
                f'form= is "global" for maps that add up or "local" for slopes, not {self.form!r}.'
            )
        if self.draws < 1:
            raise InputError(f"Infidelity is a mean over one draw at least, not {self.draws}.")
        if isinstance(self.perturb, str) and self.perturb not in PERTURB:
            raise InputError(
                f"perturb= is one of {', '.join(map(repr, PERTURB))}, or a function, not {self.perturb!r}."
            )

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        predicted, changes = self._predicted_and_observed(subject, maps)
        predicted, changes = predicted.double(), changes.double()
        if self.scale:
            squares = predicted.square().mean(-1, keepdim=True)
            beta = (predicted * changes).mean(-1, keepdim=True) / squares
            predicted = torch.where(squares == 0, 0, beta * predicted)
        return (predicted - changes).square().mean(-1).to(maps.values.dtype)

    def _predicted_and_observed(self, subject: Subject, maps: Maps) -> tuple[Tensor, Tensor]:
        """Changes of F that maps predict for each draw (M, B, D), and those observed (B, D)."""
        x, blank = subject.x, subject.fill(self.fill)
        replace = replacement(subject, self.fill)
        batch = len(x)
        predicted = x.new_empty(len(maps), self.draws * batch)
        values = x.new_empty(self.draws * batch)
        index = torch.arange(batch, device=x.device).repeat(self.draws)

        def make(part: slice) -> Tensor:
            rows, place = [], part.start
            while place < part.stop:  # a draw at a time: examples share it
                draw, first = divmod(place, batch)
                examples = slice(first, min(batch, first + part.stop - place))
                columns = slice(place, place + examples.stop - examples.start)
                rows.append(
                    self._moved(
                        x, blank, replace, maps.values, draw, examples, predicted[:, columns]
                    )
                )
                place = columns.stop
            return torch.cat(rows)

        def use(part: slice, evaluation: Evaluation) -> None:
            values[part] = evaluation.value

        subject.score(self.score).stream(index, make, use, x[0], gradient=False)
        changes = subject.whole(self.score)[:, None] - values.reshape(self.draws, batch).T
        return predicted.reshape(len(maps), self.draws, batch).transpose(1, 2), changes

    def _moved(
        self,
        x: Tensor,
        blank: Tensor,
        replace: Replace,
        values: Tensor,
        draw: int,
        examples: slice,
        predicted: Tensor,
    ) -> Tensor:
        """Some examples (n, \\*s) as a draw leaves them; the change that maps predict is written
        to ``predicted`` (M, n)."""
        perturb = PERTURB[self.perturb] if isinstance(self.perturb, str) else self.perturb
        rows, filled = x[examples], blank[examples]
        became = perturb(rows, filled, generator(self.seed, draw))
        if became.dtype == torch.bool:
            mask = became.expand(rows.shape)
            became = replace(rows.clone(), mask, torch.arange(len(x), device=x.device)[examples])
            part = mask.to(x.dtype) if self.form == "global" else rows - became
        else:
            if became.shape != rows.shape:
                raise ShapeError(
                    f"perturb= returned {describe(became.shape)} for rows of shape {describe(rows.shape)}: rows like these, or bool."
                )
            became = became.to(rows)
            part = rows - became
            if self.form == "global":
                difference = rows - filled
                part = torch.where(difference == 0, 0, part / difference)
        predicted.copy_(flattened(values[:, examples] * part, 2).sum(-1))
        return became


infidelity = functional(Infidelity)
