"""Randomisation tests: models given back exactly, the right layers in the right order, known similarities."""

from __future__ import annotations

import copy
import functools
import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.fields.base import outputs_of
from integrand.metrics.robustness.mprt import entropy
from integrand.metrics.robustness.reset_weights import forget, layers_in_order, unlearning
from integrand.metrics.robustness.similarity import map_similarity


class Net(nn.Module):
    """Registered out of order, with a parameter of its own, a batch norm, a tied layer and an old weight norm."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 4)
        self.scale = nn.Parameter(torch.tensor([0.5, 2.0, 1.5]))
        self.first = nn.Linear(3, 12)
        self.norm = nn.BatchNorm1d(12)
        self.middle = nn.utils.parametrizations.weight_norm(nn.Linear(12, 12))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.norm(self.first(x * self.scale)))
        return self.head(torch.tanh(self.middle(h)))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    net = Net().double()
    net(torch.randn(50, 3).double() + 1)  # running statistics that are not those of a new layer
    net.first.weight.requires_grad_(False)
    return net.eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).double()


def state(model: nn.Module) -> list[Any]:
    """Everything there is to restore, with the identity of every tensor."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [(name, id(t), t.detach().clone(), t.requires_grad) for name, t in tensors] + [
        (name, module.training) for name, module in model.named_modules()
    ]


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        all(
            torch.equal(a, b) if isinstance(a, Tensor) else a == b
            for a, b in zip(left, right, strict=True)
        )
        for left, right in zip(one, other, strict=True)
    )


def slope(field: Any, x: Tensor) -> Tensor:
    return field.gradient(x)


