"""Operations and forms of models that people use, from hostile baselines: the default rule against plain autograd and brute force."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import integrand as ig
from tests.problems import brute_force, wave
from tests.test_chords_operations import OPERATIONS, positive

Function = Callable[[Tensor], Tensor]

PLACES = torch.tensor([0, 0, 1, 2, 2, 5])
EYE = torch.eye(4, dtype=torch.float64)
LABELS = torch.tensor([1, 2])


def each(function: Function) -> Function:
    """Row by row, for functions that take no batch."""
    return lambda u: torch.stack([function(row) for row in u])


def gram(u: Tensor) -> Tensor:
    return u @ u.mT + EYE.to(u)


def picture(u: Tensor) -> Tensor:
    return torch.stack([u, u.flip(1).tanh()], 1)


def scattered(how: str) -> Function:
    return lambda u: torch.ones_like(u).scatter_reduce(
        2, PLACES.expand_as(u), u, how, include_self=how == "prod"
    )


def assigned(u: Tensor) -> Tensor:
    made = torch.zeros_like(u)
    made[:, 1:] = u[:, :-1] ** 2
    made[:, 0] += u[:, 3]
    return made


# Beside those with chords: what has none, or has one only from some angles. Places where torch's own gradient is infinite are left out.
STRANGERS: dict[str, Function] = {
    "digamma": lambda u: torch.digamma(positive(u)),
    "erfinv": lambda u: torch.erfinv(0.9 * u.tanh()),
    "i0": torch.i0, "i1": torch.special.i1, "i1e": torch.special.i1e, "entr": lambda u: torch.special.entr(u.sigmoid()),
    "erfcx": torch.special.erfcx, "log_ndtr": torch.special.log_ndtr, "ndtri": lambda u: torch.special.ndtri(u.sigmoid()),
    "polygamma": lambda u: torch.polygamma(1, positive(u)), "mvlgamma": lambda u: torch.mvlgamma(positive(u) + 2, 2),
    "xlogy": lambda u: torch.xlogy(positive(u), positive(u)), "xlog1py": lambda u: torch.special.xlog1py(u, u.square()),
    "zeta": lambda u: torch.special.zeta(2.5, positive(u)),
    "pow of two": lambda u: positive(u) ** u.flip(2), "float_power": lambda u: torch.float_power(positive(u), 1.7),
    "pow(2.5) at zero": lambda u: u.relu() ** 2.5, "ldexp": lambda u: torch.ldexp(u, u.flip(2)),
    "logaddexp2": lambda u: torch.logaddexp2(u, u.flip(2)), "lerp": lambda u: torch.lerp(u, u.flip(2), u.sigmoid()),
    "cross": lambda u: torch.linalg.cross(u[..., :3], u[..., 3:]), "vecdot": lambda u: torch.linalg.vecdot(u, u.flip(2)),
    "kron": each(lambda a: torch.kron(a, a)), "outer": each(lambda a: torch.outer(a[0], a[1])), "addr": each(lambda a: torch.addr(a, a[:, 0], a[0])),
    "einsum of three": lambda u: torch.einsum("nij,nkj,nkl->nil", u, u, u),
    "einsum, a diagonal": lambda u: torch.einsum("nii->ni", u @ u.mT), "einsum, twice one letter": lambda u: torch.einsum("nii,nij->nj", u @ u.mT, u),
    "matrix_power": lambda u: torch.linalg.matrix_power(0.2 * u @ u.mT, 3), "multi_dot": each(lambda a: torch.linalg.multi_dot([a, a.mT, a])),
    "prod": lambda u: u.prod(2), "cumprod": lambda u: u.cumprod(2), "logcumsumexp": lambda u: u.logcumsumexp(2),
    "cummax": lambda u: u.cummax(2).values, "aminmax": lambda u: u.aminmax(dim=2).max, "median": lambda u: u.median(2).values,
    "quantile": lambda u: u.quantile(0.3, dim=2), "kthvalue": lambda u: u.kthvalue(2, 2).values, "mode": lambda u: u.mode(2).values,
    "sort": lambda u: u.sort(2).values * wave(6).to(u), "topk": lambda u: u.topk(3, 2).values,
    "std over everything": lambda u: u.std((1, 2)), "std, no correction": lambda u: u.std(2, correction=0),
    "std_mean": lambda u: sum(torch.std_mean(u, 2)), "Annotated Transformer's norm": lambda u: (u - u.mean(2, True)) / (u.std(2, keepdim=True) + 0.1),
    "norm(3)": lambda u: u.norm(3, 2), "norm(inf)": lambda u: u.norm(float("inf"), 2), "norm over a matrix": lambda u: torch.linalg.matrix_norm(u),
    "nuclear norm": lambda u: torch.linalg.matrix_norm(u + wave(4, 6, phase=3).to(u), "nuc"), "x / (norm + eps)": lambda u: u / (u.norm(dim=2, keepdim=True) + 0.1),
    "normalize(p=1)": lambda u: F.normalize(u, p=1, dim=2, eps=0.1), "pairwise_distance": lambda u: F.pairwise_distance(u.flatten(1), wave(24).to(u)),
    "cdist": lambda u: torch.cdist(u, u), "cdist(p=1)": lambda u: torch.cdist(u, u, p=1.0), "pdist": each(F.pdist),
    "softmax2d": lambda u: nn.Softmax2d()(u[:, :, None]), "logsumexp over two axes": lambda u: u.logsumexp((1, 2)),
    "local_response_norm": lambda u: F.local_response_norm(u, 3, alpha=1.0, k=1.0),
    "det": lambda u: torch.linalg.det(gram(u)), "slogdet": lambda u: torch.linalg.slogdet(gram(u))[1], "inv": lambda u: torch.linalg.inv(gram(u)),
    "solve": lambda u: torch.linalg.solve(gram(u), u), "cholesky": lambda u: torch.linalg.cholesky(gram(u)),
    "eigvalsh": lambda u: torch.linalg.eigvalsh(u @ u.mT + torch.arange(4.0).diag().to(u)), "qr": lambda u: torch.linalg.qr(u.mT + wave(6, 4, phase=3).to(u))[1].square(),
    "matrix_exp": lambda u: torch.linalg.matrix_exp(0.3 * u @ u.mT), "cov": each(torch.cov),
    "gradient": lambda u: torch.gradient(u, dim=2)[0].square(), "scatter amax": scattered("amax"), "scatter mean": scattered("mean"), "scatter prod": scattered("prod"),
    "index_add": lambda u: torch.zeros_like(u).index_add(2, PLACES, u).relu(), "index_put": lambda u: torch.zeros_like(u).index_put((torch.arange(len(u)),), u).exp(),
    "written into": assigned, "unfold": lambda u: u.unfold(2, 3, 1).prod(3), "fold": lambda u: F.fold(F.unfold(u[:, None], 2) ** 2, (4, 6), 2),
    "vander": lambda u: torch.linalg.vander(u, N=4), "kernel that moves": each(lambda a: F.conv1d(a[None], a[None, :, :3])),
    "lp_pool": lambda u: F.lp_pool2d(positive(picture(u)), 2.0, 2), "max_unpool": lambda u: F.max_unpool1d(*F.max_pool1d(u, 2, return_indices=True), 2),
    "fractional pool": lambda u: F.fractional_max_pool2d(picture(u), 2, output_size=(2, 3), _random_samples=torch.full((len(u), 2, 2), 0.3).to(u)),
    "bicubic": lambda u: F.interpolate(picture(u), scale_factor=1.5, mode="bicubic").relu(),
    "grid_sample": lambda u: F.grid_sample(picture(u), 0.5 * torch.stack([u, u.flip(2)], -1).tanh(), align_corners=False),
    "pixel_shuffle": lambda u: F.pixel_shuffle(u[:, :, None], 2) ** 2, "pad, reflected": lambda u: F.pad(u, (2, 2), mode="reflect") ** 2,
    "soft labels": lambda u: F.cross_entropy(u.mT, torch.full((len(u), 6, 4), 1 / 6).to(u), reduction="none"),
    "two that move": lambda u: F.smooth_l1_loss(u, u.flip(2), reduction="none"), "kl": lambda u: F.kl_div(u.log_softmax(2), u.flip(2).softmax(2), reduction="none"),
    "ctc": lambda u: F.ctc_loss(u.log_softmax(2).transpose(0, 1), LABELS.expand(len(u), 2), torch.full((len(u),), 4), torch.full((len(u),), 2), reduction="none"),
    "attention of the blind": lambda u: F.scaled_dot_product_attention(u, u.flip(2), u, attn_mask=torch.ones(4, 4, dtype=torch.bool).tril(-1)),
    "spectrum in decibels": lambda u: torch.stft(u.flatten(1), 8, 4, window=torch.hann_window(8).to(u), return_complex=True).abs().log1p(),
    "masked spectrum": lambda u: torch.fft.irfft(torch.fft.rfft(u) * torch.fft.rfft(u).abs().sigmoid(), n=6),
    "complex product of all": lambda u: torch.complex(u, u.flip(2)).prod(2).real, "complex variance": lambda u: torch.complex(u, u.flip(2)).var(2),
    "complex solve": lambda u: torch.linalg.solve(u @ u.mT + (1 + 1j) * EYE.to(u), torch.complex(u, u.flip(2))).real,
    "detached gate": lambda u: u * u.detach().sigmoid(),
}  # fmt: skip

# Their chords are those of a function that torch's own gradient is not the gradient of, or brute force is no match for what happens at zero.
ELSEWHERE = {"softmax, far apart", "normalize", "cosine_similarity", "u * (1 / v)", "detached gate"}
SWEPT = {
    name: function
    for name, function in {**OPERATIONS, **STRANGERS}.items()
    if name not in ELSEWHERE
}

ENDS = wave(2, 4, 6, phase=2.9, scale=1.2)
BASELINES = {
    "any": wave(4, 6, phase=0.7, scale=0.8),
    "zeros": torch.zeros(4, 6, dtype=torch.float64),
    "constant": torch.full((4, 6), 0.5, dtype=torch.float64),
    "half equal": torch.where(torch.arange(4)[:, None] % 2 == 0, wave(4, 6, phase=0.2), ENDS[0]),
}


def scalar(function: Function) -> Function:
    def model(z: Tensor) -> Tensor:
        made = function(z)
        made = made[:, None] if made.ndim == 1 else made.flatten(1)
        return made @ (1 + wave(made.shape[1], phase=0.4, scale=0.5)).to(made)

    return model


def disagreement(
    model: Function, start: Tensor, tolerance: float, dtype: torch.dtype = torch.float64
) -> str | None:
    """How far the default rule is from brute force where that is more than both tolerance and estimate allow."""
    field = ig.TorchField(model, ig.targets.Output())
    rule = ig.rules.Adaptive(tolerance)
    found = ig.Method(ig.baselines.Given(start[None].to(dtype)), rule=rule)(field, ENDS.to(dtype))
    errors = torch.zeros(0)
    for nodes in (
        2000,
        40000,
    ):  # kinks make brute force slow to converge: it is asked again before anybody is blamed
        truth = brute_force(model, start, ENDS, nodes)
        errors = (found.values.double() - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(
            dim=1
        ).clamp_min(1e-9)
        if bool((errors <= 4 * found.error.double().clamp_min(tolerance)).all()):
            return None
    return f"off by {errors.tolist()}, said {found.error.tolist()}, without chords: {field.without_chords}"


@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")
@pytest.mark.parametrize("name", list(SWEPT))
def test_operations(name: str) -> None:
    """One hostile baseline each; ``test_operations_from_everywhere`` has the rest."""
    baseline = list(BASELINES.values())[list(SWEPT).index(name) % 4]
    assert disagreement(scalar(SWEPT[name]), baseline.expand_as(ENDS), 1e-3) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::integrand.errors.IncompleteWarning")
@pytest.mark.parametrize("name", list(SWEPT))
def test_operations_from_everywhere(name: str) -> None:
    failures = {
        (baseline, dtype): wrong
        for baseline, start in BASELINES.items()
        for tolerance, dtype in ((1e-4, torch.float64), (1e-2, torch.float32))
        if (wrong := disagreement(scalar(SWEPT[name]), start.expand_as(ENDS), tolerance, dtype))
    }
    assert not failures


# --- forms of models ----------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(24, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.flatten(1))
        h = torch.where(h > 0, h * h, h.exp() - 1)
        return self.last(h / (1 + h.square().sum(1, keepdim=True)))


class Around(nn.Module):
    """A function of some parts and the input."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], part: nn.Module) -> None:
        super().__init__()
        self.function, self.part = function, part

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.function(self.part, x)
        return made


