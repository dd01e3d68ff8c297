"""Backward rules for Transformers: norms and attention weights as constants, and softer attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import integrand as ig
from integrand.errors import InputError, ModelError
from tests.problems import wave

NORM, FROZEN = ig.fields.FrozenNorm(), ig.fields.FrozenAttention()


def slope(model: Callable[[Tensor], Tensor], x: Tensor, rule: ig.fields.BackwardRule) -> Tensor:
    """Gradients of the sum of the outputs that the rule makes."""
    target = ig.targets.Custom(lambda out: out.flatten(1).sum(1))
    field = ig.TorchField(model, target, backward=rule)
    plain = ig.TorchField(model, target)
    assert torch.equal(field.value(x), plain.value(x))
    index = torch.arange(len(x))
    with field.ready():
        found = field.evaluate(x, index)
    assert torch.equal(
        found.value, plain.value(x)
    )  # forward nothing changes, not even the last bit
    assert found.gradient is not None
    return found.gradient


# --- norms ------------------------------------------------------------------------------------------------------------

W, B = wave(6, phase=0.4), wave(6, phase=1.1)
TOP = wave(6, phase=2.0)


class Written(nn.Module):
    """An RMS norm as Llama writes it."""

    def __init__(self, inverse: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inverse = inverse

    def forward(self, x: Tensor) -> Tensor:
        return W * (x * self.inverse(x.pow(2).mean(-1, keepdim=True) + 1e-3))


RMS = {
    "F.rms_norm": lambda x: F.rms_norm(x, (6,), W, 1e-3),
    "torch.rms_norm": lambda x: torch.rms_norm(x, (6,), W, 1e-3),
    "by name": lambda x: F.rms_norm(input=x, normalized_shape=(6,), weight=W, eps=1e-3),
    "torch.rsqrt": Written(torch.rsqrt),
    "Tensor.rsqrt": Written(lambda v: v.rsqrt()),
}


@pytest.mark.parametrize("name", list(RMS))
def test_rms_norms(name: str) -> None:
    """s w ⊙ g, one number after the other."""
    x = wave(5, 3, 6, phase=0.3)
    found = slope(lambda z: RMS[name](z) * TOP, x, NORM)
    for row in range(5):
        for place in range(3):
            s = 1 / math.sqrt(sum(float(v) ** 2 for v in x[row, place]) / 6 + 1e-3)
            expected = [s * float(W[j] * TOP[j]) for j in range(6)]
            assert found[row, place].tolist() == pytest.approx(expected, rel=1e-12)


LAYER = {
    "nn.LayerNorm": lambda x: _layer_norm()(x),
    "F.layer_norm": lambda x: F.layer_norm(x, (6,), W, B, 1e-3),
    "torch.layer_norm": lambda x: torch.layer_norm(x, (6,), W, B, 1e-3),
    "by name": lambda x: F.layer_norm(x, (6,), eps=1e-3, bias=B, weight=W),
}


def _layer_norm() -> nn.LayerNorm:
    norm = nn.LayerNorm(6, 1e-3)
    norm.weight, norm.bias = nn.Parameter(W, False), nn.Parameter(B, False)
    return norm


@pytest.mark.parametrize("name", list(LAYER))
def test_layer_norms(name: str) -> None:
    """s (w ⊙ g − mean(w ⊙ g)), one number after the other."""
    x = wave(5, 6, phase=0.3)
    found = slope(lambda z: LAYER[name](z) * TOP, x, NORM)
    back = [float(W[j] * TOP[j]) for j in range(6)]
    for row in range(5):
        mean = sum(map(float, x[row])) / 6
        s = 1 / math.sqrt(sum((float(v) - mean) ** 2 for v in x[row]) / 6 + 1e-3)
        expected = [s * (back[j] - sum(back) / 6) for j in range(6)]
        assert found[row].tolist() == pytest.approx(expected, rel=1e-11, abs=1e-13)


def test_norms_without_weights_and_over_several_axes() -> None:
    x = wave(4, 2, 3, phase=0.3)
    top = wave(2, 3, phase=1.0)
    found = slope(lambda z: F.layer_norm(z, (2, 3), eps=0.01) * top, x, NORM)
    for row in range(4):
        s = 1 / math.sqrt(float(x[row].var(correction=0)) + 0.01)
        assert torch.allclose(found[row], s * (top - top.mean()), rtol=1e-11)
    half = x.bfloat16()
    of = ig.TorchField(
        lambda z: F.layer_norm(z, (2, 3)).flatten(1), ig.targets.Logit(0), backward=NORM
    )
    assert of.gradient(half).dtype == torch.bfloat16


# --- attention --------------------------------------------------------------------------------------------------------

T, D = 4, 6
Q, K, V = (wave(D, D, phase=p, scale=1.5) for p in (0.2, 1.3, 2.4))
MASK = torch.ones(T, T, dtype=torch.bool).tril()


def _projected(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two heads of three: (N, 2, T, 3)."""
    return tuple((x @ m).unflatten(-1, (2, 3)).transpose(1, 2) for m in (Q, K, V))  # type: ignore[return-value]


