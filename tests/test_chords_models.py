"""What real networks are made of stays exactly complete: transformers, residual networks, normalised networks, softmax targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import integrand as ig
from integrand.fields import CountedField
from tests.problems import Counting, Cube, wave

TOKENS, WIDTH = 4, 8


def grown(make: Callable[[], nn.Module], seed: int = 3) -> nn.Module:
    """A model with its ordinary initialisation, louder, the same on every run."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.5
    return model


class Encoder(nn.Module):
    """torch's own layer, between linear maps; tokens first unless ``batch_first``."""

    def __init__(
        self, batch_first: bool = True, mask: str = "", stack: bool = False, **options: Any
    ) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 12, batch_first=batch_first, **options)
        self.layer = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False) if stack else layer
        self.head, self.batch_first, self.mask = nn.Linear(WIDTH, 3), batch_first, mask

    def forward(self, x: Tensor) -> Tensor:
        options: dict[str, Any] = {}
        if self.mask == "causal":
            options = {
                "src_mask": nn.Transformer.generate_square_subsequent_mask(TOKENS, dtype=x.dtype),
                "is_causal": True,
            }
        if self.mask == "padding":
            options = {
                "src_key_padding_mask": (torch.arange(TOKENS) == TOKENS - 1).expand(len(x), -1)
            }
        if isinstance(self.layer, nn.TransformerEncoder) and "src_mask" in options:
            options["mask"] = options.pop("src_mask")
        if self.batch_first:
            return self.head(self.layer(x, **options).mean(1))
        return self.head(self.layer(x.transpose(0, 1), **options)[0])


class Attending(nn.Module):
    """nn.MultiheadAttention with its weights read as well."""

    def __init__(self, batch_first: bool = True, average: bool = True, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=batch_first, **options)
        self.head, self.average = nn.Linear(WIDTH, 3), average

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.attention.batch_first else x.transpose(0, 1)
        mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
        made, weights = self.attention(
            x,
            2 * x[..., : self.attention.kdim],
            x.tanh(),
            attn_mask=mask,
            average_attn_weights=self.average,
        )
        made = made if self.attention.batch_first else made.transpose(0, 1)
        return self.head(made.sum(1)) + weights.flatten(1)[:, -3:]


class Root(nn.Module):
    """RMSNorm as LLaMA writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        kind = x.dtype
        x = x.to(torch.float64)
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)).to(kind)


class Llama(nn.Module):
    """RMSNorm, rotary positions, grouped queries, eager causal attention, SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([Root() for _ in range(3)])
        self.q, self.kv = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.o = nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate, self.up, self.down = (
            nn.Linear(*s, bias=False) for s in ((WIDTH, 12), (WIDTH, 12), (12, WIDTH))
        )
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = len(x)
        hidden = self.norms[0](x)
        q = self.turned(self.q(hidden).view(rows, TOKENS, 4, 2).transpose(1, 2))
        k, v = self.kv(hidden).view(rows, TOKENS, 2, 4).transpose(1, 2).chunk(2, -1)
        k, v = (t.repeat_interleave(2, 1) for t in (self.turned(k), v))
        hide = torch.full((TOKENS, TOKENS), torch.finfo(x.dtype).min, dtype=x.dtype).triu(1)
        weights = F.softmax(
            torch.matmul(q, k.transpose(2, 3)) / 2**0.5 + hide, dim=-1, dtype=x.dtype
        )
        x = x + self.o(torch.matmul(weights, v).transpose(1, 2).reshape(rows, TOKENS, -1))
        hidden = self.norms[1](x)
        x = x + self.down(F.silu(self.gate(hidden)) * self.up(hidden))
        return self.head(self.norms[2](x)[:, -1])

    @staticmethod
    def turned(x: Tensor) -> Tensor:
        angle = torch.arange(TOKENS, dtype=x.dtype)[:, None]
        return x * angle.cos() + torch.cat([-x[..., 1:], x[..., :1]], -1) * angle.sin()


