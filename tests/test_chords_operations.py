"""Every operation with a chord: complete over one long interval, the integral as intervals shrink, right wherever the rows are."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import integrand as ig
from integrand.backprop.chords import ChordMode
from integrand.model.autograd import slopes
from tests.problems import wave

Function = Callable[[Tensor], Tensor]

ROWS, TOKENS, FEATURES = 5, 4, 6
STARTS, ENDS = (wave(ROWS, TOKENS, FEATURES, phase=p, scale=1.5) for p in (0.7, 2.9))
WEIGHT, BIAS = 1 + wave(FEATURES, phase=1, scale=0.5), wave(FEATURES, phase=2)
MIX = wave(FEATURES, FEATURES, phase=0.3)
ONE = torch.ones((), dtype=torch.float64)
CAUSAL = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()


def positive(u: Tensor) -> Tensor:
    return F.softplus(u) + 0.1


def attend(u: Tensor, **options: object) -> Tensor:
    q, k, v = (u @ (MIX + shift).to(u) for shift in (0.0, 0.5, -0.5))
    heads = lambda t: t.unflatten(-1, (2, 3)).transpose(1, 2)  # noqa: E731
    return (
        F.scaled_dot_product_attention(heads(q), heads(k), heads(v), **options)
        .transpose(1, 2)
        .flatten(2)
    )


def plane(u: Tensor) -> Tensor:
    """Complex numbers (N, 4, 6)."""
    return torch.complex(u, u.flip(2) @ MIX.to(u))


def image(u: Tensor) -> Tensor:
    """(N, 2, 4, 6), the second channel another linear view of the same."""
    return torch.stack([u, u.flip(1) @ MIX.to(u)], 1)


OPERATIONS: dict[str, Function] = {
    # products
    "u * v": lambda u: u * u.flip(2),
    "mul in place": lambda u: (1 * u).mul_(u.flip(1)),
    "*=": lambda u: _imul(1 * u, u.flip(1)),
    "mul broadcast": lambda u: u * u.mean(2, keepdim=True),
    "mul broadcast, fewer axes": lambda u: (u[:, 0, 0] * u.permute(1, 2, 0).sum(0)).T,
    "matmul": lambda u: u @ u.flip(1).mT,
    "torch.bmm": lambda u: torch.bmm(u, u.transpose(1, 2)),
    "torch.matmul, four axes": lambda u: torch.matmul(u[:, None], image(u).mT),
    "matmul with a vector": lambda u: (u @ u[:, :1].mT).squeeze(-1),
    "baddbmm": lambda u: torch.baddbmm(u[:, :, :4], u, u.mT, beta=0.5, alpha=2),
    "einsum": lambda u: torch.einsum("nte,nse->nts", u, u.flip(1).tanh()),
    "einsum with a list": lambda u: torch.einsum("nte,nse->nts", [u, u.flip(1)]),
    "einsum with a weight": lambda u: torch.einsum("nte,ef,nsf->nts", u, MIX.to(u), u),
    "bilinear": lambda u: F.bilinear(u, u.flip(1), wave(3, FEATURES, FEATURES).to(u), wave(3).to(u)),
    "addcmul": lambda u: torch.addcmul(u, u, u.flip(1), value=0.5),
    "addcdiv": lambda u: torch.addcdiv(u, u, positive(u), value=0.5),
    # quotients
    "u / v": lambda u: u / positive(u.flip(2)),
    "u / v, broadcast": lambda u: u / (0.3 + u.square().sum(2, keepdim=True)),
    "torch.div": lambda u: torch.div(u, positive(u)),
    "u / v, close": lambda u: u / (50 + u.flip(1)),
    "const / v": lambda u: 3 / positive(u),
    "tensor / v": lambda u: WEIGHT.to(u) / positive(u),
    "1 / v": lambda u: 1 / positive(u),
    "u * (1 / v)": lambda u: u * (1 / positive(u.flip(1))),
    "reciprocal": lambda u: positive(u).reciprocal(),
    "div in place": lambda u: (1 * u).div_(positive(u.flip(1))),
    "/=": lambda u: _idiv(1 * u, positive(u)),
    # powers and other functions of one number
    "u ** 3": lambda u: u**3,
    "u ** 2": lambda u: u**2,
    "pow(1.5)": lambda u: positive(u).pow(1.5),
    "pow(-0.5)": lambda u: torch.pow(positive(u), -0.5),
    "pow in place": lambda u: (1 * u).pow_(2),
    "2 ** u": lambda u: 2**u,
    "torch.pow(2, u)": lambda u: torch.pow(2, u),
    "sqrt": lambda u: positive(u).sqrt(),
    "rsqrt": lambda u: torch.rsqrt(positive(u)),
    "exp": lambda u: u.exp(),
    "expm1": lambda u: torch.expm1(u),
    "log": lambda u: positive(u).log(),
    "log1p": lambda u: torch.log1p(positive(u)),
    "lgamma": lambda u: torch.lgamma(positive(u)),
    "i0e": lambda u: torch.special.i0e(positive(u)),
    "erf": lambda u: torch.erf(u),
    "gelu by hand": lambda u: u * 0.5 * (1 + torch.erf(u / math.sqrt(2))),
    "sin": lambda u: torch.sin(u),
    "cos": lambda u: u.cos(),
    "abs(u)": lambda u: abs(u),
    "square": lambda u: u.square(),
    "tanhshrink": F.tanhshrink,
    "softshrink": F.softshrink,
    "prelu": lambda u: F.prelu(u, wave(TOKENS, phase=1, scale=0.3).to(u)),
    "rrelu": lambda u: F.rrelu(u),
    "logit": lambda u: torch.logit(u.sigmoid()),
    "glu": lambda u: F.glu(u, 1),
    "swiglu": lambda u: F.silu(u) * u.flip(1),
    # softmax
    "softmax": lambda u: torch.softmax(2 * u, 2),
    "softmax, another axis": lambda u: F.softmax(2 * u, dim=1),
    "softmax(dtype)": lambda u: u.softmax(-1, dtype=torch.float64),
    "softmax, far apart": lambda u: torch.softmax(400 * u, 2),
    "softmin": lambda u: F.softmin(u, dim=2),
    "log_softmax": lambda u: F.log_softmax(3 * u, -1),
    "logsumexp": lambda u: torch.logsumexp(3 * u, 2),
    "logsumexp, kept": lambda u: u.logsumexp(2, keepdim=True),
    "logaddexp": lambda u: torch.logaddexp(u, u.flip(1)),
    "softmax, masked": lambda u: (u @ u.mT).masked_fill(~CAUSAL, float("-inf")).softmax(2),
    "mse": lambda u: F.mse_loss(u, WEIGHT.to(u).expand_as(u), reduction="none"),
    "cross entropy": lambda u: F.cross_entropy(u.flatten(1), torch.zeros(len(u), dtype=torch.long), reduction="none"),
    # normalisations
    "layer_norm": lambda u: F.layer_norm(u, (FEATURES,), WEIGHT.to(u), BIAS.to(u)),
    "layer_norm over two axes": lambda u: torch.layer_norm(u, (TOKENS, FEATURES)),
    "rms_norm": lambda u: F.rms_norm(u, (FEATURES,), WEIGHT.to(u), 1e-6),
    "group_norm": lambda u: F.group_norm(u, 2, wave(TOKENS, phase=2).to(u), wave(TOKENS).to(u)),
    "instance_norm": lambda u: F.instance_norm(u, weight=wave(TOKENS, phase=2).to(u)),
    "rms norm by hand": lambda u: u * torch.rsqrt(u.pow(2).mean(-1, keepdim=True) + 1e-5),
    "rms norm by division": lambda u: u / (u.square().mean(-1, keepdim=True) + 1e-5).sqrt(),
    "layer norm by hand": lambda u: (u - u.mean(-1, keepdim=True)) / torch.sqrt(u.var(-1, keepdim=True, unbiased=False) + 1e-5),
    "layer norm by hand, moments": lambda u: _moments(u, *torch.var_mean(u, 2, keepdim=True, correction=0)),
    "standardised": lambda u: (u - u.mean(2, True)) / (u.std(2, keepdim=True) + 1e-3),
    "var": lambda u: torch.var(u, 2),
    "var over two axes": lambda u: u.var((1, 2)),
    "std": lambda u: u.std(dim=1),
    "std_mean": lambda u: torch.std_mean(u, 2)[0],
    "normalize": lambda u: F.normalize(u, dim=2),
    "vector_norm": lambda u: torch.linalg.vector_norm(u, dim=2),
    "norm": lambda u: u.norm(dim=-1, keepdim=True),
    "norm of absolutes": lambda u: torch.linalg.vector_norm(u, 1, dim=1),
    "linalg.norm": lambda u: torch.linalg.norm(u, dim=2),
    "torch.norm": lambda u: torch.norm(u, 2, 2),
    "cosine_similarity": lambda u: F.cosine_similarity(u, u.flip(1) @ MIX.to(u), dim=2),
    # attention
    "attention": attend,
    "attention, causal": lambda u: attend(u, is_causal=True),
    "attention, masked": lambda u: attend(u, attn_mask=CAUSAL, scale=0.3),
    "attention, biased": lambda u: attend(u, attn_mask=wave(TOKENS, TOKENS).to(u)),
    "attention, grouped": lambda u: F.scaled_dot_product_attention(
        image(u).repeat_interleave(2, 1), image(u), image(u.flip(1)), enable_gqa=True
    ),
    # complex numbers
    "modulus of a spectrum": lambda u: torch.fft.rfft(u).abs(),
    "power of a spectrum": lambda u: torch.fft.rfft(u).abs().square(),
    "short-time spectrum": lambda u: torch.stft(u.flatten(1), 8, 4, window=torch.hann_window(8).to(u), return_complex=True).abs(),
    "filter that moves": lambda u: torch.fft.irfft(torch.fft.rfft(u) * torch.fft.rfft(u.flip(1)), n=FEATURES),
    "exp(1j u)": lambda u: torch.exp(1j * u).imag,
    "complex exp": lambda u: plane(u).exp().real,
    "complex sqrt": lambda u: (plane(u) + 4).sqrt().imag,
    "complex tanh": lambda u: (0.3 * plane(u)).tanh().real,
    "complex power": lambda u: (plane(u) ** 3).imag,
    "complex product": lambda u: (plane(u) * plane(u.flip(1)).conj()).imag,
    "real times complex": lambda u: (u * plane(u.flip(1))).imag,
    "complex product in place": lambda u: (1 * plane(u)).mul_(plane(u.flip(1))).real,
    "complex matmul": lambda u: (plane(u) @ plane(u.flip(1)).mH).real,
    "complex einsum": lambda u: torch.einsum("nte,nse->nts", plane(u), plane(u.flip(1)).conj()).imag,
    "complex linear": lambda u: F.linear(plane(u), torch.complex(MIX, MIX.T).to(plane(u))).abs(),
    "complex quotient": lambda u: (plane(u) / (3 + plane(u.flip(1)))).real,
    "real / complex": lambda u: (u / (3 + plane(u.flip(1)))).imag,
    "complex / real": lambda u: (plane(u) / positive(u.flip(1))).imag,
    "complex reciprocal": lambda u: (1 / (3 + plane(u))).imag,
    "complex logarithm": lambda u: (plane(u) + 4).log().real,
    "phase": lambda u: (plane(u) + 4).angle(),
    "atan2": lambda u: torch.atan2(u, positive(u.flip(1))),
    "atan2 of a number": lambda u: torch.atan2(u, ONE.to(u)),
    "hypot": lambda u: torch.hypot(u, u.flip(1)),
    "polar": lambda u: torch.polar(u.square(), u.flip(1)).real,
    "unit circle": lambda u: torch.sgn(plane(u) + 4).imag,
    "complex norm": lambda u: torch.linalg.vector_norm(plane(u), dim=2),
    # choices
    "max_pool1d": lambda u: F.max_pool1d(u, 2, 1),
    "max_pool2d": lambda u: F.max_pool2d(image(u), 3, 2, 1),
    "max_pool2d with indices": lambda u: F.max_pool2d(image(u), 2, return_indices=True)[0],
    "max_pool3d": lambda u: F.max_pool3d(image(u)[:, None], 2),
    "adaptive_max_pool2d": lambda u: F.adaptive_max_pool2d(image(u), (2, 2)),
    "adaptive_max_pool1d": lambda u: F.adaptive_max_pool1d(u, 2),
    "amax": lambda u: u.amax(2),
    "amax over two axes": lambda u: image(u).amax((2, 3)),
    "amin": lambda u: torch.amin(u, 1, keepdim=True),
    "max(dim)": lambda u: torch.max(u, 1)[0],
    "u.max(dim=)": lambda u: u.max(dim=-1, keepdim=True).values,
    "min(dim)": lambda u: u.min(2).values,
    "maximum": lambda u: torch.maximum(u, u.flip(1) @ MIX.to(u)),
    "minimum": lambda u: torch.minimum(u, 0.2 * ONE.to(u)),
    "max of two": lambda u: torch.max(u, u.flip(2)),
    "where": lambda u: torch.where(u > 0, u, 0.1 * u),
    "where, a number": lambda u: torch.where(u > 0, u, 0.0),
    "masked_fill": lambda u: u.masked_fill(u < 0, 0),
    "clamp between tensors": lambda u: torch.clamp(u, u.flip(1) - 0.5, u.flip(1) + 0.5),
    "clamp": lambda u: u.clamp(-0.4, 0.7),
}  # fmt: skip

KINKED = {
    "prelu", "rrelu", "softshrink", "max_pool1d", "max_pool2d", "max_pool2d with indices", "max_pool3d", "adaptive_max_pool2d",
    "adaptive_max_pool1d", "amax", "amax over two axes", "amin", "max(dim)", "u.max(dim=)", "min(dim)", "maximum", "minimum",
    "max of two", "where", "where, a number", "masked_fill", "clamp between tensors", "clamp", "abs(u)", "norm of absolutes",
}  # fmt: skip


def _imul(u: Tensor, v: Tensor) -> Tensor:
    u *= v
    return u


def _idiv(u: Tensor, v: Tensor) -> Tensor:
    u /= v
    return u


def _moments(u: Tensor, variance: Tensor, mean: Tensor) -> Tensor:
    return (u - mean) * torch.rsqrt(variance + 1e-5)


def chords(function: Function, z: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Σ weights · function of every row, and its chord from the row before."""
    leaf = z.clone().requires_grad_()
    with ChordMode(before):
        made = function(leaf.clone())
        weights = wave(*made.shape[1:], phase=0.2).to(made) if made.ndim > 1 else ONE.to(made)
        value = (made * weights).reshape(len(z), -1).sum(1)
        (slope,) = slopes([value], [leaf])
    assert slope is not None
    return value.detach(), slope


