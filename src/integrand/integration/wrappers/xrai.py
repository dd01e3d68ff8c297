"""XRAI: the regions of an image that matter, from the map of any method.

    pixels      a(p) = max_c A(x)_{c,p}
    segments    over-segmentations of the image at several scales, each segment grown by a few
                pixels: they overlap
    ranking     S ← ∅;   take the segment with the largest mean of a over its pixels outside S;   S ← S ∪ segment;   and so on
    map         every pixel gets the mean with which it was taken

Segments of all scales compete, so a region is as fine or coarse as the map wants it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.declared import Adopted
from ...core.normalisation import Normalisation
from ...core.optional import optional
from ...core.shapes import describe
from ...core.values import part
from ...errors import InputError, ShapeError
from ...fields import Field
from ...model.autograd import gradients
from ..assemble import Watch, rearranged
from ..attribution import Attribution, Explainer, ExplainerLike, Wrapper, as_explainer
from ..cost import Cost
from .base import Runs, check_wrappable, nan_like, one_call

_SIDE = 224  # of the images that the published scales are meant for
_SMOOTHING, _LEAST = 0.8, 150  # of Felzenszwalb's segments: blur in pixels, pixels of the smallest
_RANGE = (-1.0, 1.0)


@part
class XRAI(Wrapper):
    """XRAI: the map of a method, averaged over regions that are ranked by it.

        a(p) = max_c A(x)_{c,p};   next region: the segment with the largest mean of a over its
                                   pixels that are not taken yet

    ``values`` (B, C, H, W) are the region's mean, shared evenly by the channels, so that channels
    add up to it; ``notes["regions"]`` (1, 1, B, H, W) holds the number of each pixel's region, 0
    for the one with the largest mean, in falling order; what was never taken comes last. Where
    ``segments`` are None the image is brought to colours between −1 and 1 (as the eye sees it where
    the field knows its normalisation), resized to 224 × 224, segmented there (blur 0.8, at least
    150 pixels), and the labels resized back.

    With "max" the map does not add up to a change of F; ``residual`` says by how much. ``error`` is
    not estimated.

    Args:
        method: any method whose map is of images; XRAI's is Integrated Gradients from the darkest
            and the lightest image.
        scales: of Felzenszwalb's segmentation, larger for larger segments.
        dilation: every segment is grown by so many pixels, so that edges fall inside.
        least: a segment that would add fewer pixels than this is left out; what is never taken
            shares one mean.
        channels: how channels make one number for a pixel: "max" as published, or "sum": then the
            map adds up to what the method's own does.
        segments: label maps (S, H, W) of one's own instead of Felzenszwalb's, or a function: image
            (C, H, W) in [0, 1] → label maps; each of the S is an over-segmentation of its own.

    Raises:
        ShapeError: for what is no image.
        InputError: where ``least`` is more than the image has pixels.
        MissingExtra: where the package that this needs is missing.

    Cost:
        The method's, and about a second per image of 224 × 224 for segments. Needs
        integrand[images] (scikit-image), unless ``segments`` are given and ``dilation`` is 0.

    References:
        Kapishnikov et al., "XRAI: Better Attributions Through Regions", ICCV 2019 (arXiv
        1906.02825). The defaults, the segments and the ranking are those of the published code's
        full algorithm (PAIR-code/saliency 0.2.1), number for number. It differs in four things: its
        ranking begins at 1; it segments the model's own numbers also where colours are known; its
        Integrated Gradients are the mean of gradients at 100 even places, both ends as much as the
        others, which is off by O(1/100); and its option to stop at a fraction of the image, and the
        fast algorithm, which looks at each segment once, are left out.

    Example:
        >>> import torch, integrand as ig
        >>> field = ig.fields.Linear(torch.tensor([[[1.0, 1.0, 0.0, 0.0]] * 4]))
        >>> halves = torch.tensor([[[0, 0, 1, 1]] * 4])
        >>> method = ig.XRAI(ig.methods.integrated(), dilation=0, least=1, segments=halves)
        >>> result = method(field, torch.ones(1, 1, 4, 4))
        >>> result.values[0, 0, 0].tolist(), result.notes["regions"][0, 0, 0, 0].tolist()
        ([1.0, 1.0, 0.0, 0.0], [0, 0, 1, 1])
    """

    method: Adopted[ExplainerLike, Explainer] = Adopted(as_explainer)
    scales: tuple[float, ...] = (50.0, 100.0, 150.0, 250.0, 500.0, 1200.0)
    dilation: int = 5
    least: int = 50
    channels: str = "max"
    segments: Tensor | Callable[[Tensor], Tensor] | None = None

    at_layers: ClassVar[bool] = False
    """What is at a layer is no picture."""

    @property
    def complete(self) -> bool:
        """With "sum" the map adds up to what the method's own does; of several channels the largest
        does not."""
        return self.channels == "sum" and self.method.complete

    def __post_init__(self) -> None:
        check_wrappable(self.method, "XRAI", layers=False)
        if not self.scales or min(self.scales) <= 0:
            raise InputError(f"scales are one or more positive numbers, not {self.scales}.")
        if self.dilation < 0 or self.least < 1:
            raise InputError(
                f"dilation is 0 or more pixels and least 1 or more, not {self.dilation} and {self.least}."
            )
        if self.channels not in ("max", "sum"):
            raise InputError(f"channels is 'max' or 'sum', not {self.channels!r}.")

    @one_call
    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        if x.ndim != 4:
            raise ShapeError(
                f"Regions are of images (channels, height, width), and an example has shape {describe(x.shape[1:])}. For other "
                "data rank groups of features with ig.GreedyPIG(method, features=a label map)."
            )
        if x.shape[2] * x.shape[3] < self.least:
            raise InputError(
                f"No segment of an image of {describe(x.shape[2:])} pixels can add least={self.least} of them: give a smaller least=, "
                "and a smaller dilation= with it."
            )
        if self.segments is None or self.dilation:
            _skimage()  # before any gradient
        began = time.perf_counter()
        segmented = [self._masks(image, field.normalisation) for image in x]
        runs = Runs(watch, 1)
        runs.add(Cost(seconds=time.perf_counter() - began))
        attribution = runs(self.method, field, x)
        with gradients(False):
            pixels = (
                attribution.values.amax(1) if self.channels == "max" else attribution.values.sum(1)
            )
            rankings = [
                _rank_segments(pixel_map, masks, self.least)
                for pixel_map, masks in zip(pixels, segmented, strict=True)
            ]
        heat, regions = (torch.stack(parts) for parts in zip(*rankings, strict=True))
        channels = x.shape[1]
        return rearranged(
            attribution,
            (heat[:, None] / channels).expand_as(attribution.values).contiguous(),
            error=nan_like(attribution.error),
            notes={**attribution.notes, "regions": regions[None, None]},
            cost=runs.cost,
            method=self,
        )

    def _masks(self, image: Tensor, normalisation: Normalisation | None) -> Tensor:
        """The segments (M, H·W) of an image (C, H, W) that compete, grown."""
        picture = _picture(image, normalisation)
        labels = self._labels(picture)
        if labels.ndim != 3 or labels.shape[1:] != image.shape[1:] or labels.is_floating_point():
            raise ShapeError(
                f"segments are label maps (S, height, width) of whole numbers; for images of {describe(image.shape[1:])} pixels these are "
                f"{str(labels.dtype).removeprefix('torch.')} of shape {describe(labels.shape)}."
            )
        masks = [
            mask
            for label_map in labels
            for mask in _masks_of_labels(label_map.cpu().numpy(), self.dilation)
        ]
        return torch.from_numpy(np.stack(masks)).to(image.device).flatten(1)

    def _labels(self, picture: Tensor) -> Tensor:
        if self.segments is None:
            return _felzenszwalb(picture, self.scales)
        return (
            self.segments
            if isinstance(self.segments, Tensor)
            else torch.as_tensor(self.segments(picture))
        )


def _picture(image: Tensor, normalisation: Normalisation | None) -> Tensor:
    """Colours (C, H, W) from 0 to 1, the image's own extremes."""
    colours = image.detach().double()
    if normalisation is not None:
        colours = normalisation.decode(colours)
    low, high = colours.amin(), colours.amax()
    # An even image has no extremes to stretch to.
    return (colours - low) / (high - low) if bool(high > low) else torch.zeros_like(colours)


