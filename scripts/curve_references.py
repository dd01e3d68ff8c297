"""Numbers that peers give for curves, stored for tests/metrics/test_curve_peers.py.

    pip install quantus==0.6.0 scikit-image pillow
    pip install --no-deps --target SITE saliency==0.2.1
    PYTHONPATH=SITE python scripts/curve_references.py tests/references/curves.npz

PAIR's curves are computed twice: with the bytes of lossless WebP, which are those of one version of libwebp, and with the total variation
of a picture in their place, which is the same everywhere. Both peers need NumPy's old name of the trapezoid rule.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

np.trapz = np.trapezoid  # type: ignore[attr-defined]

THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.10, 0.13, 0.21, 0.34, 0.5, 0.75)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def seer(weight: Any, bias: float) -> nn.Module:
    """Logits (N, 2) of colours (N, 3, 48, 64): edges in squares of 8 pixels, weighed, against 0."""
    edges = nn.Conv2d(3, 6, 2, bias=False)
    kernel = torch.zeros(6, 3, 2, 2)
    for colour in range(3):
        kernel[2 * colour, colour, 0] = torch.tensor([1.0, -1.0])
        kernel[2 * colour + 1, colour, 0] = torch.tensor([-1.0, 1.0])
    edges.weight.data = kernel
    last = nn.Linear(6 * 5 * 7, 2)
    last.weight.data = torch.stack([torch.as_tensor(weight), torch.zeros(6 * 5 * 7)])
    last.bias.data = torch.tensor([bias, 0.0])
    return nn.Sequential(edges, nn.ReLU(), nn.AvgPool2d(8), nn.Flatten(), last).eval()


def small() -> nn.Sequential:
    """A CNN on (N, 1, 12, 12) with four classes."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(100, 4)
    ).eval()


def pooled(weight: Any) -> nn.Sequential:
    """Logits (N, 3) of the mean colours of 25 squares of images (N, 1, 20, 20)."""
    net = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(25, 3, bias=False)).eval()
    net[2].weight.data = torch.as_tensor(weight)
    return net


def variation(picture: Any) -> int:
    """The total variation of a picture (H, W, C) or (H, W)."""
    wide = picture.astype(np.int64)
    return int(np.abs(np.diff(wide, axis=0)).sum() + np.abs(np.diff(wide, axis=1)).sum())


def information() -> dict[str, Any]:
    """PAIR's curves and areas for SIC and AIC: two maps, three photographs and a picture of one colour."""
    from skimage import data

    pic = _pic()
    rng = np.random.default_rng(5)
    photographs = [
        data.chelsea()[::6, ::6],
        data.astronaut()[::8, ::8],
        data.astronaut()[::4, 128::4],
    ]
    images = np.stack([*(one[:48, :64] for one in photographs), np.full((48, 64, 3), 77, np.uint8)])
    weight, bias = rng.uniform(0, 0.12, 210).astype(np.float32), -1.6
    net = seer(weight, bias)
    edges = np.abs(np.gradient(images.astype(float).mean(3), axis=2)) + 1e-3 * rng.standard_normal(
        (4, 48, 64)
    )
    maps = np.stack([edges, rng.standard_normal((4, 48, 64))]).astype(np.float32)
    mask = np.zeros(48 * 64, bool)
    mask[rng.choice(mask.size, 30, replace=False)] = True
    mask = mask.reshape(48, 64)
    webp = pic.estimate_image_entropy
    found: dict[str, Any] = {
        "images": images,
        "maps": maps,
        "mask": mask,
        "weight": weight,
        "bias": bias,
        "bytes": np.array([webp(image) for image in images]),
    }
    for count, name in ((variation, "variation"), (webp, "webp")):
        pic.estimate_image_entropy = count
        for kind in ("sic", "aic"):
            curves = np.full((2, 4, 1001), np.nan)
            areas = np.full((2, 4), np.nan)
            merged = np.full((2, 2), np.nan)
            for method in range(2):
                results = []
                for example in range(4):
                    try:
                        one = pic.compute_pic_metric(
                            images[example],
                            maps[method, example],
                            mask,
                            _predictor(net, kind),
                            THRESHOLDS,
                            min_pred_value=0.5,
                        )
                    except pic.ComputePicMetricError:
                        continue
                    curves[method, example], areas[method, example] = one.curve_y, one.auc
                    results.append(one)
                merged[method] = [
                    pic.aggregate_individual_pic_results(results, how).auc
                    for how in ("median", "mean")
                ]
            found |= {
                f"{name}_{kind}_curves": curves,
                f"{name}_{kind}_areas": areas,
                f"{name}_{kind}_merged": merged,
            }
    return found