def _eager(
    softmax: Callable[[Tensor], Tensor], mask: float = -torch.inf
) -> Callable[[Tensor], Tensor]:
    def attention(x: Tensor) -> Tensor:
        q, k, v = _projected(x)
        scores = (q @ k.transpose(-1, -2) * 3**-0.5).masked_fill(~MASK, mask)
        return softmax(scores) @ v

    return attention


def _fused(**options: object) -> Callable[[Tensor], Tensor]:
    return lambda x: F.scaled_dot_product_attention(*_projected(x), **options)  # type: ignore[arg-type]


ATTENTION: dict[str, Callable[[Tensor], Tensor]] = {
    "F.softmax": _eager(lambda s: F.softmax(s, dim=-1)),
    "float32 by name": _eager(lambda s: F.softmax(s, dim=-1, dtype=torch.float64)),
    "torch.softmax": _eager(lambda s: torch.softmax(s, 3)),
    "torch.special.softmax": _eager(lambda s: torch.special.softmax(s, -1)),
    "Tensor.softmax": _eager(lambda s: s.softmax(-1)),
    "a finite mask": _eager(lambda s: s.softmax(-1), torch.finfo(torch.float64).min),
    "nn.Softmax": _eager(nn.Softmax(-1)),
    "causal kernel": _fused(is_causal=True),
    "masked kernel": _fused(attn_mask=MASK),
    "added mask": _fused(attn_mask=torch.zeros(T, T).double().masked_fill(~MASK, -torch.inf)),
    "scaled kernel": _fused(is_causal=True, scale=3**-0.5),
}


def by_hand(x: Tensor, temperature: float | None) -> Tensor:
    """What comes back to x for a gradient of ones: Jacobians as matrices, None for frozen weights."""
    found = torch.zeros_like(x)
    for n in range(len(x)):
        for h in range(2):
            part = slice(3 * h, 3 * h + 3)
            q, k, v = (x[n] @ m[:, part] for m in (Q, K, V))
            for i in range(x.shape[1]):
                s = torch.stack([q[i] @ k[j] for j in range(i + 1)]) / math.sqrt(3)
                p = s.exp() / s.exp().sum()
                for j in range(i + 1):  # to the values
                    found[n, j] += V[:, part] @ (p[j] * torch.ones(3).double())
                if temperature is None:
                    continue
                soft = (s / temperature).exp() / (s / temperature).exp().sum()
                jacobian = torch.diag(soft) - torch.outer(soft, soft)
                back = jacobian @ torch.stack([v[j].sum() for j in range(i + 1)]) / math.sqrt(3)
                for j in range(i + 1):
                    found[n, i] += Q[:, part] @ (back[j] * k[j])
                    found[n, j] += K[:, part] @ (back[j] * q[i])
    return found


