"""What does a network rely on when it predicts how diabetes will progress?

A data frame goes in as it is, and its columns' names come back with the map. The baseline is the
median patient, so that every contribution says what a measurement adds to that patient's forecast.
Shuffling a column, and looking how much worse the forecasts become, asks the same question without
any gradient: the two should put the columns in the same order.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

import integrand as ig

NAMES = {
    "bmi": "body mass index",
    "bp": "blood pressure",
    "s1": "total cholesterol",
    "s2": "LDL",
    "s3": "HDL",
    "s4": "cholesterol / HDL",
    "s5": "log triglycerides",
    "s6": "blood sugar",
}


class Forecast(nn.Module):
    """Ten measurements of a patient → how far the disease is a year later, from 25 to 346."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", x.mean(0))
        self.register_buffer("spread", x.std(0))
        self.network = nn.Sequential(nn.Linear(10, 24), nn.Softplus(), nn.Linear(24, 1))
        self.mean, self.deviation = float(y.mean()), float(y.std())

    def forward(self, x: Tensor) -> Tensor:
        return self.mean + self.deviation * self.network((x - self.centre) / self.spread)


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    data = load_diabetes(as_frame=True, scaled=False)
    patients = data.data.rename(columns=NAMES).sample(frac=1, random_state=0)
    truth = torch.tensor(data.target[patients.index].to_numpy(), dtype=torch.float32)
    known, new = patients[:342], patients[342:]
    model = trained(torch.tensor(known.to_numpy(), dtype=torch.float32), truth[:342])

    result = ig.explain(model, new, target=0, baseline=known.median(), tol=0.01)

    ranked = result.importance()
    shuffled = cost_of_shuffling(model, result.inputs, truth[342:])
    by_name = dict(zip(result.feature_names, shuffled, strict=True))
    agreement = spearmanr(ranked.importance, [by_name[name] for name in ranked.names]).statistic
    error, spread = (result.output - truth[342:]).square().mean(), truth[342:].var()
    print(f"the network explains {1 - float(error / spread):.0%} of how {len(new)} new patients differ")  # fmt: skip
    for name, size, low, high in list(zip(ranked.names, ranked.importance, ranked.low, ranked.high, strict=True))[:3]:  # fmt: skip
        print(f"{name}: {size:.1f} points on average ({low:.1f} to {high:.1f})")
    print(
        f"rank correlation of all ten columns with the cost of shuffling a column: {agreement:.2f}"
    )

    worst = int(result.output.argmax())
    figure = result.plot(kind="waterfall", examples=worst, titles="the worst forecast")  # fmt: skip
    figure.savefig(out / "tables.png", dpi=130)


def trained(x: Tensor, y: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = Forecast(x, y)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.3)
    for _ in range(300):
        optimiser.zero_grad()
        nn.functional.mse_loss(model(x)[:, 0], y).backward()
        optimiser.step()
    return model.eval()


@torch.no_grad()
def cost_of_shuffling(model: nn.Module, x: Tensor, y: Tensor, repeats: int = 50) -> list[float]:
    """By how much the mean squared error grows when a column is shuffled, for every column."""
    stream = torch.Generator().manual_seed(0)
    whole = (model(x)[:, 0] - y).square().mean()
    costs = []
    for column in range(x.shape[1]):
        errors = []
        for _ in range(repeats):
            mixed = x.clone()
            mixed[:, column] = x[torch.randperm(len(x), generator=stream), column]
            errors.append((model(mixed)[:, 0] - y).square().mean())
        costs.append(float(torch.stack(errors).mean() - whole))
    return costs


if __name__ == "__main__":
    main(Path(*sys.argv[1:]))  # the folder for the picture; here unless given
