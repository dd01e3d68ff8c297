"""Random compositions of operations from hostile baselines: what the default rule says is what brute force says, within its own estimate."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import integrand as ig
from tests.problems import brute_force, wave

TOLERANCE = 1e-3
W, V = wave(6, 6, phase=0.3, scale=0.6), wave(6, 6, phase=1.9, scale=0.6)
K = wave(4, 4, 3, phase=0.8, scale=0.5)
CAUSAL = torch.ones(4, 4, dtype=torch.bool).tril()

Function = Callable[[Tensor], Tensor]


def _positive(u: Tensor) -> Tensor:
    return u.square() + 0.3


def _spectrum(u: Tensor) -> Tensor:
    z = torch.fft.rfft(u)
    return torch.cat([z.abs(), z.abs()[..., 1:3]], -1)


def _filtered(u: Tensor) -> Tensor:
    z = torch.fft.rfft(u)
    return torch.fft.irfft(z * z.abs().sigmoid(), n=6)


def _attention(u: Tensor) -> Tensor:
    q, k = ((u @ m).unflatten(-1, (2, 3)).transpose(1, 2) for m in (W, V))
    return F.scaled_dot_product_attention(q, k, k.tanh(), is_causal=True).transpose(1, 2).flatten(2)


def _recurrent(u: Tensor) -> Tensor:
    states = [u[:, 0]]
    for t in range(1, 4):
        states.append(torch.tanh(states[-1] @ W + u[:, t]) * torch.sigmoid(u[:, t]))
    return torch.stack(states, 1)


def _scattered(u: Tensor) -> Tensor:
    return torch.zeros_like(u).index_add(2, torch.tensor([0, 0, 1, 2, 2, 5]), u)


OPERATIONS: dict[str, Function] = {
    "linear": lambda u: u @ W,
    "affine": lambda u: 0.5 * u + 0.2 * V[:4],
    "convolution": lambda u: F.conv1d(u, K, padding=1),
    "gelu": F.gelu,
    "relu": F.relu,
    "relu in place": lambda u: (1 * u).relu_(),
    "leaky": lambda u: F.leaky_relu(u, 0.2),
    "tanh": torch.tanh,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "clamp": lambda u: u.clamp(-0.7, 0.9),
    "abs": torch.abs,
    "square": lambda u: 0.5 * u.square(),
    "bump": lambda u: torch.exp(-u.square()),
    "sine": torch.sin,
    "sqrt": lambda u: _positive(u).sqrt(),
    "log": lambda u: _positive(u).log(),
    "softmax": lambda u: 3 * torch.softmax(2 * u, 2),
    "log softmax": lambda u: torch.log_softmax(u, 1),
    "masked softmax": lambda u: (u @ u.mT).masked_fill(~CAUSAL, float("-inf")).softmax(2) @ u,
    "attention": _attention,
    "layer norm": lambda u: F.layer_norm(u, (6,), eps=1e-2),
    "group norm": lambda u: F.group_norm(u, 2, eps=1e-2),
    "standardised": lambda u: (u - u.mean(2, True)) / (u.std(2, keepdim=True) + 0.2),
    "normalised": lambda u: u / (u.norm(dim=2, keepdim=True) + 0.2),
    "rms": lambda u: u * torch.rsqrt(u.square().mean(2, keepdim=True) + 1e-2),
    "gate": lambda u: u * torch.sigmoid(u.flip(2)),
    "product": lambda u: 0.5 * u * u.flip(1),
    "quotient": lambda u: u / _positive(u.flip(2)),
    "matrix product": lambda u: 0.3 * (u @ u.mT) @ u,
    "einsum": lambda u: 0.3 * torch.einsum("nte,nse,nsf->ntf", u, u.tanh(), u.sigmoid()),
    "max pool": lambda u: F.max_pool1d(u, 2, 1, 0)[..., :1] + u,
    "maximum": lambda u: torch.maximum(u, u.roll(1, 2)),
    "where": lambda u: torch.where(u > 0.2, u - 0.2, 0.1 * (u - 0.2)),
    "amax": lambda u: u + u.amax(1, keepdim=True),
    "sorted": lambda u: u.sort(2).values,
    "top": lambda u: F.pad(u.topk(3, 2).values, (0, 3)) + u,
    "logsumexp": lambda u: u - u.logsumexp(2, keepdim=True),
    "cumulative sum": lambda u: 0.4 * u.cumsum(2),
    "cumulative product": lambda u: u.sigmoid().cumprod(2) * 2,
    "product of all": lambda u: u + u.tanh().prod(2, keepdim=True),
    "hypot": lambda u: torch.hypot(u, u.flip(2) + 1),
    "atan2": lambda u: torch.atan2(u, _positive(u.flip(1))),
    "spectrum": _spectrum,
    "filter": _filtered,
    "phase": lambda u: torch.exp(1j * u).real + u,
    "transposed": lambda u: F.gelu(u.transpose(0, 1)).transpose(0, 1),
    "time first": lambda u: torch.softmax(u.transpose(0, 1) @ W, -1).transpose(0, 1) + u,
    "folded": lambda u: F.relu(u.reshape(-1, 6) @ V).reshape(-1, 4, 6),
    "glu": lambda u: F.glu(torch.cat([u, u.flip(2)], 2), 2),
    "residual": lambda u: u + F.gelu(u @ W) @ V,
    "recurrent": _recurrent,
    "scattered": _scattered,
    "cosine": lambda u: u * F.cosine_similarity(u + 2, u.flip(1) + 1, dim=2)[..., None],
    "distances": lambda u: torch.cdist(u, V[:4].expand(len(u), 4, 6)) @ u,
    "solve": lambda u: torch.linalg.solve(0.2 * u @ u.mT + torch.eye(4, dtype=u.dtype), u),
    "detached": lambda u: u * u.detach().abs().mean(2, keepdim=True),
    "vmapped": lambda u: torch.vmap(lambda row: torch.tanh(row @ W))(u),
    "inner gradient": lambda u: (
        u + torch.autograd.grad((u.tanh().square()).sum(), u, create_graph=True)[0]
    ),
}

ENDS = wave(2, 4, 6, phase=2.9, scale=1.2)
BASELINES = {
    "zeros": torch.zeros(4, 6, dtype=torch.float64),
    "constant": torch.full((4, 6), 0.5, dtype=torch.float64),
    "half equal": torch.where(torch.arange(4)[:, None] % 2 == 0, wave(4, 6, phase=0.2), ENDS[0]),
    "any": wave(4, 6, phase=0.7, scale=0.8),
}


def composition(seed: int) -> tuple[str, str, Function]:
    """Which operations in which order, from which baseline, and the model."""
    draw = random.Random(seed)
    names = draw.choices(list(OPERATIONS), k=draw.randint(2, 6))
    baseline = draw.choice(list(BASELINES))
    weights = wave(4, 6, phase=draw.random(), scale=0.7) + 0.2

    def model(z: Tensor) -> Tensor:
        with torch.enable_grad():
            u = z if z.requires_grad else z.detach().requires_grad_()
            for name in names:
                u = OPERATIONS[name](u)
            return (u * weights).sum((1, 2))

    return " > ".join(names), baseline, model


def wrong(seed: int) -> str | None:
    """What the default rule gets wrong about a composition; None if nothing."""
    names, name, model = composition(seed)
    baseline = BASELINES[name]
    start = baseline.expand_as(ENDS)
    field = ig.TorchField(model, ig.targets.Output())
    found = ig.Method(ig.baselines.Given(start[None]), rule=ig.rules.Adaptive(TOLERANCE))(
        field, ENDS
    )
    for nodes in (
        2000,
        32000,
    ):  # kinks make brute force slow to converge: it is asked again before anybody is blamed
        truth = brute_force(model, start, ENDS, nodes)
        size = truth.flatten(1).norm(dim=1)
        errors = (found.values - truth).flatten(1).norm(dim=1) / size
        believed = found.error.clamp_min(TOLERANCE) * 4
        if bool(((errors <= believed) | (size < 1e-9)).all()):
            return None
    state = "chords" if field.chordal else f"no chords ({field.without_chords})"
    return f"{seed}: {names} from {name}: off by {errors.tolist()}, said {found.error.tolist()}, {state}"


@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")
@pytest.mark.parametrize("seed", range(40))
def test_random_compositions(seed: int) -> None:
    assert wrong(seed) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")
@pytest.mark.parametrize("block", range(12))
def test_many_random_compositions(block: int) -> None:
    failures = [
        failure for seed in range(100 + 50 * block, 150 + 50 * block) if (failure := wrong(seed))
    ]
    assert not failures, "\n".join(failures)