@pytest.mark.parametrize("name", list(ATTENTION))
@pytest.mark.parametrize("temperature", [None, 1.0, 3.0])
def test_attention(name: str, temperature: float | None) -> None:
    x = wave(2, T, D, phase=0.7)
    rule = FROZEN if temperature is None else ig.fields.SoftmaxTemperature(temperature)
    found = slope(ATTENTION[name], x, rule)
    assert torch.allclose(found, by_hand(x, temperature), rtol=1e-9, atol=1e-12)
    if temperature == 1.0:
        z = x.clone().requires_grad_()
        (ordinary,) = torch.autograd.grad(ATTENTION[name](z).sum(), z)
        assert torch.allclose(found, ordinary, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [None, 1.0, 3.0])
@pytest.mark.parametrize("added", [False, True])
def test_padding_on_the_left_that_sees_nothing(temperature: float | None, added: bool) -> None:
    """The kernel gives zeros there, and all others get what they get alone."""
    x = wave(2, T, D, phase=0.7)
    mask = MASK.clone()
    mask[:, :2] = False
    given = torch.zeros(T, T).double().masked_fill(~mask, -torch.inf) if added else mask
    rule = FROZEN if temperature is None else ig.fields.SoftmaxTemperature(temperature)
    found = slope(_fused(attn_mask=given), x, rule)
    assert torch.allclose(found[:, 2:], by_hand(x[:, 2:], temperature), rtol=1e-9, atol=1e-12)
    assert not found[:, :2].any()


def test_grouped_queries_of_the_kernel() -> None:
    """As if keys and values were there for every head."""
    x = wave(2, T, D, phase=0.7)

    def grouped(z: Tensor) -> Tensor:
        q, k, v = _projected(z)
        return F.scaled_dot_product_attention(
            q, k[:, :1], v[:, :1], is_causal=True, enable_gqa=True
        )

    def repeated(z: Tensor) -> Tensor:
        q, k, v = _projected(z)
        k, v = k[:, [0, 0]], v[:, [0, 0]]
        scores = (q @ k.transpose(-1, -2) * 3**-0.5).masked_fill(~MASK, -torch.inf)
        return scores.softmax(-1) @ v

    for rule in (FROZEN, ig.fields.SoftmaxTemperature(2.0)):
        index = torch.arange(2)
        found, expected = (
            ig.TorchField(
                model, ig.targets.Custom(lambda out: out.flatten(1).sum(1)), backward=rule
            )
            .evaluate(x, index)
            .gradient
            for model in (grouped, repeated)
        )
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-13)


def test_other_softmaxes_keep_their_derivative() -> None:
    """Those of classes, and those over another axis."""
    x = wave(3, 4, 4, phase=0.4)
    for model in (lambda z: z[:, 0].softmax(-1) * TOP[:4], lambda z: z.softmax(1) * TOP[:4]):
        z = x.clone().requires_grad_()
        (ordinary,) = torch.autograd.grad(model(z).sum(), z)
        assert torch.allclose(slope(model, x, FROZEN), ordinary, rtol=1e-12)


# --- whole models -----------------------------------------------------------------------------------------------------


class Decoder(nn.Module):
    """Two layers of attention behind RMS norms, without biases and MLPs."""

    def forward(self, x: Tensor) -> Tensor:
        for attention in (ATTENTION["causal kernel"], ATTENTION["F.softmax"]):
            x = x + attention(F.rms_norm(x, (D,), W, 1e-3)).transpose(1, 2).flatten(2)
        return F.rms_norm(x, (D,), None, 1e-3)[:, -1] * TOP


def test_both_frozen_make_a_decoder_linear() -> None:
    """Then the input times the gradient adds up to F, and with one of them it does not."""
    x = wave(3, T, D, phase=0.9)
    both = ig.fields.BackwardRules((NORM, FROZEN))
    model = Decoder()
    value = model(x).sum(1)
    product = (x * slope(model, x, both)).sum((1, 2))
    assert torch.allclose(product, value, rtol=1e-10)
    for rule in (NORM, FROZEN):
        apart = (x * slope(model, x, rule)).sum((1, 2)) - value
        assert float(apart.abs().min()) > 1e-3
    reverse = slope(model, x, ig.fields.BackwardRules((FROZEN, NORM)))
    assert torch.equal(reverse, slope(model, x, both))