def path(start: Tensor, end: Tensor, n: int) -> tuple[Tensor, Tensor]:
    t = torch.linspace(0, 1, n + 1, dtype=start.dtype).repeat(len(start)).reshape(-1, 1, 1)
    z = torch.lerp(start.repeat_interleave(n + 1, 0), end.repeat_interleave(n + 1, 0), t)
    place = torch.arange(len(z))
    return z, torch.where(place % (n + 1) == 0, place, place - 1)


def along(function: Function, start: Tensor, end: Tensor, n: int) -> Tensor:
    z, before = path(start, end, n)
    return chords(function, z, before)[1].unflatten(0, (len(start), n + 1))[:, 1:].mean(1)


def integral(
    function: Function, start: Tensor, end: Tensor, nodes: int = 60, pieces: int = 1
) -> Tensor:
    """∫∇ by Gauss–Legendre."""
    field = ig.fields.Function(lambda z: _scalar(function, z))
    line = torch.stack([start, end])[:, None]
    cuts = torch.linspace(0, 1, pieces + 1).double()
    rule = ig.rules.GaussLegendre(nodes)
    found = [
        rule(
            field,
            ig.segments.polyline(torch.stack([torch.lerp(line[0], line[1], t) for t in (a, b)])),
        )[0, 0]
        for a, b in pairwise(cuts)
    ]
    return sum(found[1:], found[0]) / (end - start)