ALL = [ig.metrics.mprt, ig.metrics.smooth_mprt, ig.metrics.efficient_mprt]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("metric", ALL)
def test_the_model_is_given_back_as_it_was(
    model: nn.Module, x: Tensor, metric: Any, training: bool, quiet: None
) -> None:
    model.train(training)
    before, random = state(model), torch.get_rng_state()
    options = {"draws": 2} if metric is not ig.metrics.mprt else {}
    metric(
        model,
        x,
        slope(ig.TorchField(copy.deepcopy(model).eval(), 1), x),
        target=1,
        method=slope,
        **options,
    )
    assert same(before, state(model))
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
def test_the_model_is_given_back_after_an_error(model: nn.Module, x: Tensor, order: str) -> None:
    before, calls = state(model), [0]

    def fails(field: Any, x: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return field.gradient(x)

    with pytest.raises(KeyboardInterrupt):
        ig.metrics.mprt(model, x, x, target=1, method=fails, order=order)
    assert same(before, state(model))


def changed(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Layers that are not what they were, by what they hold."""
    names = {
        name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    layers = {name.split(".")[0] if "." in name else "itself" for name in names}
    return layers


def test_layers_go_in_the_order_they_run(model: nn.Module, x: Tensor) -> None:
    field = ig.TorchField(model, 1)
    names = [name for name, _ in layers_in_order(field, x)]
    assert names[0] == ""  # parameters of the whole are there from the start
    assert names[1:3] == ["first", "norm"]
    assert names[-1] == "head"
    assert all("middle" in name for name in names[3:-1])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    down = []
    with unlearning(field, x) as stages:
        for _ in stages:
            down.append(changed(model, before))
    everything = {"itself", "first", "norm", "middle", "head"}
    assert down[0] == {"head"}
    assert down[-1] == everything
    assert all(earlier <= later for earlier, later in itertools.pairwise(down))
    with unlearning(field, x, order="bottom_up") as stages:
        up = [changed(model, before) for _ in stages]
    assert up[0] == {"itself"}
    assert up[1] == {"itself", "first"}
    assert up[-1] == everything
    with unlearning(field, x, order="independent") as stages:
        alone = [changed(model, before) for _ in stages]
    assert all(len(layers) == 1 for layers in alone)
    assert set().union(*alone) == everything
    with unlearning(field, x, stages=2) as stages:
        halves = [names for names, _ in stages]
    assert len(halves) == 2
    assert sorted(sum(halves, ())) == sorted(names)


def test_every_parameter_forgets_and_seeds_decide(model: nn.Module, x: Tensor) -> None:
    field = ig.TorchField(model, 1)
    learnt = {name: p.detach().clone() for name, p in model.named_parameters()}

    def randomised(seed: int) -> dict[str, Tensor]:
        with unlearning(field, x, stages=1, seed=seed) as stages:
            next(stages)
            return {name: p.detach().clone() for name, p in model.named_parameters()}

    first, again, other = randomised(0), randomised(0), randomised(1)
    for name, parameter in first.items():
        assert torch.equal(parameter, again[name]), name
        if name in ("norm.weight", "norm.bias"):
            continue  # a batch norm that never trained starts as it is
        assert not torch.equal(parameter, learnt[name]), name
        assert not torch.equal(parameter, other[name]), name
    bound = 12**-0.5
    assert (
        float(first["head.weight"].abs().max()) <= bound
    )  # drawn by the layer itself, as before training


def test_layers_that_cannot_start_anew_are_drawn_like_themselves() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(3 + 2 * torch.randn(2000))
            self.inner = nn.Linear(2, 2)

        def reset_parameters(self) -> None:
            self.inner.reset_parameters()

    torch.manual_seed(0)
    layer = Own()
    table, inner = layer.table.detach().clone(), layer.inner.weight.detach().clone()
    forget(layer, ig.core.random.generator(1))
    assert torch.equal(layer.inner.weight, inner)  # a layer of its own
    assert not torch.equal(layer.table, table)
    assert abs(float(layer.table.detach().mean()) - 3) < 0.3
    assert abs(float(layer.table.detach().std()) - 2) < 0.2


def test_the_curve_is_the_similarity_at_every_stage(model: nn.Module, x: Tensor) -> None:
    """Restated with a copy of the model, made random layer by layer as Quantus does."""
    plain = nn.Sequential(
        nn.Linear(3, 9), nn.Tanh(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 4)
    ).double()
    own = slope(ig.TorchField(plain, 1), x)
    with ig.metrics.Subject.of(plain, x, 1) as subject:
        maps = ig.metrics.Maps.of(
            {"a": own, "b": x * own},
            subject.x,
            subject.layout,
            (slope, lambda f, z: z * slope(f, z)),
        )
        measured = ig.metrics.MPRT(seed=5).measure(subject, maps)
    other = copy.deepcopy(plain)
    modules = dict(other.named_modules())
    from scipy import stats

    for stage, (name, number) in enumerate((("4", 5), ("2", 3), ("0", 1))):
        forget(modules[name], ig.core.random.generator(5, number))
        random = slope(ig.TorchField(other, 1), x)
        for b in range(5):
            for m, (a, c) in enumerate(((own, random), (x * own, x * random))):
                assert float(measured[m, b, stage]) == pytest.approx(
                    stats.spearmanr(a[b], c[b])[0], abs=1e-12
                )
    torch.testing.assert_close(ig.metrics.MPRT().values(measured), measured.mean(-1))


def test_nothing_is_remembered_of_the_true_model(model: nn.Module, x: Tensor) -> None:
    """With target="predicted" the model's outputs are known already: the random one's are others, and so is all else that is known."""
    seen: list[tuple[Any, Tensor]] = []

    def noted(field: Any, x: Tensor) -> Tensor:
        seen.append((field, outputs_of(field, x).clone()))
        return field.gradient(x)

    with ig.metrics.Subject.of(model, x, "predicted") as subject:
        own = noted(subject.field, subject.x)
        ig.metrics.MPRT()(subject, ig.metrics.Maps.of(own, subject.x, subject.layout, (noted,)))
    assert len({id(field) for field, _ in seen}) == len(
        seen
    )  # what a part keeps of a field does not outlast it
    for (_, one), (_, other) in itertools.combinations(seen, 2):
        assert not torch.equal(one, other)


def test_a_batch_equals_its_examples(model: nn.Module, x: Tensor) -> None:
    for metric in (*ALL, ig.metrics.random_logit):
        options = {"bins": 3} if metric is ig.metrics.efficient_mprt else {}
        if metric is ig.metrics.smooth_mprt:
            options = {"draws": 3}
        own = slope(ig.TorchField(model, 1), x)
        whole = metric(model, x, own, target=1, method=slope, **options)
        for b in range(5):
            alone = metric(model, x[b : b + 1], own[b : b + 1], target=1, method=slope, **options)
            torch.testing.assert_close(whole[b : b + 1], alone)


def test_gradients_forget_and_edges_do_not() -> None:
    """A fully random copy: gradients are unlike (about 0), an edge map stays itself; the entropy of gradients does not fall."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 144, 5)
    )
    x = torch.randn(12, 1, 12, 12, generator=torch.Generator().manual_seed(3))
    edges = lambda field, z: z - z.roll(1, -1)  # noqa: E731
    own = slope(ig.TorchField(net, 2), x)
    ask = functools.partial(
        ig.metrics.mprt, net, x, [own, edges(None, x)], target=2, method=[slope, edges], stages=1
    )
    found = torch.stack([ask(seed=seed) for seed in range(8)])
    assert abs(float(found[:, 0].mean())) < 0.08
    assert (
        float(found[:, 0].mean(1).abs().max()) < 0.3
    )  # one random model for all examples: they err together
    torch.testing.assert_close(found[:, 1], torch.ones(8, 12))
    random = ig.metrics.efficient_mprt(
        net, x, [own, edges(None, x)], target=2, method=[slope, edges]
    )
    assert bool((random[1] == 0).all())
    spiky = own * (
        own.abs() > own.abs().flatten(1).quantile(0.95, 1)[:, None, None, None]
    )  # as a trained model's would be
    assert bool((ig.metrics.efficient_mprt(net, x, spiky, target=2, method=slope) > 0).all())


def test_smooth_maps_are_averaged_over_the_same_noise(model: nn.Module, x: Tensor) -> None:
    by = ig.metrics.SmoothMPRT(draws=3, noise=0.2, seed=2, stages=1)
    own = slope(ig.TorchField(model, 1), x)
    found = ig.metrics.judge(model, x, own, by, target=1, method=slope)
    deviation = 0.2 * (x.amax(1) - x.amin(1))[:, None]
    noise = [
        torch.randn(1, 3, generator=ig.core.random.generator(2, d), dtype=torch.float64)
        for d in range(3)
    ]
    mean = lambda field: sum(field.gradient(x + deviation * e) for e in noise) / 3  # noqa: E731
    before = mean(ig.TorchField(model, 1))
    with unlearning(ig.TorchField(model, 1), x, stages=1, seed=2) as stages:
        after = mean(next(stages)[1])
    torch.testing.assert_close(found, map_similarity(before[None], after[None], "spearman")[0])


def test_entropy_is_that_of_the_histogram() -> None:
    import numpy as np
    from scipy import stats

    rows = torch.randn(4, 300, generator=torch.Generator().manual_seed(0)).double()
    found = entropy(rows, torch.ones(300, dtype=torch.bool), 20)
    for row, value in zip(rows, found, strict=True):
        assert float(value) == pytest.approx(
            stats.entropy(np.histogram(row.numpy(), 20)[0]), abs=1e-12
        )
    assert float(entropy(torch.full((1, 5), 2.0).double(), torch.ones(5, dtype=torch.bool), 4)) == 0


def test_similarities() -> None:
    random = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 1, 3, 2, 9, 9, generator=random).double()
    for similarity in ("spearman", "pearson", "ssim"):
        torch.testing.assert_close(
            map_similarity(one, 3 * one, similarity), torch.ones(1, 3).double()
        )
        torch.testing.assert_close(
            map_similarity(one, -one, similarity, absolute=True), torch.ones(1, 3).double()
        )
        assert bool(
            (
                map_similarity(one, -one, similarity) < (0.95 if similarity == "ssim" else -0.999)
            ).all()
        )
        assert bool((map_similarity(one, other, similarity).abs() < 0.5).all())
        assert bool(map_similarity(one, 0 * one + 1, similarity).isnan().all())
    from skimage.metrics import structural_similarity

    a, b = (maps[0, 1].sum(0) / maps[0, 1].sum(0).abs().max() for maps in (one, other))
    expected = structural_similarity(a.numpy(), b.numpy(), data_range=2.0)
    assert float(map_similarity(one, other, "ssim")[0, 1]) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ig.errors.ShapeError, match="windows of 7"):
        map_similarity(one[..., :5, :5], one[..., :5, :5], "ssim")
    with pytest.raises(ig.errors.ShapeError, match="maps of images"):
        map_similarity(one[..., 0], one[..., 0], "ssim")