class Spectral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.complex(wave(24, 3, phase=1), wave(24, 3, phase=2)) / 5)

    def forward(self, x: Tensor) -> Tensor:
        return (torch.complex(x.flatten(1), x.flatten(1).roll(1, 1)) @ self.weight).abs()


def attention(**options: bool) -> Callable[[], nn.Module]:
    return lambda: Around(
        lambda part, x: part(x, x, x)[0].flatten(1),
        nn.MultiheadAttention(6, 2, batch_first=True, **options),
    )


def messages(part: nn.Module, x: Tensor) -> Tensor:
    """A graph network as PyG writes it: nodes of all graphs in one list."""
    edges = torch.tensor([[0, 1, 1, 2, 3, 3], [1, 0, 2, 1, 0, 3]])
    source, sink = edges.repeat(1, len(x)) + (4 * torch.arange(len(x))).repeat_interleave(6)
    h = x.reshape(-1, 6)
    for _ in range(2):
        sent = part(h)[source] * torch.sigmoid(part(h))[sink]
        h = torch.zeros_like(h).index_add(0, sink, sent).relu()
    return h.view(len(x), -1)


def ensemble() -> Function:
    nets = [seeded(Net, seed) for seed in range(3)]
    parameters, buffers = torch.func.stack_module_state(nets)
    base = copy.deepcopy(nets[0]).to("meta")
    run = lambda p, b, x: torch.func.functional_call(base, (p, b), (x,))  # noqa: E731
    return lambda x: torch.vmap(run, in_dims=(0, 0, None))(parameters, buffers, x).mean(0)