class Bert(nn.Module):
    """Post-norm block around F.scaled_dot_product_attention, from embeddings normalised on entry; a pooler."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.qkv, self.out = (
            nn.LayerNorm(WIDTH, eps=1e-12),
            nn.Linear(WIDTH, 3 * WIDTH),
            nn.Linear(WIDTH, WIDTH),
        )
        self.first, self.last = nn.LayerNorm(WIDTH, eps=1e-12), nn.LayerNorm(WIDTH, eps=1e-12)
        self.wide, self.narrow = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)
        self.pool, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        # As in timm: (3, N, H, T, D).
        q, k, v = self.qkv(x).reshape(len(x), TOKENS, 3, 2, WIDTH // 2).permute(2, 0, 3, 1, 4)
        mask = (torch.arange(TOKENS) < TOKENS - 1).expand(len(x), 1, 1, -1)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = self.first(x + self.out(found))
        x = self.last(x + self.narrow(F.gelu(self.wide(x))))
        return self.head(torch.tanh(self.pool(x[:, 0])))


class Residual(nn.Module):
    """Stem with overlapping max pooling, two blocks with batch norm, an average pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        self.block = nn.Sequential(
            nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        )  # fmt: skip
        self.act, self.head = nn.ReLU(inplace=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.act(x + self.block(x))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Grouped(nn.Module):
    """GroupNorm, a channels-last LayerNorm as in ConvNeXt, a global maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.depth = (
            nn.Conv2d(3, 8, 3),
            nn.GroupNorm(2, 8),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
        )
        self.last, self.wide, self.narrow = (
            nn.LayerNorm(8, eps=1e-6),
            nn.Linear(8, 16),
            nn.Linear(16, 8),
        )
        self.scale, self.head = nn.Parameter(torch.full((8,), 0.3)), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.stem(x)))
        y = self.depth(x).permute(0, 2, 3, 1)
        y = self.scale * self.narrow(F.gelu(self.wide(self.last(y))))
        return self.head((x + y.permute(0, 3, 1, 2)).amax((2, 3)))


class Recent(nn.Module):
    """Tokens first all the way, with a normalisation, an activation and a gate of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 12), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.glu(F.gelu(self.wide(self.norm(x.permute(1, 0, 2)))), -1).mean(0))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "encoder, post-norm": (Encoder, (TOKENS, WIDTH)),
    "encoder, pre-norm": (lambda: Encoder(norm_first=True), (TOKENS, WIDTH)),
    "encoder, gelu": (lambda: Encoder(activation="gelu"), (TOKENS, WIDTH)),
    "encoder, tokens first": (lambda: Encoder(False), (TOKENS, WIDTH)),
    "encoder, tokens first, pre-norm": (lambda: Encoder(False, norm_first=True), (TOKENS, WIDTH)),
    "encoder, causal": (lambda: Encoder(mask="causal"), (TOKENS, WIDTH)),
    "encoder, padded": (lambda: Encoder(mask="padding"), (TOKENS, WIDTH)),
    "encoder, tokens first, padded": (lambda: Encoder(False, mask="padding"), (TOKENS, WIDTH)),
    "encoder, stacked": (lambda: Encoder(stack=True, mask="padding"), (TOKENS, WIDTH)),
    "attention": (Attending, (TOKENS, WIDTH)),
    "attention, every head": (lambda: Attending(average=False), (TOKENS, WIDTH)),
    "attention, tokens first": (lambda: Attending(False, bias=False), (TOKENS, WIDTH)),
    "attention, own projections": (lambda: Attending(kdim=WIDTH - 2), (TOKENS, WIDTH)),
    "llama": (Llama, (TOKENS, WIDTH)),
    "bert": (Bert, (TOKENS, WIDTH)),
    "tokens first": (Recent, (TOKENS, WIDTH)),
    "residual network": (Residual, (3, 9, 9)),
    "grouped network": (Grouped, (3, 8, 8)),
}
TARGETS = {
    "logit": ig.targets.Logit(1),
    "probability": ig.targets.Probability(1),
    "log-odds": ig.targets.LogOdds(0),
    "loss": ig.targets.Loss(2),
}


def rows(shape: tuple[int, ...], count: int, start: str) -> tuple[Tensor, Tensor]:
    end = wave(count, *shape, phase=2.9, scale=1.2)
    return (
        torch.zeros_like(end) if start == "zero" else wave(count, *shape, phase=0.7, scale=1.2)
    ), end


