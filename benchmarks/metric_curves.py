"""Curves of several maps: against Quantus' PixelFlipping on small models, and against bare forward passes of EfficientNet-Lite0.

    python -m benchmarks.metric_curves [--threads 1] [--repeats 7]

Both are asked for the same points: every step of every map of every image. Integrand shares both ends between maps, so that it runs
a few rows fewer; times are compared per row. The bare passes are those of somebody who has all rows ready, in the best of
several batch sizes. Quantus (0.6, of the GPL, installed by hand) needs NumPy's old name of the trapezoid rule; without it
its lines are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.images import load_model, samples

from .side_by_side import Row, Times, arguments, interleaved, ratio, seconds, tell

IMAGES, MAPS = 32, 4
EACH = 14  # of 784 pixels that go at a time: 56 steps; columns go one by one
PHOTOGRAPHS, STEPS = 2, 12
CHUNKS = (2, 4, 6, 8, 12, 16)


def cnn() -> nn.Module:
    """A small CNN on 28 × 28."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    ).eval()


def mlp() -> nn.Module:
    """An MLP on 28 × 28."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)).eval()


def tabular() -> nn.Module:
    """An MLP on 56 columns."""
    return nn.Sequential(nn.Flatten(), nn.Linear(56, 64), nn.ReLU(), nn.Linear(64, 10)).eval()


def small(name: str, net: nn.Module, shape: tuple[int, ...], repeats: int) -> list[Row]:
    """One small model: to Quantus, and to bare passes."""
    random = torch.Generator().manual_seed(0)
    x = torch.rand(IMAGES, *shape, generator=random)
    x.view(IMAGES, -1)[:, 0] = 0  # what Quantus calls black is the smallest number of the input
    maps = list(torch.randn(MAPS, *x.shape, generator=random))
    target = torch.randint(0, 10, (IMAGES,), generator=random)
    numbers = x[0].numel()
    each = EACH if len(shape) == 3 else 1
    steps = numbers // each
    theirs_rows, ours_rows = MAPS * IMAGES * steps, MAPS * IMAGES * (steps - 1) + 2 * IMAGES

    def ours() -> Tensor:
        with ig.metrics.Subject.of(net, x, target) as subject:
            seen = ig.metrics.Maps.of(maps, subject.x, subject.layout)
            return ig.metrics.Deletion(each=each, features="elements").measure(subject, seen)

    ways: dict[str, Callable[[], Any]] = {"integrand": ours, "bare": bare(net, x[:1], ours_rows)}
    flip = quantus_flipping(net, x, target, maps, each)
    if flip is not None:
        ways["quantus"] = flip
        apart = np.abs(ours()[..., 1:].numpy() - np.stack(flip())).max()
        assert apart < 1e-4, f"the two curves differ: {apart}"
    times = interleaved(ways, repeats, apart=True)
    note = seconds(times)
    rows = [
        Row(
            f"deletion curves on {name}, {ours_rows} rows, to bare passes",
            *ratio(times, "integrand", "bare"),
            note=note,
        )
    ]
    if flip is not None:
        per_row: Times = {
            "integrand": [one / ours_rows for one in times["integrand"]],
            "quantus": [one / theirs_rows for one in times["quantus"]],
        }
        rows.insert(
            0,
            Row(
                f"PixelFlipping of Quantus on {name}, per row, to Integrand",
                *ratio(per_row, "quantus", "integrand"),
                8,
                more=True,
                note=note,
            ),
        )
    return rows


def bare(net: nn.Module, like: Tensor, rows: int) -> Callable[[], None]:
    """Forward passes over as many rows, made beforehand, in the best batch size."""

    def run(chunk: int, count: int) -> None:
        batch = like.expand(chunk, *like.shape[1:]).contiguous()
        with torch.inference_mode():
            for first in range(0, count, chunk):
                net(batch[: count - first])

    chunks = CHUNKS if like[0].numel() > 10_000 else (32, 64, 128, 256, 512, 1024)
    times = interleaved({str(c): lambda c=c: run(c, min(rows, 3072)) for c in chunks}, 3)
    chunk = int(min(times, key=lambda size: min(times[size])))
    return lambda: run(chunk, rows)


def quantus_flipping(
    net: nn.Module, x: Tensor, target: Tensor, maps: list[Tensor], each: int
) -> Callable[[], list[Any]] | None:
    """The same curves by Quantus, map by map, if it is installed."""
    if not hasattr(np, "trapz"):
        np.trapz = np.trapezoid  # type: ignore[attr-defined]
    warnings.simplefilter("ignore")
    try:
        import quantus
    except ImportError:
        return None
    asked = {"model": net, "x_batch": x.numpy(), "y_batch": target.numpy(), "device": "cpu"}

    def run() -> list[Any]:
        found = []
        for one in maps:
            flip = quantus.PixelFlipping(
                features_in_step=each,
                perturb_baseline="black",
                normalise=False,
                disable_warnings=True,
            )
            found.append(np.array(flip(**asked, a_batch=one.numpy())))
        return found

    return run


def photographs(repeats: int) -> Row:
    """EfficientNet-Lite0 at 224², to bare passes over the same number of rows."""
    model = load_model("efficientnet-lite0")
    net = model.module.eval().requires_grad_(False)
    x = model.prepare(*[f"sample:{name}" for name in list(samples())[:PHOTOGRAPHS]])
    target = net(x).argmax(1)
    maps = list(torch.randn(2, *x.shape, generator=torch.Generator().manual_seed(0)))
    rows = 2 * PHOTOGRAPHS * (STEPS - 1) + 2 * PHOTOGRAPHS
    ways = {
        "integrand": lambda: ig.metrics.deletion(net, x, maps, target=target, steps=STEPS),
        "bare": bare(net, x[:1], rows),
    }
    times = interleaved(ways, repeats, warm=2)
    return Row(
        f"deletion curves of EfficientNet-Lite0 at 224², {rows} rows, to bare passes",
        *ratio(times, "integrand", "bare"),
        1.1,
        note=seconds(times),
    )


def rows(repeats: int) -> list[Row]:
    """The lines of the table."""
    torch.manual_seed(0)
    return [
        *small("an MLP on columns", tabular(), (1, 56), repeats),
        *small("an MLP on 28²", mlp(), (1, 28, 28), repeats),
        *small("a small CNN on 28²", cnn(), (1, 28, 28), repeats),
        photographs(repeats),
    ]


def main() -> None:
    found = arguments(__doc__, 7)
    tell(rows(found.repeats))


if __name__ == "__main__":
    main()