# --- random logit -------------------------------------------------------------------------------------------------------


def test_random_logit_is_the_likeness_of_another_classs_map() -> None:
    weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).double()
    model = nn.Linear(8, 5, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(weight)
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(1)).double()
    target, other = torch.tensor([0, 1, 2, 3, 4, -1]), torch.tensor([1, 4, 0, 2, 3, 2])
    found = ig.metrics.random_logit(
        model, x, weight[target], target=target, method=slope, other=other, similarity="pearson"
    )
    expected = [
        float(torch.corrcoef(torch.stack([weight[a], weight[b]]))[0, 1])
        for a, b in zip(target, other, strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    ask = functools.partial(
        ig.metrics.random_logit, model, x, weight[target], target=target, method=slope
    )
    drawn = torch.stack([ask(seed=seed) for seed in range(20)])
    assert float(drawn.max()) < 0.999  # never the class itself
    assert (
        len(drawn.mean(1).unique()) == 4
    )  # four other classes, the same number further on for everybody
    predicted = ig.explain(model, x, target="predicted")
    assert bool((ig.metrics.random_logit(model, x, predicted, target="predicted") < 0.99).all())


def test_random_logit_needs_another_class(x: Tensor) -> None:
    model = nn.Linear(3, 4).double()
    own = x.clone()
    ask = functools.partial(ig.metrics.random_logit, model, x, own, method=slope)
    with pytest.raises(ig.errors.InputError, match="class that was explained"):
        ask(target=1, other=-3)
    with pytest.raises(ig.errors.InputError, match="3 classes for 5 examples"):
        ask(target=1, other=torch.tensor([0, 2, 3]))
    with pytest.raises(ig.errors.TargetError, match="asks about another class"):
        ask(target=lambda outputs: outputs.sum(1))
    with pytest.raises(ig.errors.TargetError, match="no other class"):
        ig.metrics.random_logit(nn.Linear(3, 1).double(), x, own, method=slope, target=0)


# --- what is undefined, and what is refused -----------------------------------------------------------------------------


def test_constant_maps_are_like_nothing(model: nn.Module, x: Tensor) -> None:
    flat = lambda field, z: torch.full_like(z, 0.1)  # noqa: E731
    for metric in (ig.metrics.mprt, ig.metrics.efficient_mprt, ig.metrics.random_logit):
        assert bool(metric(model, x, flat(None, x), target=1, method=flat).isnan().all())


def test_fields_without_a_module_are_told_what_to_do(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(ig.errors.ModelError, match=r"give the nn\.Module itself"):
        ig.metrics.mprt(lambda z: model(z), x, x, target=1, method=slope)
    with pytest.raises(ig.errors.ModelError, match=r"a Linear does not show them"):
        ig.metrics.mprt(ig.fields.Linear(torch.ones(3).double()), x, x, method=slope)
    with pytest.raises(ig.errors.ModelError, match="no parameters"):
        ig.metrics.mprt(nn.Identity(), x, x, target=1, method=slope)
    for bad, message in (
        ({"order": "sideways"}, "order="),
        ({"stages": 0}, "one stage"),
        ({"similarity": "hog"}, "hog"),
    ):
        with pytest.raises(ig.errors.InputError, match=message):
            ig.metrics.mprt(model, x, x, target=1, method=slope, **bad)
    with pytest.raises(ig.errors.InputError, match="give method="):
        ig.metrics.mprt(model, x, x, target=1)


def test_methods_and_partials_of_a_module_are_made_random_too(model: nn.Module, x: Tensor) -> None:
    own = slope(ig.TorchField(model, 1), x)
    direct = ig.metrics.mprt(model, x, own, target=1, method=slope)
    bound = ig.metrics.mprt(functools.partial(model.forward), x, own, target=1, method=slope)
    torch.testing.assert_close(direct, bound)


def test_a_faster_copy_forgets_with_its_model(x: Tensor) -> None:
    torch.manual_seed(0)
    net = (
        nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4))
        .double()
        .eval()
    )
    own = slope(ig.TorchField(net, 1), x)
    plain = ig.metrics.mprt(net, x, own, target=1, method=slope)
    fast = ig.metrics.mprt(net, x, own, target=1, method=slope, optimize=True)
    torch.testing.assert_close(plain, fast)
    with ig.metrics.Subject.of(net, x, 1, optimize=True) as subject:  # one subject, several metrics
        maps = ig.metrics.Maps.of(own, subject.x, subject.layout, (slope,))
        before = ig.metrics.SensitivityN()(subject, maps)
        ig.metrics.MPRT()(subject, maps)
        torch.testing.assert_close(ig.metrics.SensitivityN()(subject, maps), before)
        torch.testing.assert_close(slope(subject.field, x), own)


class Recurrent(nn.Module):
    """A recurrent layer keeps its weights in a list of its own, attention resets what is inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(3, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.recurrent(x)
        return self.head(self.attention(h, h, h, need_weights=False)[0].mean(1))


def test_models_of_other_kinds_forget_and_remember() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(4, 5, 3).double()
    plain = (
        nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Flatten(), nn.Linear(30, 4)).double().eval()
    )
    old = copy.deepcopy(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(old[0])
        scripted = torch.jit.script(plain)
    for net in (Recurrent().double().eval(), old, scripted):
        before = {name: t.clone() for name, t in net.state_dict().items()}
        own = slope(ig.TorchField(net, 1), tokens)
        with unlearning(ig.TorchField(net, 1), tokens, stages=1) as stages:
            _, fresh = next(stages)
            random = slope(fresh, tokens)
            same = [name for name, t in net.state_dict().items() if torch.equal(t, before[name])]
        assert same in ([], ["attention.in_proj_bias"])  # which is zero before training too
        assert float(map_similarity(own[None], random[None], "pearson").abs().max()) < 0.95
        assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
        torch.testing.assert_close(slope(ig.TorchField(net, 1), tokens), own)