def _predictor(net: nn.Module, kind: str) -> Callable[[Any], Any]:
    def predict(batch: Any) -> Any:
        colours = (
            torch.from_numpy((np.asarray(batch) / 255 - MEAN) / STD).permute(0, 3, 1, 2).float()
        )
        with torch.no_grad():
            outputs = net(colours)
        return (
            outputs.softmax(1)[:, 0] if kind == "sic" else (outputs.argmax(1) == 0).float()
        ).numpy()

    return predict


def _pic() -> Any:
    """``saliency.metrics.pic`` without the rest of the package, which wants TensorFlow's friends."""
    path = next(
        Path(place, "saliency/metrics/pic.py")
        for place in sys.path
        if Path(place, "saliency").is_dir()
    )
    spec = importlib.util.spec_from_file_location("pic", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flipping() -> dict[str, Any]:
    """Quantus: PixelFlipping, ROAD, IROF, and its imputation."""
    import quantus
    from quantus.functions.perturb_func import noisy_linear_imputation
    from quantus.helpers.utils import get_superpixel_segments

    rng = np.random.default_rng(7)
    torch.manual_seed(7)
    net = small()
    net[3].weight.data *= 4
    x = rng.standard_normal((6, 1, 12, 12)).astype(np.float32)
    maps = rng.standard_normal((6, 1, 12, 12)).astype(np.float32)
    with torch.no_grad():
        y = net(torch.from_numpy(x)).argmax(1).numpy()
    asked = {"model": net, "x_batch": x, "y_batch": y, "a_batch": maps, "device": "cpu"}
    plain = {"normalise": False, "abs": False, "disable_warnings": True}
    curve = quantus.PixelFlipping(features_in_step=9, perturb_baseline="black", **plain)
    areas = quantus.PixelFlipping(
        features_in_step=9, perturb_baseline="black", return_auc_per_sample=True, **plain
    )
    percentages = [10, 30, 50, 70, 90]
    roads = {
        f"road_{size}": list(
            quantus.ROAD(percentages=percentages, noise=0.0, **plain)(
                **asked, batch_size=size
            ).values()
        )
        for size in (6, 2)
    }
    coloured = rng.standard_normal((3, 12, 12))
    gone = rng.permutation(144)[:100]
    # SLIC finds as many segments in all images of a size, nearly; in the last two, segments are joined by threes.
    images = rng.standard_normal((4, 1, 20, 20)).astype(np.float32)
    weight = rng.standard_normal((3, 25)).astype(np.float32)
    image_maps = rng.standard_normal(images.shape).astype(np.float32)
    with torch.no_grad():
        classes = pooled(weight)(torch.from_numpy(images)).argmax(1).numpy()
    segments = np.stack(
        [
            get_superpixel_segments(np.moveaxis(one, 0, -1).astype("double"), "slic")
            for one in images
        ]
    )
    segments[2:] //= 3
    irof = quantus.IROF(
        perturb_baseline=0.25, segmentation_method="slic", return_aggregate=False, **plain
    )
    with mock.patch.object(quantus.helpers.utils, "get_superpixel_segments", side_effect=segments):
        areas_over = irof(
            model=pooled(weight), x_batch=images, y_batch=classes, a_batch=image_maps, device="cpu"
        )
    found = {
        "x": x,
        "y": y,
        "flip_maps": maps,
        "flip_curves": np.array(curve(**asked)),
        "flip_areas": np.array(areas(**asked)),
        **roads,
        "coloured": coloured,
        "gone": gone,
        "imputed": noisy_linear_imputation(coloured, gone.copy(), noise=0.0),
        "irof_x": images,
        "irof_y": classes,
        "irof_weight": weight,
        "irof_maps": image_maps,
        "irof_segments": segments,
        "irof": np.array(areas_over),
    }
    return found | {f"net.{name}": value.numpy() for name, value in net.state_dict().items()}


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], **information(), **flipping())