def _felzenszwalb(picture: Tensor, scales: tuple[float, ...]) -> Tensor:
    """Label maps (S, H, W), one for each scale."""
    segmentation, resize = _skimage().segmentation, _skimage().transform.resize
    low, high = _RANGE
    image = picture.permute(1, 2, 0).cpu().numpy() * (high - low) + low
    small = resize(
        image, (_SIDE, _SIDE), order=3, mode="constant", preserve_range=True, anti_aliasing=True
    )
    label_maps = []
    for scale in scales:
        labels = segmentation.felzenszwalb(small, scale=scale, sigma=_SMOOTHING, min_size=_LEAST)
        back = resize(
            labels.astype(float),
            image.shape[:2],
            order=0,
            mode="constant",
            preserve_range=True,
            anti_aliasing=False,
        )
        label_maps.append(torch.from_numpy(back.round().astype(np.int64)))
    return torch.stack(label_maps)


def _masks_of_labels(labels: NDArray[Any], dilation: int) -> list[Any]:
    """One mask (H, W) for each label, grown by a disk; only the surroundings of a segment are
    looked at."""
    _, numbered = np.unique(labels, return_inverse=True)
    numbered = numbered.reshape(labels.shape) + 1
    masks = []
    for number in range(1, int(numbered.max()) + 1):
        mask = numbered == number
        if dilation:
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            around = tuple(
                slice(max(0, int(at[0]) - dilation), int(at[-1]) + dilation + 1)
                for at in (rows, columns)
            )
            mask[around] = _skimage().morphology.isotropic_dilation(mask[around], dilation)
        masks.append(mask)
    return masks


