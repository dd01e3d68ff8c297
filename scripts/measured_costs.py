"""What each published method costs with the defaults of its paper, counted on one small problem: python scripts/measured_costs.py

The problem: an image of 3 × 16 × 16 numbers, a convolutional network with ReLUs and ten classes, the logit of the class it gives the
image, in float64; four other images where a method wants references, baselines, data or points. Everything is written out in sines, so that
the counts are the same wherever they are made. What is left to a tolerance depends on the problem: a real network takes more. The counts
are kept in src/integrand/methods/measured.json, ``integrand methods`` prints them, and tests/test_measured.py counts again.
"""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import integrand as ig

FILE = Path(__file__).parent.parent / "src" / "integrand" / "methods" / "measured.json"
PROBLEM = (
    "one image of 3 × 16 × 16 numbers, a convolutional ReLU network of ten classes, four references where a method wants some; methods of "
    "words on a sentence of six of forty words, of Gaussian processes on one of six features"
)
SHAPE, CLASSES, REFERENCES = (3, 16, 16), 10, 4
GAIN = 40.0
OF_WORDS = {"discretized", "sequential", "graph"}
OF_PROCESSES = {"gaussian_process"}


def wave(*shape: int, phase: float = 0.0, scale: float = 1.0) -> Tensor:
    """Numbers between −scale and scale."""
    n = torch.arange(1, 1 + int(torch.Size(shape).numel()), dtype=torch.float64)
    return (scale * torch.sin(phase + 1.7 * n + 0.013 * n * n)).reshape(shape)


def network() -> nn.Module:
    """conv – ReLU – conv – ReLU – pool – linear; sure of its class, and undecided about a black image."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    ).double()
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(wave(*parameter.shape, phase=place, scale=2.0 / fan_in**0.5))
        model[-1].bias -= model(torch.zeros(1, *SHAPE, dtype=torch.float64))[0]
        model[-1].weight *= GAIN
        model[-1].bias *= GAIN
    return model.eval()


def images(count: int, phase: float) -> Tensor:
    """Images (count, 3, 16, 16) between 0 and 1, smooth enough to have segments."""
    fine = 0.5 + 0.2 * wave(count, *SHAPE, phase=phase)
    y, x = torch.meshgrid(torch.linspace(0, 3, 16), torch.linspace(0, 3, 16), indexing="ij")
    turns = torch.arange(count)[:, None, None, None] + phase
    return (fine + 0.3 * torch.sin(x + y * turns + turns)).clamp(0, 1)


def codec() -> tuple[Any, Any]:
    """An encoder to 4 × 4 squares and a decoder with a bend."""

    def encode(x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 4)

    def decode(z: Tensor) -> Tensor:
        return torch.tanh(1.3 * nn.functional.interpolate(z, scale_factor=4)) / torch.tanh(
            torch.tensor(1.3)
        )

    return encode, decode


def words() -> Tensor:
    """Vectors (40, 16) of forty words."""
    return wave(40, 16, phase=1.0)


def reader() -> nn.Module:
    """A network (N, 6, 16) → ten classes, for a sentence of six words."""
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(96, 24), nn.Tanh(), nn.Linear(24, CLASSES)
    ).double()
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            parameter.copy_(wave(*parameter.shape, phase=place, scale=0.5))
    return model.eval()


def gaussian_process() -> ig.fields.GPField:
    """A Gaussian process of six features that saw eight rows."""
    return ig.fields.GPField(
        wave(8, 6, phase=2.0), wave(8, phase=4.0), lengthscale=1.0, variance=1.0, noise=0.1
    )


def needs(model: nn.Module) -> dict[str, Any]:
    """What methods cannot do without, by the names of their parameters."""
    others = images(REFERENCES, 2.0)
    return {
        "baseline": "black",
        "baselines": others,
        "references": others,
        "points": others,
        "codec": codec(),
        "patterns": ig.fields.Patterns.fit(model, images(16, 5.0)),
        "data": images(12, 7.0),
        "labels": torch.arange(12) % 2,
        "classes": (0, 1),
        "site": "3",
        "table": words(),
        "edges": torch.stack([torch.arange(5), torch.arange(1, 6)]),  # words in a row
        "node": 0,
    }


def setup(name: str, given: dict[str, Any]) -> Any:
    """The method with its defaults, or None where it needs what is not here."""
    build = ig.methods.about(name).build
    options = {}
    for wanted, spec in inspect.signature(build).parameters.items():
        # Labels have a default; of data without any, the model might find all in one class.
        if spec.default is spec.empty or wanted == "labels":
            if wanted not in given:
                return None
            options[wanted] = given[wanted]
    return build(**options)


def counted(names: list[str] | None = None) -> dict[str, dict[str, int]]:
    """Gradients and forward rows of each method for one example."""
    pictures, texts = (network(), images(1, 0.5)), (reader(), words()[[3, 14, 15, 9, 26, 5]][None])
    given, found = needs(pictures[0]), {}
    process = gaussian_process()
    for name in names or list(ig.methods.known()):
        method = setup(name, given)
        if method is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
            model, x = texts if name in OF_WORDS else pictures
            if name in OF_PROCESSES:
                made = ig.explain(process, wave(1, 6, phase=0.3), method=method)
            else:
                made = ig.explain(
                    model,
                    x,
                    target="predicted",
                    method=method,
                    normalisation=ig.Normalisation.unit(),
                    batch_size=64,
                )
        found[name] = {"gradients": made.cost.gradients, "values": made.cost.values}
    return found


def main() -> None:
    torch.set_num_threads(1)
    found = counted()
    left_out = sorted(set(ig.methods.known()) - set(found))
    FILE.write_text(
        json.dumps({"problem": PROBLEM, "methods": found}, indent=2, ensure_ascii=False) + "\n",
        "utf-8",
    )
    print(
        f"{len(found)} methods counted"
        + (f"; left out: {', '.join(left_out)}" if left_out else ""),
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
