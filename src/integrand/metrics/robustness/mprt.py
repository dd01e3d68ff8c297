"""Model parameter randomisation tests: how alike maps stay as layers become random."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ...core.features import Features
from ...core.random import generator
from ...core.shapes import flattened
from ...core.values import part
from ...errors import InputError
from ...fields import Field
from ..base import Metric, functional, metric
from ..maps import Explainer, Maps, explained
from ..perturbation.subsets import Cells
from ..task import Subject
from .reset_weights import unlearning
from .similarity import check_similarity, map_similarity


@metric("mprt")
@part
class MPRT(Metric):
    """Model parameter randomisation test: how like itself a map stays as layers become random.

    Lower is better, 0 unlike.

        similarity( φ(x; model), φ(x; model with random layers) ),    for further and further layers; the mean over these

    measured (M, B, L) is the curve over the layers, in the order they are made random; with
    "top_down" and "bottom_up" its last entry is the fully random model.

    A layer is a module with parameters of its own; it is drawn anew by its own reset_parameters(),
    as before training, else from the normal distribution of its parameters' mean and deviation. The
    class explained stays. The model is given back exactly as it was, also after an error. Needs a
    torch model whose module is at hand, and to know how the maps were made: an Attribution knows, a
    tensor goes with ``method=``.

    Undefined (NaN): where a map is the same everywhere, before or after; a layer where it is, is
    missing from the mean.

    Args:
        order: "top_down": from the output on, each on top of those before, as published;
            "bottom_up"; "independent": one at a time.
        stages: as many steps, of several layers each, for deep models; a step for every layer
            unless given.
        similarity: "spearman", "pearson", or "ssim" (images; needs scikit-image).
        absolute: compare |φ|: a map of the other sign everywhere is then the same.
        features: what is ranked: "auto" is pixels for images, tokens for (T, D), elements
            otherwise.
        seed: of the random layers, the same for all methods.

    Raises:
        ModelError: for fields without a module, such as a function or an analytic field.

    Cost:
        L explanations of every example by every method.

    Pitfalls:
        From the top down, the lower layers, and edges that they see, stay; random maps pass best;
        noise in the maps makes them unlike on any model (``SmoothMPRT``); a low similarity means
        "depends on parameters", not "right". Maps multiplied by x stay like x.

    Peers:
        Quantus' MPRT compares single numbers (features="elements") of maps divided by their
        maximum, takes layers in the order in which they were registered, all with one seed (layers
        of one shape become equal), skips parameters outside reset_parameters(), and counts the
        original's similarity to itself, 1, into return_average_correlation (0.6). Its seeding
        changes torch's global generator.

    References:
        Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.

    Example:

    >>> import torch, integrand as ig
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    >>> x = torch.randn(5, 8)
    >>> ig.metrics.mprt(model, x, ig.explain(model, x, target=0), target=0).shape
    torch.Size([5])
    """

    order: str = "top_down"
    similarity: str = "spearman"
    absolute: bool = False
    features: Features = "auto"
    stages: int | None = None
    seed: int = 0

    higher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_similarity(self.similarity)

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        methods = maps.explainers()
        values = self._original(subject, maps)
        curve = []
        with unlearning(
            subject.field, subject.x, order=self.order, stages=self.stages, seed=self.seed
        ) as stages:
            for _, fresh in stages:
                random = torch.stack(
                    [self._explained(method, fresh, subject.x) for method in methods]
                )
                curve.append(
                    map_similarity(
                        values, random, self.similarity, self.features, absolute=self.absolute
                    )
                )
        return torch.stack(curve, -1)

    def values(self, measured: Tensor) -> Tensor:
        return measured.nanmean(-1)

    def _original(self, subject: Subject, maps: Maps) -> Tensor:
        return maps.values

    def _explained(self, method: Explainer, field: Field, x: Tensor) -> Tensor:
        return explained(method, field, x)


@metric("smooth_mprt")
@part
class SmoothMPRT(MPRT):
    """Smooth MPRT: the randomisation test on maps averaged over noisy inputs, so that noise does
    not pass for dependence.

    Lower is better.

        similarity( φ̄(x; model), φ̄(x; model with random layers) ),    φ̄(x) = mean over draws of φ(x + ε),  ε ~ N(0, (noise · range of x)²)

    Undefined values, errors and pitfalls as for ``MPRT``.

    Args:
        draws: noisy inputs; the same noise for every stage, method and example.
        noise: its deviation, in parts of the difference between the largest and the smallest number
            of the example.
        order: as in ``MPRT``.
        similarity: as in ``MPRT``.
        absolute: as in ``MPRT``.
        features: as in ``MPRT``.
        stages: as in ``MPRT``.
        seed: as in ``MPRT``.

    Cost:
        (L + 1) · draws explanations of every example by every method.

    Peers:
        Quantus' SmoothMPRT leaves the last of its 50 draws without noise, and draws anew for every
        layer.

    References:
        Hedström et al., "Sanity checks revisited", 2024 (50 draws, noise 0.1).
    """

    draws: int = 50
    noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1 or self.noise < 0:
            raise InputError(
                f"Maps are averaged over one draw at least, of noise from 0: got {self.draws} and {self.noise}."
            )

    def _original(self, subject: Subject, maps: Maps) -> Tensor:
        return torch.stack(
            [self._explained(method, subject.field, subject.x) for method in maps.explainers()]
        )

    def _explained(self, method: Explainer, field: Field, x: Tensor) -> Tensor:
        low, high = flattened(x, 1).aminmax(dim=1)
        deviation = self.noise * (high - low).reshape(-1, *(1,) * (x.ndim - 1))
        mean = torch.zeros_like(x)
        for draw in range(self.draws):
            random = generator(self.seed, draw)
            noise = torch.randn(1, *x.shape[1:], generator=random, dtype=torch.float64).to(x)
            mean += explained(method, field, x + deviation * noise) / self.draws
        return mean


@metric("efficient_mprt")
@part
class EfficientMPRT(Metric):
    """Efficient MPRT: by how much more complex a map becomes when the whole model is random.

    Higher is better.

        (H(φ_random) − H(φ)) / H(φ),     H the entropy of the map's histogram, −Σ p ln p over
                                         ``bins`` equal bins from its least to its largest

    Layers, needs and errors as for ``MPRT``.

    Undefined (NaN): maps that are the same everywhere, whose entropy is 0. A random model whose map
    is the same everywhere gives −1.

    Args:
        bins: of the histogram.
        draws: random models, averaged over.
        features: what is counted: "auto" is pixels for images, tokens for (T, D), elements
            otherwise.
        seed: of the random models.

    Cost:
        ``draws`` explanations of every example by every method.

    Pitfalls:
        A histogram of few features says little, 100 bins want pictures; outliers fill one bin and
        make H small.

    Peers:
        Quantus' EfficientMPRT agrees (to 1e-5 for the same maps) with features="elements".

    References:
        Hedström et al., "Sanity checks revisited", 2024.

    Example:

    >>> import torch, integrand as ig
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    >>> x = torch.randn(5, 8)
    >>> ig.metrics.efficient_mprt(model, x, ig.explain(model, x, target=0), target=0, bins=4).shape
    torch.Size([5])
    """

    bins: int = 100
    draws: int = 1
    features: Features = "auto"
    seed: int = 0

    higher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.bins < 2 or self.draws < 1:
            raise InputError(
                f"A histogram has two bins at least, of one draw or more: got {self.bins} and {self.draws}."
            )

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        methods = maps.explainers()
        before = self._entropy(maps.values)
        gains = []
        for draw in range(self.draws):
            with unlearning(subject.field, subject.x, stages=1, seed=self.seed + draw) as stages:
                ((_, fresh),) = stages
                random = torch.stack([explained(method, fresh, subject.x) for method in methods])
            gains.append(self._entropy(random) - before)
        mean = torch.stack(gains).mean(0) / torch.where(before == 0, torch.nan, before)
        return mean.to(maps.values.dtype)

    def _entropy(self, maps: Tensor) -> Tensor:
        cells = Cells.of(self.features, maps[0])
        return entropy(cells.shares(maps), cells.present, self.bins)


def entropy(values: Tensor, present: Tensor, bins: int) -> Tensor:
    """Entropy (…) of the histograms of rows (…, N): −Σ p ln p over equal bins between the least and
    the largest number."""
    present = present.expand(values.shape)
    low = torch.where(present, values, torch.inf).amin(-1, keepdim=True)
    high = torch.where(present, values, -torch.inf).amax(-1, keepdim=True)
    width = high - low
    place = ((values - low) / torch.where(width == 0, 1, width) * bins).long().clamp(0, bins - 1)
    counts = values.new_zeros(*values.shape[:-1], bins).scatter_add_(
        -1, place, present.to(values.dtype)
    )
    frequency = counts / counts.sum(-1, keepdim=True)
    return -torch.xlogy(frequency, frequency).sum(-1)


mprt = functional(MPRT)
smooth_mprt = functional(SmoothMPRT)
efficient_mprt = functional(EfficientMPRT)
