"""Training of small models for suites: seeded, cached, and never done twice."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.files import digest, write_tensors
from ..core.optional import optional
from ..core.random import generator


def trained(
    build: Callable[[], nn.Module],
    x: Tensor,
    y: Tensor,
    *,
    cache: Path,
    name: str,
    epochs: int,
    rate: float = 1e-3,
    batch: int = 64,
    decay: float = 0.0,
    seed: int = 0,
) -> nn.Module:
    """A classifier of x (N, \\*s) into classes y (N,), by Adam on the cross-entropy; in eval mode.

    Kept in ``cache`` under a name that says how it was made, its layers and data included. Global generators are
    left as they were.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
        settings = (name, epochs, rate, batch, decay, seed)
        data = (tuple(x.shape), float(x.double().sum()), int(y.sum()))
        key = digest(repr((settings, data, _architecture(model))).encode())[:12]
        file = cache / f"{name}-{key}.safetensors"
        if file.is_file():
            model.load_state_dict(_safetensors().load_file(file))
        else:
            _fit(model, x, y, epochs, rate, batch, decay, seed)
            cache.mkdir(parents=True, exist_ok=True)
            state = {k: v.contiguous() for k, v in model.state_dict().items()}
            write_tensors(_safetensors().save_file, state, file, {})
    return model.eval().requires_grad_(False)


def _architecture(model: nn.Module) -> tuple[object, ...]:
    """What tells a network from another that would take the same weights: its layers with their
    settings, the shapes of its weights, and the code of classes that are not torch's."""
    layers = re.sub(r" at 0x[0-9a-f]+", "", repr(model))  # where a function lies in memory
    shapes = [(key, tuple(value.shape)) for key, value in model.state_dict().items()]
    kinds = {type(module) for module in model.modules()}
    own = [kind for kind in kinds if not kind.__module__.startswith("torch.")]
    return layers, shapes, sorted(map(_source, own))


def _source(kind: type) -> str:
    """The code of a class; its name where nothing holds it."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return kind.__qualname__


def _fit(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    epochs: int,
    rate: float,
    batch: int,
    decay: float,
    seed: int,
) -> None:
    model.train()
    steps = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay)
    shuffles = generator(seed, 11)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x), generator=shuffles), batch):
            steps.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
            steps.step()


@torch.no_grad()
def predicted(model: nn.Module, x: Tensor, rows: int = 256) -> Tensor:
    """The class that a model predicts for every example of x (N,), so many rows to a call."""
    return torch.cat([model(part).argmax(1) for part in torch.split(x, rows)])


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of x whose class is predicted."""
    return float((predicted(model, x) == y).double().mean())


def _safetensors() -> Any:
    return optional("safetensors.torch", extra="save", needs="Keeping a trained model")