def _scalar(function: Function, z: Tensor) -> Tensor:
    made = function(z)
    weights = wave(*made.shape[1:], phase=0.2).to(made) if made.ndim > 1 else ONE
    return (made * weights).reshape(len(z), -1).sum(1)


def missing(function: Function, start: Tensor, end: Tensor) -> float:
    """How much of the change a single chord misses, relative to the sizes of what it adds up."""
    z = torch.stack([start, end], 1).flatten(0, 1)
    place = torch.arange(len(z))
    value, slope = chords(function, z, place - place % 2)
    change = value[1::2] - value[::2]
    assert float(change.abs().amax()) > 1e-3
    parts = slope[1::2] * (end - start)
    return float(
        (
            (parts.flatten(1).sum(1) - change).abs()
            / (change.abs() + parts.abs().flatten(1).sum(1))
        ).amax()
    )


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_complete(name: str) -> None:
    assert missing(OPERATIONS[name], STARTS, ENDS) < 1e-11


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_values_and_gradients_are_torchs(name: str) -> None:
    place = torch.arange(ROWS)
    value, slope = chords(OPERATIONS[name], ENDS, place)
    leaf = ENDS.clone().requires_grad_()
    expected = _scalar(OPERATIONS[name], leaf.clone())
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        slope, torch.autograd.grad(expected.sum(), leaf)[0], rtol=1e-9, atol=1e-9
    )