@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")
def test_with_methods_and_the_model_given_back() -> None:
    model = Decoder()
    rules = ig.fields.BackwardRules((NORM, ig.fields.SoftmaxTemperature(2.0)))
    x = wave(3, T, D, phase=0.9)
    method = ig.Backward(rules, ig.methods.integrated(rule=ig.rules.GaussLegendre(4)))
    found = ig.explain(model, x, target=0, method=method)
    assert found.values.shape == x.shape
    assert repr(rules) == "BackwardRules((FrozenNorm(), SoftmaxTemperature()))"
    again = ig.explain(model, x, target=0, method=ig.methods.integrated(rule=ig.rules.Midpoint(4)))
    plain = ig.explain(
        Decoder(), x, target=0, method=ig.methods.integrated(rule=ig.rules.Midpoint(4))
    )
    assert torch.equal(again.values, plain.values)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_refusals() -> None:
    attention = nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2))
    for rule in (FROZEN, ig.fields.SoftmaxTemperature(2.0)):
        with pytest.raises(ModelError, match="'1'"):
            ig.TorchField(attention, 0, backward=rule)
    scripted = torch.jit.trace(nn.LayerNorm(4), torch.zeros(1, 4))
    with pytest.raises(ModelError, match="scripted"):
        ig.TorchField(scripted, 0, backward=NORM)
    for temperature in (0.0, -1.0):
        with pytest.raises(InputError, match="above 0"):
            ig.fields.SoftmaxTemperature(temperature)
    for rules in ([NORM], (NORM, "frozen")):
        with pytest.raises(InputError, match="tuple of rules"):
            ig.fields.BackwardRules(rules)  # type: ignore[arg-type]


def llama(kernel: str) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM._from_config(config, attn_implementation=kernel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    return model.double().eval()


def map_of(model: Any, rule: Any) -> Tensor:
    """Of a padded batch, so that masks matter."""
    method = ig.methods.integrated(rule=ig.rules.GaussLegendre(3))
    made = ig.text.explain_ids(
        model,
        [[0, 3, 9, 11, 5], [2, 8, 8, 4, 30]],
        attention_mask=torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]),
        target=ig.text.NextToken(7),
        method=method if rule is None else ig.Backward(rule, method),
    )
    values: Tensor = made.attribution.values
    return values


@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")
@pytest.mark.parametrize("rule", [FROZEN, ig.fields.SoftmaxTemperature(2.0)], ids=repr)
def test_every_attention_of_transformers_is_seen_or_refused(
    rule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, plain = map_of(llama("eager"), rule), map_of(llama("eager"), None)
    assert float((eager - plain).norm() / plain.norm()) >= 5e-3  # it does something
    # Written out, its softmax is in float32.
    torch.testing.assert_close(map_of(llama("sdpa"), rule), eager, rtol=1e-3, atol=1e-6)
    with pytest.raises(ModelError, match=r"inside 'flex_attention' are not shown: load .*'sdpa'"):
        map_of(llama("flex_attention"), rule)
    for kernel in ("flash_attention_2", "kernels-community/flash-attn3", "paged|flex_attention"):
        model = llama("sdpa")  # whose packages are not here
        monkeypatch.setattr(type(model.config), "_attn_implementation", kernel)
        with pytest.raises(ModelError, match="are not shown"):
            map_of(model, rule)
        monkeypatch.undo()


@pytest.mark.filterwarnings("ignore")  # of transformers and torch, on their way to saying no
def test_kernels_without_a_backward_pass_say_what_else_there_is() -> None:
    with pytest.raises(ModelError, match=r"attn_implementation='sdpa'"):
        map_of(llama("flex_attention"), None)