def defect(
    field: ig.TorchField, start: Tensor, end: Tensor, dtype: torch.dtype = torch.float64
) -> float:
    z = torch.stack([start, end], 1).flatten(0, 1).to(dtype)
    place = torch.arange(len(z))
    found = field.evaluate_chords(z, place // 2, place - place % 2)
    change = found.value[1::2] - found.value[::2]
    assert float(change.abs().amax()) > 1e-3
    explained = (found.gradient[1::2] * (z[1::2] - z[::2])).flatten(1).sum(1)
    return float((explained - change).abs().max() / change.abs().max())


# As many rows as tokens (2 pairs), multiples of it, and neither.
@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("name", list(MODELS))
def test_complete(name: str, count: int) -> None:
    make, shape = MODELS[name]
    field = ig.TorchField(grown(make), 1)
    assert defect(field, *rows(shape, count, "anywhere")) < 1e-10
    assert field.chordal


@pytest.mark.parametrize("name", list(MODELS))
def test_complete_from_zero(name: str) -> None:
    make, shape = MODELS[name]
    field = ig.TorchField(grown(make), 1)
    assert defect(field, *rows(shape, 3, "zero")) < 1e-9
    assert field.chordal


@pytest.mark.parametrize("start", ["anywhere", "zero"])
@pytest.mark.parametrize("name", list(MODELS))
def test_complete_in_single_precision(name: str, start: str) -> None:
    make, shape = MODELS[name]
    model = grown(make).float()
    if name == "llama":
        return  # it computes in double by itself
    field = ig.TorchField(model, 1)
    assert defect(field, *rows(shape, 3, start), torch.float32) < 3e-4
    assert field.chordal


@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("name", ["bert", "residual network"])
def test_complete_for_softmax_targets(name: str, target: str) -> None:
    make, shape = MODELS[name]
    field = ig.TorchField(grown(make), TARGETS[target])
    assert defect(field, *rows(shape, 4, "anywhere")) < 1e-10
    assert field.chordal


@pytest.mark.parametrize("name", list(MODELS))
def test_values_are_those_of_the_model(name: str) -> None:
    make, shape = MODELS[name]
    model = grown(make)
    _, end = rows(shape, 3, "zero")
    place = torch.arange(3)
    field = ig.TorchField(model, 1)
    found, plain = field.evaluate_chords(end, place, place), field.evaluate(end, place)
    torch.testing.assert_close(found.value, plain.value, rtol=0, atol=1e-13)
    torch.testing.assert_close(found.gradient, plain.gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "name",
    [
        "encoder, post-norm",
        "encoder, tokens first, pre-norm",
        "attention",
        "llama",
        "bert",
        "tokens first",
        "grouped network",
    ],
)
def test_chords_integrate_at_second_order(name: str) -> None:
    make, shape = MODELS[name]
    field = ig.TorchField(grown(make), 1)
    start, end = rows(shape, 2, "anywhere")
    start = start + 0.5 * (end - start)
    segment = ig.segments.polyline(torch.stack([start, end])[:, None])
    truth = ig.rules.GaussLegendre(300)(field, segment)
    errors = [
        float((ig.rules.Chords(n, grade=1)(field, segment) - truth).norm() / truth.norm())
        for n in (16, 64)
    ]
    assert errors[1] < (0.02 if "grouped" in name or "encoder" in name else 2e-3)
    if "encoder" not in name and "grouped" not in name:  # these have kinks
        assert errors[0] / errors[1] == pytest.approx(16, rel=0.3)
    assert field.chordal


def test_the_fast_path_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch would run a whole layer as one kernel, past every chord, if nothing asked for gradients or watched."""

    def taken(*_: Any) -> Tensor:
        raise AssertionError("one kernel for the layer")

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", taken)
    monkeypatch.setattr(torch, "_native_multi_head_attention", taken)
    for stack in (False, True):
        field = ig.TorchField(grown(lambda stack=stack: Encoder(stack=stack)), 1)
        with torch.no_grad():
            assert defect(field, *rows((TOKENS, WIDTH), 3, "anywhere")) < 1e-10


# --- what has no chord ------------------------------------------------------------------------------------------------


def shuffled(u: Tensor) -> Tensor:
    """Tokens first, by a way that is not followed, and as many of them as there are rows."""
    other = torch.empty(u.shape[1], u.shape[0], u.shape[2], dtype=u.dtype)
    for t in range(u.shape[1]):
        other[t] = u[:, t]
    return other.square().sum(2).T.sum(1, keepdim=True)


CONTROLS: dict[str, Callable[[Tensor], Tensor]] = {
    "custom function": lambda u: Cube.apply(u).sum(2),
    "running product": lambda u: u.flatten(1)[:, :3].cumprod(1).sum(1, keepdim=True),
    "rows along an axis nobody saw move": shuffled,
}


@pytest.mark.parametrize("name", list(CONTROLS))
def test_what_has_no_chord_is_caught(name: str) -> None:
    start, end = rows((TOKENS, WIDTH), 2, "anywhere")
    field = ig.TorchField(CONTROLS[name], ig.targets.Custom(lambda out: out[:, 0]))
    z = torch.stack([start, end], 1).flatten(0, 1)
    place = torch.arange(4)
    found = field.evaluate_chords(z, place // 2, place - place % 2)
    assert not field.chordal
    assert found.passes == 2
    gradient = field.evaluate(z, place // 2).gradient
    torch.testing.assert_close(
        found.gradient[1::2], (gradient[1::2] + gradient[::2]) / 2, rtol=0, atol=1e-13
    )
    assert field.evaluate_chords(z, place // 2, place - place % 2).passes == 1


def test_a_target_without_chords_does_not_spoil_others() -> None:
    start, end = rows((TOKENS, WIDTH), 2, "anywhere")
    field = ig.TorchField(grown(Bert), lambda out: Cube.apply(out[:, 1]))
    z = torch.stack([start, end], 1).flatten(0, 1)
    place = torch.arange(4)
    field.evaluate_chords(z, place // 2, place - place % 2)
    assert not field.chordal
    other = field.with_target(1)
    assert defect(other, start, end) < 1e-10
    assert other.chordal
    assert not field.chordal


def test_a_call_that_is_made_twice_is_counted_twice() -> None:
    counted = Counting(grown(Bert))
    meter = CountedField(ig.TorchField(counted, lambda out: Cube.apply(out[:, 1])))
    z, place = wave(4, TOKENS, WIDTH), torch.arange(4)
    for calls in (2, 3):
        meter.evaluate_chords(z, place, place - place % 2)
        assert meter.tally.gradients == counted.gradients == 4 * calls
        assert meter.tally.calls == counted.calls == calls