SHARP = {"complex linear", "hypot"}
"""Moduli of numbers that pass near zero: smooth, but only for pieces shorter than that passage."""
SPECTRA = {"modulus of a spectrum", "short-time spectrum"}
"""Their first and last numbers are real, so that their moduli have kinks."""


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_becomes_the_integral_at_second_order(name: str) -> None:
    function, start = OPERATIONS[name], STARTS + 0.5 * (ENDS - STARTS)
    if name == "softmax, far apart":
        start = STARTS + 0.99 * (ENDS - STARTS)
    kinked, sharp = name in KINKED | SPECTRA, name in SHARP
    truth = integral(
        function, start, ENDS, 8 if kinked or sharp else 60, 800 if sharp else 200 if kinked else 1
    )
    counts = (4, 64, 256) if sharp else (4, 16, 64)
    errors = {
        n: float((along(function, start, ENDS, n) - truth).norm() / truth.norm()) for n in counts
    }
    if errors[4] < 1e-9:
        return  # its chord is the integral
    assert errors[64] < 3e-3
    if not kinked:
        assert (
            math.log(errors[counts[1]] / errors[counts[2]], 4) > 1.8
        )  # some are of fourth order on straight lines


# --- where rows are ---------------------------------------------------------------------------------------------------

LAST_AXIS_ONLY: dict[str, Function] = {
    **{
        name: OPERATIONS[name]
        for name in [
            "u / v, broadcast", "u ** 3", "pow in place", "gelu by hand", "abs(u)", "softmax", "softmax(dtype)", "log_softmax",
            "logsumexp, kept", "layer_norm", "rms_norm", "rms norm by hand", "layer norm by hand", "layer norm by hand, moments",
            "normalize", "norm", "max of two", "where", "masked_fill", "clamp", "u.max(dim=)", "u * v",
        ]
    },
    "reductions": lambda u: (u.logsumexp(2) * u.var(2) + torch.std_mean(u, 2)[0] + u.amax(-1) / u.norm(dim=2))[..., None],
    "einsum": lambda u: torch.einsum("xye,ef,xyf->xy", u, MIX.to(u), u)[..., None],
    "minimum along": lambda u: u.min(2, keepdim=True).values,
    "u * (1 / v)": lambda u: u * (1 / positive(u.flip(2))),
    "in place": lambda u: _idiv(_imul(1 * u, u.flip(2)), positive(u)),
    "glu": lambda u: F.glu(u, 2),
    "bounded": lambda u: torch.clamp(u, max=u.flip(2)),
}  # fmt: skip