def _rank_segments(pixels: Tensor, masks: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Masks (M, H·W) taken by their mean over pixels (H, W) that are left → means (H, W), region
    numbers (H, W)."""
    flat = pixels.flatten().double()
    left = torch.ones_like(flat, dtype=torch.bool)
    waiting = torch.ones(len(masks), dtype=torch.bool, device=masks.device)
    count = masks.sum(1)
    sums = _sums(masks, flat)
    regions: list[Tensor] = []
    # What a mask adds only shrinks: one that adds too little is out for good.
    while bool((waiting := waiting & (count >= least)).any()):
        mean = torch.where(waiting, sums / count.clamp_min(1), float("-inf"))
        best = int(mean.argmax())
        region = (masks[best] & left).nonzero()[:, 0]
        regions.append(region)
        left[region] = False
        waiting[best] = False
        overlap = masks[:, region]
        count = count - overlap.sum(1)
        sums = sums - _sums(overlap, flat[region])
    heat, number = torch.empty_like(flat), torch.empty_like(flat, dtype=torch.long)
    means = [flat[region].mean() for region in regions]
    order = sorted(range(len(regions)), key=lambda k: -float(means[k]))
    for rank, k in enumerate(order):
        heat[regions[k]], number[regions[k]] = means[k], rank
    if bool(left.any()):
        heat[left], number[left] = flat[left].mean(), len(regions)
    return heat.reshape(pixels.shape).to(pixels.dtype), number.reshape(pixels.shape)


def _sums(masks: Tensor, numbers: Tensor) -> Tensor:
    """What numbers (P,) add up to under each mask (M, P); masks are made numbers a few at a
    time."""
    return torch.cat([chunk.to(numbers) @ numbers for chunk in torch.split(masks, 32)])


def _skimage() -> Any:
    """scikit-image with the parts that are used here."""
    for name in ("segmentation", "transform", "morphology"):
        optional(f"skimage.{name}", extra="images", needs="XRAI")
    return import_module("skimage")
