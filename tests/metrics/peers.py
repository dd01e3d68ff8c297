"""What Quantus and Captum say of one small problem, for comparison.

    python -m tests.metrics.peers        asks them again and writes tests/references/peers.json

Made with quantus 0.6.0 and captum 0.9.0 on numpy 2.4.6 and torch 2.13.0 (CPU, float32, as Quantus runs every model). The problem is
made of sines, so that it is the same everywhere; draws are written down beside the numbers they led to.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PATH = Path(__file__).parent.parent / "references" / "peers.json"
BATCH, SIDE, RUNS = 3, 8, 20
FEATURES = SIDE * SIDE
TARGETS = [0, 2, 1]


def waves(*shape: int, speed: float) -> Tensor:
    """Numbers between −1 and 1 that look random."""
    count = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return torch.sin(speed * count + 0.1 * count.square()).reshape(shape)


def problem() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network of images with one channel, inputs, and maps for three classes."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 36, 3))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(waves(*parameter.shape, speed=1.3 + number) * 0.7)
    return (
        model.eval(),
        waves(BATCH, 1, SIDE, SIDE, speed=2.1).float(),
        waves(BATCH, 1, SIDE, SIDE, speed=0.7).float(),
    )


def slopes(model: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """The gradient."""
    with torch.enable_grad():  # Captum asks without
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).gather(1, targets[:, None]).sum(), x)
    return slope


def slopes_times_input(model: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """Input × gradient."""
    return x * slopes(model, x, targets)


def subsets() -> list[list[list[int]]]:
    """(RUNS, BATCH, 16) the features that Quantus chooses with seed 0."""
    random = np.random.RandomState(0)
    return [
        [random.choice(FEATURES, 16, replace=False).tolist() for _ in range(BATCH)]
        for _ in range(RUNS)
    ]


def redrawn() -> Tensor:
    """(5, 64) what features become."""
    return waves(5, FEATURES, speed=3.3).float()


def shifts() -> Tensor:
    """(6, 1, 8, 8) noise on an input."""
    return 0.05 * waves(6, 1, SIDE, SIDE, speed=4.4).float()


def quantus_numbers() -> dict[str, Any]:
    """Quantus' numbers where it computes what it says."""
    import quantus

    model, x, maps = problem()
    arrays: dict[str, Any] = dict(
        model=model,
        x_batch=x.numpy(),
        y_batch=np.array(TARGETS),
        a_batch=maps.numpy(),
        device="cpu",
        channel_first=True,
        softmax=False,
    )
    common: dict[str, Any] = dict(
        abs=False, normalise=False, disable_warnings=True, return_aggregate=False
    )
    zero: dict[str, Any] = dict(perturb_baseline=0.0)
    draws, noise, calls = redrawn().numpy(), shifts().numpy(), {"fill": 0, "shift": 0}

    def fill(arr: Any, indices: Any, **_: Any) -> Any:
        made = arr.copy()
        for example, own in enumerate(indices):
            made[example, own] = draws[calls["fill"] % len(draws), own]
        calls["fill"] += 1
        return made

    def shift(arr: Any, indices: Any, **_: Any) -> Any:
        made = arr + noise[calls["shift"] % len(noise)].reshape(1, -1)
        calls["shift"] += 1
        return made

    def explain(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> Any:
        return slopes_times_input(model, torch.as_tensor(inputs), torch.as_tensor(targets)).numpy()

    np.random.seed(0)
    correlation = quantus.FaithfulnessCorrelation(nr_runs=RUNS, subset_size=16, **common, **zero)(
        **arrays
    )
    estimate = quantus.FaithfulnessEstimate(features_in_step=1, **common, **zero)(**arrays)
    monotone = quantus.MonotonicityCorrelation(
        nr_samples=len(draws), perturb_func=fill, perturb_func_kwargs={}, **{**common, "abs": True}
    )(**arrays)
    own = explain(model, arrays["x_batch"], arrays["y_batch"])
    stable = quantus.MaxSensitivity(
        nr_samples=len(noise), perturb_func=shift, perturb_func_kwargs={}, **common
    )(**{**arrays, "a_batch": own}, explain_func=explain)
    entropies = [
        float(quantus.functions.complexity_func.discrete_entropy(one, one)) for one in maps.numpy()
    ]
    return {
        "faithfulness_correlation": np.asarray(correlation).tolist(),
        "faithfulness_estimate": np.asarray(estimate).tolist(),
        "monotonicity_correlation": np.asarray(monotone).tolist(),
        "max_sensitivity": np.asarray(stable).tolist(),
        "discrete_entropy": entropies,
    }


def linear() -> tuple[nn.Module, Tensor, Tensor]:
    """A linear network, two inputs, and what each number contributes; a quarter of the weights are zero."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 2, bias=False))
    weight = waves(2, FEATURES, speed=1.9).float()
    weight[:, ::4] = 0
    with torch.no_grad():
        model[1].weight.copy_(weight)  # type: ignore[union-attr,operator]
    x = waves(6, 1, SIDE, SIDE, speed=5.1).float()
    return model.eval(), x, x * weight[0].reshape(1, SIDE, SIDE)


def quantus_faults() -> dict[str, Any]:
    """Quantus' numbers where it computes something else than it says."""
    import quantus

    model, x, exact = linear()
    arrays: dict[str, Any] = dict(
        model=model,
        x_batch=x.numpy(),
        y_batch=np.zeros(6, int),
        device="cpu",
        channel_first=True,
        softmax=False,
    )
    common: dict[str, Any] = dict(
        abs=False, normalise=False, disable_warnings=True, return_aggregate=False
    )

    def of(metric: Any, maps: Tensor, **options: Any) -> Any:
        return np.asarray(metric(**{**arrays, "a_batch": maps.numpy(), **options})).tolist()

    monotone = quantus.Monotonicity(perturb_baseline=0.0, **common)
    sums = quantus.SensitivityN(features_in_step=8, perturb_baseline=0.0, **common)
    zeros = quantus.NonSensitivity(**{**common, "abs": True})
    curved, pictures, _ = problem()
    kept = dict(model=curved, x_batch=pictures.numpy(), y_batch=np.array(TARGETS))
    blocks = quantus.Infidelity(
        perturb_patch_sizes=[4], n_perturb_samples=2, perturb_baseline=0.0, **common
    )

    def explain(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> Any:
        return slopes_times_input(model, torch.as_tensor(inputs), torch.as_tensor(targets)).numpy()

    own = explain(curved, pictures, TARGETS)
    layers: dict[str, Any] = dict(disable_warnings=True, abs=False, normalise=False)
    given = {**arrays, **kept, "a_batch": own, "explain_func": explain}
    curve = quantus.MPRT(return_average_correlation=False, **layers)(**given)
    mean = quantus.MPRT(return_average_correlation=True, **layers)(**given)
    try:
        faint = quantus.MonotonicityCorrelation(nr_samples=2, **{**common, "abs": True})
        faint(
            **{
                **arrays,
                "x_batch": np.concatenate([0 * x[:1].numpy(), x[1:].numpy()]),
                "a_batch": exact.numpy(),
            }
        )
        crash = ""
    except ValueError as error:
        crash = str(error)
    return {
        "monotonicity": [
            of(monotone, maps) for maps in (exact, -exact, waves(*exact.shape, speed=0.3).float())
        ],
        "sensitivity_n": of(sums, exact),
        "non_sensitivity": of(zeros, exact),
        "infidelity": of(blocks, slopes(curved, pictures, torch.tensor(TARGETS)), **kept),
        "mprt": {name: np.asarray(numbers).tolist() for name, numbers in curve.items()},
        "mprt_mean": np.asarray(mean).tolist(),
        "monotonicity_correlation": crash,
    }


def captum_numbers() -> dict[str, Any]:
    """Captum's infidelity of every kind, and its sensitivity, for our perturbations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max

    model, x, maps = problem()
    targets = torch.tensor(TARGETS)
    noise = shifts()

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        shift = noise[torch.arange(len(inputs)) % len(noise)]
        return shift, inputs - shift

    @infidelity_perturb_func_decorator(True)
    def divided(inputs: Tensor, baselines: Any = None) -> Tensor:
        return inputs - noise[torch.arange(len(inputs)) % len(noise)]

    def moved(inputs: Any, radius: float) -> Any:
        (rows,) = inputs if isinstance(inputs, tuple) else (inputs,)
        return rows + noise[torch.arange(len(rows)) % len(noise)]

    def explain(inputs: Any, target: Tensor) -> Any:
        if isinstance(inputs, tuple):
            return (slopes_times_input(model, inputs[0], target),)
        return slopes_times_input(model, inputs, target)

    options: dict[str, Any] = dict(target=targets, n_perturb_samples=len(noise))
    return {
        "infidelity_local": infidelity(model, perturb, x, maps, **options).tolist(),
        "infidelity_local_scaled": infidelity(
            model, perturb, x, maps, normalize=True, **options
        ).tolist(),
        "infidelity_global": infidelity(model, divided, x, maps, **options).tolist(),
        "sensitivity_max": sensitivity_max(explain, x, moved, **options).tolist(),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    known = json.loads(PATH.read_text()) if PATH.exists() else {}
    asked = {"quantus": quantus_numbers, "quantus_faults": quantus_faults, "captum": captum_numbers}
    for name, numbers in asked.items():
        try:
            known[name] = numbers()
        except ImportError:
            print(f"{name} is not installed: its numbers stay", file=sys.stderr)
    known["how"] = "tests/metrics/peers.py with quantus 0.6.0 and captum 0.9.0"
    PATH.write_text(json.dumps(known, indent=1) + "\n")