LAYOUTS: dict[str, Callable[[Function, Tensor], Tensor]] = {
    "tokens first": lambda f, u: f(u.transpose(0, 1)).transpose(0, 1),
    "permuted": lambda f, u: f(u.permute(1, 0, 2)).swapaxes(0, 1),
    "folded": lambda f, u: f(u.reshape(-1, 2, FEATURES)).reshape(len(u), TOKENS, -1),
    "tokens first, folded": lambda f, u: f(u.movedim(1, 0).reshape(-1, 1, FEATURES)).reshape(TOKENS, len(u), -1).mT.permute(2, 0, 1),
    "stacked": lambda f, u: f(torch.stack([u[:, t] for t in range(TOKENS)])).transpose(1, 0),
    "joined": lambda f, u: torch.stack(f(torch.cat([u[:, t : t + 1] for t in range(TOKENS)])).chunk(TOKENS), 1),
    "unbound": lambda f, u: torch.stack([f(part[:, None]) for part in u.permute(1, 0, 2).unbind(0)], 1),
    "named by einsum": lambda f, u: f(torch.einsum("nte,e->tne", u, WEIGHT.to(u))).transpose(0, 1),
    "expanded": lambda f, u: f(u.expand(3, *u.shape).flatten(0, 1)).unflatten(0, (3, -1)).transpose(0, 1),
}  # fmt: skip


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("name", list(LAST_AXIS_ONLY))
def test_complete_wherever_the_rows_are(name: str, layout: str) -> None:
    """Also where there are as many rows as tokens, and nothing but their history tells which is which."""
    function = LAST_AXIS_ONLY[name]
    for rows in (ROWS, TOKENS // 2, TOKENS):
        assert missing(lambda u: LAYOUTS[layout](function, u), STARTS[:rows], ENDS[:rows]) < 1e-11


def test_rows_that_go_an_unseen_way_are_left_alone() -> None:
    """Where they are cannot be told, so nothing is made up."""

    def hidden(u: Tensor) -> Tensor:
        scattered = u.transpose(0, 1)[torch.arange(TOKENS)][:, :, [0, 2, 4]].mean((0, 2)).mul(1.5)
        return scattered[:, None] * torch.ones_like(u[:, 0])

    assert missing(hidden, STARTS, ENDS) < 1e-11


# --- from nothing, to nearly nothing, and in single precision -----------------------------------------------------------


NORMS = [
    name for name in OPERATIONS if "norm" in name or name in ("standardised", "cosine_similarity")
]


@pytest.mark.parametrize("name", NORMS)
def test_complete_from_zero(name: str) -> None:
    if name in ("standardised", "layer norm by hand, moments"):
        return  # std is not differentiable at zero; var_mean is the same as by hand
    z = torch.stack([torch.zeros_like(ENDS), ENDS], 1).flatten(0, 1)
    place = torch.arange(len(z))
    value, slope = chords(OPERATIONS[name], z, place - place % 2)
    change = value[1::2] - value[::2]
    assert bool(torch.isfinite(slope[1::2]).all())
    torch.testing.assert_close((slope[1::2] * ENDS).flatten(1).sum(1), change, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "group_norm"])