def functional() -> Function:
    net = seeded(Net)
    return lambda x: torch.func.functional_call(net, dict(net.named_parameters()), (x,))


def behind(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        layer(), nn.Flatten(), nn.LazyLinear(8), nn.Tanh(), nn.Linear(8, 3)
    )


def last(part: nn.Module, x: Tensor) -> Tensor:
    return part(x)[0][:, -1]


FORMS: dict[str, Callable[[], Function]] = {
    "script": lambda: torch.jit.script(seeded(Net)),
    "trace": lambda: torch.jit.trace(seeded(Net), ENDS),
    "symbolic trace": lambda: torch.fx.symbolic_trace(seeded(Net)),
    "functional_call": functional,
    "ensemble by vmap": ensemble,
    "complex parameters": Spectral,
    "checkpoint": lambda: Around(lambda part, x: checkpoint(part, x, use_reentrant=False), Net()),
    "in place": lambda: Around(lambda part, x: part(x.mul_(2).add_(1).relu_()), Net()),
    "expanded output": lambda: Around(lambda part, x: part(x)[:, None].expand(-1, 2, -1)[:, 0], Net()),
    "attention": attention(),
    "attention with biases of keys": attention(add_bias_kv=True, add_zero_attn=True),
    "encoder": lambda: Around(lambda part, x: part(x).mean(1), nn.TransformerEncoderLayer(6, 2, 12, 0.0, batch_first=True, layer_norm_eps=0.1)),
    "decoder": lambda: Around(lambda part, x: part(x, x.flip(1)).mean(1), nn.TransformerDecoderLayer(6, 2, 12, 0.0, batch_first=True, layer_norm_eps=0.1)),
    "LSTM": lambda: Around(last, nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True)),
    "LSTM, projected": lambda: Around(last, nn.LSTM(6, 5, batch_first=True, proj_size=3)),
    "GRU, time first": lambda: Around(lambda part, x: part(x.transpose(0, 1))[0][-1], nn.GRU(6, 5)),
    "packed": lambda: Around(lambda part, x: part(nn.utils.rnn.pack_padded_sequence(x, torch.full((len(x),), 3), batch_first=True))[1][-1], nn.GRU(6, 5, batch_first=True)),
    "messages": lambda: Around(messages, nn.Linear(6, 6)),
    "sparse": lambda: Around(lambda part, x: part(torch.sparse.mm(wave(4, 4).relu().to_sparse(), x.transpose(0, 1).flatten(1)).unflatten(1, (-1, 6)).transpose(0, 1).tanh()), Net()),
    "embedding bag": lambda: Around(lambda part, x: F.embedding_bag(torch.arange(6).expand(len(x), 6), part.weight, per_sample_weights=x[:, 0], mode="sum").tanh(), nn.Embedding(6, 5)),
    "group norm": behind(lambda: nn.GroupNorm(2, 4, eps=1e-2)),
    "instance norm": behind(lambda: nn.InstanceNorm1d(4, eps=1e-2, affine=True)),
    "RMS norm": behind(lambda: nn.RMSNorm(6, eps=1e-2)),
    "batch norm": behind(lambda: nn.BatchNorm1d(4)),
    "weight_norm": behind(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 5))),
    "spectral_norm": behind(lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 5))),
    "GLU": behind(lambda: nn.GLU(1)),
    "PReLU": behind(lambda: nn.PReLU(4)),
    "RReLU": behind(nn.RReLU),
    "adaptive max pool": behind(lambda: nn.AdaptiveMaxPool1d(2)),
    "bilinear": lambda: Around(lambda part, x: part(x, x.flip(1)).flatten(1), nn.Bilinear(6, 6, 2)),
}  # fmt: skip


def seeded(make: Callable[[], Function], seed: int = 0) -> Function:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = make()
        if isinstance(made, nn.Module):
            made = made.double().eval()
            made(ENDS.clone())
        return made


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", list(FORMS))
def test_forms(name: str) -> None:
    model = seeded(FORMS[name])
    first = lambda x: model(x)[:, 0]  # noqa: E731
    for start in ("any", "zeros"):
        assert disagreement(first, BASELINES[start].expand_as(ENDS), 1e-3) is None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_compiled_models_run_as_written_under_chords() -> None:
    """So that their operations are seen, and chords themselves are not compiled."""
    torch._dynamo.reset()
    counted = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        counted.append(graph)
        return graph.forward

    net = seeded(Net)
    field = ig.TorchField(torch.compile(net, backend=backend), 0)
    z = torch.stack([BASELINES["any"], ENDS[0]])
    place = torch.tensor([0, 0])
    found = field.evaluate_chords(z, torch.zeros(2, dtype=torch.long), place)
    expected = ig.TorchField(net, 0).evaluate_chords(z, torch.zeros(2, dtype=torch.long), place)
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=0, atol=1e-14)
    assert field.chordal
    assert not counted
    field.gradient(ENDS)
    assert counted, "it does run compiled elsewhere"
