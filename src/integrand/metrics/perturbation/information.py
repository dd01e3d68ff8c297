"""Performance Information Curves: the score against the information in the picture that gives it
(SIC, AIC).

mask       a random 1 % of the pixels and the four corners: the same for every map
picture_t  pixels of the mask and the t most important ones are kept, all others interpolated
           linearly between them
e_t        bytes of picture_t as lossless WebP, 0 for the mask alone and 1 for the whole image
s_t        score of picture_t, 0 for the mask alone and 1 for the whole image
"""

from __future__ import annotations

import io
import zlib
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.normalisation import Normalisation
from ...core.optional import optional
from ...core.random import generator
from ...core.segment import Evaluation
from ...core.shapes import describe
from ...core.values import part
from ...errors import InputError, MissingExtra, ShapeError
from ..base import Metric, functional, metric
from ..maps import Maps
from ..task import Score, Subject
from .curve import area
from .removal import ranked

_POINTS = 1000  # of the common axis that curves are read at, and one for the whole image
_HIDDEN = 0.01  # of the pixels are in the random mask


@part
class _Information(Metric):
    thresholds: tuple[float, ...] = (
        0.005,
        0.01,
        0.02,
        0.03,
        0.04,
        0.05,
        0.07,
        0.10,
        0.13,
        0.21,
        0.34,
        0.5,
        0.75,
    )
    least: float = 0.8
    monotone: bool = True
    aggregate: str = "median"
    rank: str = "signed"
    mask: Tensor | None = None
    seed: int = 0

    score: ClassVar[Score]
    higher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.aggregate not in ("median", "mean"):
            raise InputError(f'aggregate= is "median" or "mean", not {self.aggregate!r}.')
        if not self.thresholds or not all(0 < share <= 1 for share in self.thresholds):
            raise InputError(
                f"thresholds= are shares of the pixels above 0 and up to 1, not {self.thresholds}."
            )
        if list(self.thresholds) != sorted(self.thresholds):
            raise InputError(f"thresholds= rise, and {self.thresholds} do not.")

    def measure(self, subject: Subject, maps: Maps) -> Tensor:
        """The curves (M, B, 1001) over information from 0 to 1; NaN for images that are left
        out."""
        pictures = _pictures(subject)
        place = ranked(subject, maps, "pixels", self.seed, self.rank).place[:, :, 0].cpu().numpy()
        curves = np.full((*place.shape[:2], _POINTS + 1), np.nan)
        scorer = _PictureScores(subject, self.score)
        full_scores = scorer(pictures, np.arange(len(pictures)))
        for example, picture in enumerate(pictures):
            hidden = self._mask(picture)
            start = _interpolated(picture, hidden)
            low, high = _bytes(start), _bytes(picture)
            first = scorer(start[None], np.array([example]))[0]
            if full_scores[example] < self.least or first >= full_scores[example] or low >= high:
                continue
            shown, sizes = self._shown(subject, maps, example, picture, hidden, place[:, example])
            scores = scorer(shown, np.full(len(shown), example)).reshape(len(place), -1)
            information = ((sizes - low) / (high - low)).clip(0, 1)
            performance = ((scores - first) / (full_scores[example] - first)).clip(0, 1)
            if self.monotone:
                performance = np.maximum.accumulate(performance, axis=1)
            for method in range(len(place)):
                curves[method, example] = _curve(information[method], performance[method])
        return torch.from_numpy(curves).to(subject.x)

    def _shown(
        self,
        subject: Subject,
        maps: Maps,
        example: int,
        picture: NDArray[Any],
        hidden: NDArray[Any],
        place: NDArray[Any],
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """The pictures (M · thresholds, H, W, C) of an example, and their bytes (M, thresholds):
        the same for every score."""
        counts = [int((hidden.size - 1) * fraction) + 1 for fraction in self.thresholds]

        def rendered() -> tuple[NDArray[Any], NDArray[Any]]:
            shown = [
                _interpolated(picture, hidden | (ranks < k)) for ranks in place for k in counts
            ]
            return np.stack(shown), np.array([_bytes(image) for image in shown]).reshape(
                len(place), -1
            )

        # The subject keeps the map alive that the key names by where it is.
        key = (id(maps), example, self.thresholds, self.rank, self.seed, hidden.tobytes())
        return subject.once(key, lambda: (maps, rendered()))[1]

    def values(self, measured: Tensor) -> Tensor:
        return area(measured)

    def summary(self, measured: Tensor) -> Tensor:
        """The area under the median (or mean) curve of the images that have one (M,); NaN where
        none has."""
        if self.aggregate == "mean":
            return area(measured.nanmean(1))
        return torch.stack([area(_median(curves[~curves.isnan().any(1)])) for curves in measured])

    def _mask(self, picture: NDArray[Any]) -> NDArray[Any]:
        """(H, W) bool: pixels that every picture shows."""
        height, width = picture.shape[:2]
        if self.mask is not None:
            mask = self.mask.bool().cpu().numpy().copy()
            if mask.shape != (height, width):
                raise ShapeError(
                    f"mask= has shape {describe(mask.shape)}, the images {describe((height, width))}."
                )
        else:
            # Another mask for another image, and the same in whatever batch it comes.
            stream = generator(self.seed, zlib.crc32(picture.tobytes()))
            mask = np.zeros(height * width, dtype=bool)
            mask[
                torch.randperm(height * width, generator=stream)[
                    : int(_HIDDEN * height * width)
                ].numpy()
            ] = True
            mask = mask.reshape(height, width)
        mask[[0, 0, -1, -1], [0, -1, 0, -1]] = True
        return mask


@metric("sic")
@part
class SIC(_Information):
    """Softmax Information Curve: the area under the class probability over the information shown.

    Higher is better.

        e_t = (bytes_t − bytes_mask) / (bytes_image − bytes_mask),   s_t = (p_t − p_mask) / (p_image − p_mask),   both kept within [0, 1];
        a line through (0, 0), all (e_t, s_t), (1, 1), read at 1001 points; the area under it

    An image is left out, NaN in ``values``, where p_image < least, p_mask ≥ p_image, or bytes_mask
    ≥ bytes_image (pictures of a few pixels, or of noise). ``(~values.isnan()).sum(1)`` says how
    many are in: which ones is up to the model and the image, so that methods are compared on the
    same ones. Where none is, ``summary`` is NaN.

    The field has to know its normalisation, and images have one channel or three: pictures are
    made, and the model asked, in colours rounded to 8 bits.

    Needs integrand[curves] (scipy, Pillow with WebP).

    Args:
        thresholds: t, shares of the pixels that are shown, the most important ones.
        least: images whose probability is below this are left out.
        monotone: s_t is the largest so far.
        aggregate: ``summary`` is the area under the "median" curve of all images, or under the
            "mean" curve.
        mask: (H, W) bool, pixels always shown (the corners are besides); else a random 1 %, drawn
            from the seed and the image itself.
        rank: what pixels are ranked by, as in ``Deletion``.
        seed: of the mask, and of the shuffle that breaks ties.

    Raises:
        InputError: without a normalisation.
        ShapeError: for images of other than one or three channels, and for a mask of another size.
        MissingExtra: without scipy, or without pillow's WebP.

    Cost:
        One row, one interpolation and one compression for each threshold, map and example, two more
        per example. At 224 × 224 the latter two take from a quarter of a second to two, the more
        pixels are shown the more, mostly to triangulate them.

    Pitfalls:
        The mean of areas is not the area of the median curve; bytes depend on the version of
        libwebp; the map's sign matters, as its pixels are ranked by their signed sum over channels.

    Peers:
        As PAIR's ``pic.py``, which fails on NumPy 2.4, where a map has no ties. Where values tie at
        a threshold it shows all of them (a constant map reveals the whole image at once); here ties
        are shuffled and shares are what they say.

    References:
        Kapishnikov et al., "XRAI", ICCV 2019.
    """

    score: ClassVar[Score] = "probability"


@metric("aic")
@part
class AIC(_Information):
    """Accuracy Information Curve: as ``SIC``, with 1 for "the class explained is predicted" and 0
    for not in place of its probability.

    Images are left out where the class is not predicted, where the mask alone predicts it, or for
    their bytes: other images than SIC leaves out. Judged beside SIC it costs rows only: the
    pictures are the same.

    Args:
        thresholds: t, shares of the pixels that are shown, the most important ones.
        least: images whose probability is below this are left out of SIC; here those whose class is
            not predicted are.
        monotone: whether s_t is the largest so far.
        aggregate: ``summary`` is the area under the "median" curve of all images, or under the
            "mean" curve.
        rank: what pixels are ranked by, as in ``Deletion``.
        mask: (H, W) bool, pixels always shown (the corners are besides); else a random 1 %.
        seed: of the mask, and of the shuffle that breaks ties.

    Peers:
        The port to IDG's repository takes the probability for the mask alone.

    """

    score: ClassVar[Score] = "accuracy"


sic = functional(SIC)
aic = functional(AIC)


# --- pictures ---------------------------------------------------------------------------------------------------------


class _PictureScores:
    """The score of 8-bit pictures (N, H, W, C) of the examples (N,)."""

    def __init__(self, subject: Subject, score: Score) -> None:
        self.subject, self.field = subject, subject.score(score)
        self.normalisation = _normalisation(subject)

    def __call__(self, pictures: NDArray[Any], example: NDArray[Any]) -> NDArray[Any]:
        x = self.subject.x
        index = torch.from_numpy(example).to(x.device)
        values = x.new_empty(len(index))

        def make(part: slice) -> Tensor:
            colours = torch.from_numpy(pictures[part]).to(x) / 255
            return self.normalisation.encode(colours.permute(0, 3, 1, 2)).contiguous()

        def use(part: slice, evaluation: Evaluation) -> None:
            values[part] = evaluation.value

        self.field.stream(index, make, use, x[0], gradient=False)
        return values.double().cpu().numpy()


def _normalisation(subject: Subject) -> Normalisation:
    if subject.field.normalisation is None:
        raise InputError(
            "Information is counted in pictures, so it has to be known which number the model takes for which colour: pass "
            "normalisation= (e.g. ig.Normalisation.imagenet(), or .unit() for images in [0, 1])."
        )
    return subject.field.normalisation


def _pictures(subject: Subject) -> NDArray[Any]:
    """The inputs as 8-bit pictures (B, H, W, C)."""
    x = subject.x
    if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < 2:
        raise ShapeError(
            f"Information is counted in pictures of 1 or 3 channels and 2 x 2 pixels at least, and an example has shape {describe(x.shape[1:])}."
        )
    colours = _normalisation(subject).decode(x) * 255
    return colours.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _interpolated(picture: NDArray[Any], shown: NDArray[Any]) -> NDArray[Any]:
    """A picture (H, W, C) with all but the pixels ``shown`` (H, W) interpolated linearly between
    these."""
    if shown.all():
        return picture
    interpolate = optional("scipy.interpolate", extra="curves", needs="An information curve")
    result = picture.copy()
    fill = picture.mean(
        (0, 1)
    )  # outside of all pixels shown, where rounding may put a pixel of the edge
    interpolated = interpolate.LinearNDInterpolator(
        np.argwhere(shown), picture[shown].astype(float)
    )(np.argwhere(~shown))
    # In single precision: halves, which are many, then round alike whatever the last digit of an
    # interpolation says.
    result[~shown] = np.where(np.isnan(interpolated), fill, interpolated).astype(np.float32).round()
    return result


def _bytes(picture: NDArray[Any]) -> int:
    """How many bytes a picture (H, W, C) takes as lossless WebP."""
    image = optional("PIL.Image", extra="curves", needs="An information curve")
    features = optional("PIL.features", extra="curves", needs="An information curve")
    if not features.check("webp"):
        raise MissingExtra(
            "pillow", "curves", "An information curve (this Pillow was built without WebP)"
        )
    if max(picture.shape[:2]) > 16383:
        raise ShapeError(
            f"WebP holds pictures of 16383 pixels a side, not {describe(picture.shape[:2])}."
        )
    buffer = io.BytesIO()
    image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(
        buffer, format="webp", lossless=True, quality=100
    )
    return buffer.getbuffer().nbytes


def _median(curves: Tensor) -> Tensor:
    """The median (N,) of curves (B, N), of an even number of them between the middle two; NaN of
    none."""
    if not len(curves):
        return curves.new_full(curves.shape[1:], torch.nan)
    ordered = curves.sort(0).values
    return (ordered[(len(curves) - 1) // 2] + ordered[len(curves) // 2]) / 2


def _curve(information: NDArray[Any], performance: NDArray[Any]) -> NDArray[Any]:
    """The line through (0, 0), the points, and (1, 1), read at 1001 points."""
    x = np.concatenate([information, [0.0, 1.0]])
    y = np.concatenate([performance, [0.0, 1.0]])
    order = np.argsort(x, kind="stable")
    curve: NDArray[Any] = np.interp(np.arange(_POINTS + 1) / _POINTS, x[order], y[order])
    curve[-1] = 1
    return curve