@pytest.mark.parametrize("eps", [1e-5, 1e-12])
def test_a_normalisation_of_a_ray_is_integrated_by_one_chord(name: str, eps: float) -> None:
    """From zero all of it happens within t < √ε, which no node would ever see."""
    functions: dict[str, Function] = {
        "layer_norm": lambda u: F.layer_norm(u, (FEATURES,), eps=eps),
        "rms_norm": lambda u: F.rms_norm(u, (FEATURES,), eps=eps),
        "group_norm": lambda u: F.group_norm(u, 2, eps=eps),
    }
    start = torch.zeros_like(ENDS)
    found = along(functions[name], start, ENDS, 1)
    cuts = [0.0, *(10.0**k for k in torch.linspace(-9, 0, 46).tolist())]
    truth = sum(
        (b - a) * integral(functions[name], a * ENDS, b * ENDS, 24) for a, b in pairwise(cuts)
    )
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_single_precision(name: str) -> None:
    """Steps of any length, also none, give finite chords near those of double precision."""
    for step in (1.0, 1e-2, 1e-4, 1e-6, 0.0):
        starts = ENDS - step * (ENDS - STARTS)
        z = torch.stack([starts, ENDS], 1).flatten(0, 1)
        place = torch.arange(len(z))
        if name == "softmax, far apart":
            return  # it multiplies rounding by 400
        _, exact = chords(OPERATIONS[name], z, place - place % 2)
        _, single = chords(OPERATIONS[name], z.float(), place - place % 2)
        assert bool(torch.isfinite(single).all())
        if name not in KINKED:
            assert float((single - exact).norm() / exact.norm()) < 5e-3, step


def test_masked_entries_have_no_part() -> None:
    hidden = torch.zeros(FEATURES, dtype=torch.bool)
    hidden[2:4] = True
    for function in (
        lambda u: u.masked_fill(hidden, float("-inf")).softmax(2),
        lambda u: u.masked_fill(hidden, float("-inf")).logsumexp(2),
        lambda u: (u + torch.zeros(FEATURES).masked_fill(hidden, float("-inf"))).softmax(2),
    ):
        assert missing(function, STARTS, ENDS) < 1e-11
        assert not along(function, STARTS, ENDS, 3)[..., hidden].any()


def test_blind_queries_see_nothing() -> None:
    mask = CAUSAL.clone()
    mask[1] = False
    assert missing(lambda u: attend(u, attn_mask=mask), STARTS, ENDS) < 1e-11


def test_softmax_may_move_any_distance() -> None:
    """Logits that differ by thousands, in single precision."""
    for function in (
        lambda u: torch.softmax(u, 2),
        lambda u: torch.logsumexp(u, 2),
        lambda u: torch.log_softmax(u, 2),
    ):
        z = torch.stack([5e3 * STARTS, 5e3 * ENDS], 1).flatten(0, 1).float()
        place = torch.arange(len(z))
        value, slope = chords(function, z, place - place % 2)
        change, parts = value[1::2] - value[::2], slope[1::2] * (z[1::2] - z[::2])
        assert bool(torch.isfinite(slope).all())
        assert bool(
            ((parts.flatten(1).sum(1) - change).abs() <= 1e-5 * parts.abs().flatten(1).sum(1)).all()
        )


# --- closed forms, written out ------------------------------------------------------------------------------------------


def test_a_quotient_is_its_integral() -> None:
    """∫ dt/v and −∫ u/v² dt along straight u and v, by Gauss–Legendre."""
    start, end = (torch.tensor([[0.3, 0.2]]).double(), torch.tensor([[-1.2, 5.0]]).double())
    found = chords(lambda z: z[:, 0] / z[:, 1], torch.cat([start, end]), torch.tensor([0, 0]))[1][1]
    field = ig.fields.Function(lambda z: z[:, 0] / z[:, 1])
    share = ig.rules.GaussLegendre(200)(
        field, ig.segments.polyline(torch.stack([start, end])[:, None])
    )[0, 0, 0]
    torch.testing.assert_close(found, share / (end - start)[0], rtol=1e-12, atol=0)


def test_softmax_is_its_jacobian_at_the_logarithmic_mean() -> None:
    a, b = wave(5, phase=1), wave(5, phase=2, scale=3)
    y, z = a.softmax(0), b.softmax(0)
    s = (z - y) / (z.log() - y.log())
    expected = (torch.diag(s) - s[:, None] * s / s.sum()) @ wave(5, phase=4)
    found = chords(
        lambda u: (u.softmax(1) * wave(5, phase=4)).sum(1),
        torch.stack([a, b]),
        torch.tensor([0, 0]),
    )[1][1]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_a_maximum_of_two_is_its_integral() -> None:
    """Each leads for its part of the way."""
    a, b = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[1.5, 3.0]]).double()
    for function in (
        lambda u: u.amax(1),
        lambda u: torch.maximum(u[:, 0], u[:, 1]),
        lambda u: F.max_pool1d(u, 2)[:, 0],
    ):
        found = chords(function, torch.cat([a, b]), torch.tensor([0, 0]))[1][1]
        torch.testing.assert_close(found, torch.tensor([0.4, 0.6]).double())
