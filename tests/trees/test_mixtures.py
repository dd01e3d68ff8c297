"""Sums, compositions and trees on an embedding, against slopes as steep as the quadrature can follow, and by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn import ensemble as sk
from torch import Tensor, nn

import integrand as ig
from integrand.fields import Compose, EmbeddedTrees, Sum, TreeField
from tests.trees.test_shares import both, explained, field_of, stump

X = torch.from_numpy(np.random.default_rng(0).normal(size=(300, 3)))
Y = (X[:, 0] * X[:, 1] + X[:, 2]).numpy()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1)).double()


def net_field() -> ig.fields.Field:
    return ig.TorchField(network(), lambda out: out[:, 0])


def mollified(
    function: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, nodes: int = 400_001
) -> Tensor:
    """∫ of a smooth function's gradient by the midpoint rule on a fine grid: plain autograd."""
    t = (torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes
    points = (start + t[:, None] * (end - start)).requires_grad_()
    (slope,) = torch.autograd.grad(function(points).sum(), points)
    return (end - start) * slope.mean(0)


def steep(z: Tensor, beta: float = 4000.0) -> Tensor:
    return torch.sigmoid(beta * z)


def test_a_sum_is_the_sum_of_its_parts() -> None:
    forest = sk.RandomForestRegressor(20, random_state=0).fit(X.numpy(), Y)
    net, trees = net_field(), TreeField(forest)
    rule = ig.rules.GaussLegendre(64)
    mixed = ig.methods.generalized(0.1, rule)(Sum([net, trees], [0.7, -2.0]), X[:10])
    smooth = ig.methods.integrated(0.1, rule)(net, X[:10]).values
    jumps = ig.methods.generalized(0.1)(trees, X[:10]).values
    torch.testing.assert_close(mixed.values, 0.7 * smooth - 2 * jumps, rtol=0, atol=1e-12)
    assert float(mixed.residual.abs().max()) < 1e-9
    default = ig.methods.generalized(0.1)(Sum([net, trees], [0.7, -2.0]), X[:10])
    assert bool((default.error < 1e-3).all())
    assert bool((default.error > 0).all())
    assert default.cost.gradients > 0
    off = (default.values - mixed.values).norm(dim=1) / mixed.values.norm(dim=1)
    assert bool((off < 1e-3).all())


def test_a_network_and_trees_under_a_link() -> None:
    """σ(c(x) + 2 [x1 > .2] + [x2 > .4] [x3 > .1]), its steps made steep slopes, by plain autograd."""
    trees = field_of([stump(0, 0.2, 0.0, 2.0), both((1, 0.4), (2, 0.1), 1.0)], features=3)
    net = network()
    field = Compose(
        lambda v: (v[:, 0] + v[:, 1]).sigmoid(), ig.TorchField(net, lambda out: out[:, 0]), trees
    )
    x, start = torch.tensor([1.0, 0.9, 0.7]).double(), torch.tensor([-0.5, 0.0, -0.3]).double()

    def smooth(z: Tensor) -> Tensor:
        step = 2 * steep(z[:, 0] - 0.2) + steep(z[:, 1] - 0.4) * steep(z[:, 2] - 0.1)
        return (net(z)[:, 0] + step).sigmoid()

    attribution = ig.methods.generalized(start, ig.rules.GaussLegendre(20))(field, x[None])
    torch.testing.assert_close(
        attribution.values[0], mollified(smooth, start, x), rtol=0, atol=2e-3
    )
    assert float(attribution.residual.abs().max()) < 1e-10
    default = ig.methods.generalized(start)(field, x[None])
    torch.testing.assert_close(default.values, attribution.values, rtol=0, atol=1e-3)


def test_a_tie_between_two_ensembles_under_a_product() -> None:
    """F = T1(x1) T2(x2), both at 0.5: the jump is shared, 1/2 each."""
    first, second = field_of([stump(0, 0.5, 0, 1.0)]), field_of([stump(1, 0.5, 0, 1.0)])
    field = Compose(lambda v: v.prod(1), first, second)
    assert explained(field, [[1.0, 1.0]]).values.tolist() == [[0.5, 0.5]]
    assert field.exact
    assert explained(field, [[1.0, 0.8]]).values.tolist() == [[0.0, 1.0]]


def test_a_stacker_of_two_forests_is_complete() -> None:
    first = sk.RandomForestRegressor(10, random_state=0).fit(X.numpy(), Y)
    second = sk.GradientBoostingRegressor(n_estimators=20, random_state=0).fit(X.numpy(), Y)
    field = Compose(
        lambda v: (1.5 * v[:, 0] - 0.4 * v[:, 1]).tanh(), TreeField(first), TreeField(second)
    )
    attribution = explained(field, X[:20], X[20:40])
    expected = np.tanh(1.5 * first.predict(X[:20]) - 0.4 * second.predict(X[:20]))
    np.testing.assert_allclose(attribution.output.numpy(), expected, atol=1e-12)
    assert float(attribution.residual.abs().max()) < 1e-10
    assert float(attribution.error.max()) == 0


def test_composition_of_smooth_fields_is_the_function() -> None:
    net = network()
    field = Compose(
        lambda v: v[:, 0] * v[:, 1],
        ig.TorchField(net, lambda out: out[:, 0]),
        ig.fields.Linear(torch.tensor([1.0, 2.0, 3.0]).double()),
    )
    weight = torch.tensor([1.0, 2.0, 3.0]).double()
    whole = ig.fields.Function(lambda z: net(z)[:, 0] * (z @ weight))
    rule = ig.rules.GaussLegendre(12)
    attribution = ig.methods.generalized(0.0, rule)(field, X[:5])
    expected = ig.methods.integrated(0.0, rule)(whole, X[:5])
    torch.testing.assert_close(attribution.values, expected.values, rtol=0, atol=1e-12)
    ig.testing.check_field(field, X[:5])


def test_an_oblique_crossing() -> None:
    """[x0² + x1 > 0.7] from (0.1, 0) to (1, 0.8): shares (0.5525, 0.4475), worked out from the root."""
    step, start = (
        torch.tensor([0.9, 0.8], dtype=torch.float64),
        torch.tensor([0.1, 0.0], dtype=torch.float64),
    )
    a, b, c = step[0] ** 2, 2 * start[0] * step[0] + step[1], start[0] ** 2 - 0.7
    root = (-b + (b * b - 4 * a * c).sqrt()) / (2 * a)
    parts = step * torch.stack([2 * (start[0] + root * step[0]), torch.ones(()).double()])
    field = EmbeddedTrees(
        field_of([stump(0, 0.7, 0.0, 1.0)], features=1), lambda z: z[:, :1] ** 2 + z[:, 1:]
    )
    attribution = explained(field, (start + step)[None], start)
    torch.testing.assert_close(attribution.values[0], parts / parts.sum(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(attribution.values[0].numpy(), [0.5525, 0.4475], atol=5e-5)

    def smooth(z: Tensor) -> Tensor:
        return steep(z[:, 0] ** 2 + z[:, 1] - 0.7)

    limit = mollified(smooth, start, start + step)
    torch.testing.assert_close(attribution.values[0], limit, rtol=0, atol=1e-3)


def test_two_surfaces_at_one_time() -> None:
    """T = [z1 > 1] [z2 > 1] with z = (x1 + x2, 2 x2): on the diagonal both are crossed at 1/2, and share by halves."""
    field = EmbeddedTrees(
        field_of([both((0, 1.0), (1, 1.0), 8.0)]),
        lambda z: torch.stack([z[:, 0] + z[:, 1], 2 * z[:, 1]], 1),
    )
    attribution = explained(field, [[1.0, 1.0]])
    torch.testing.assert_close(
        attribution.values, torch.tensor([[2.0, 6.0]]).double(), rtol=0, atol=1e-12
    )


def test_trees_on_a_linear_embedding_of_one_feature_each_are_the_trees() -> None:
    """u = (2 z1, −z2, z3): the same as trees on the features themselves, forwards and backwards."""
    scale = torch.tensor([2.0, -1.0, 1.0]).double()
    forest = sk.RandomForestRegressor(8, max_depth=4, random_state=0)
    forest.fit((X * scale).numpy(), Y)
    trees = TreeField(forest)
    attribution = explained(EmbeddedTrees(trees, lambda z: z * scale), X[:6], X[6:12])
    expected = explained(trees, X[:6] * scale, X[6:12] * scale)
    torch.testing.assert_close(attribution.values, expected.values, rtol=0, atol=1e-9)


def test_trees_on_the_embedding_of_a_network() -> None:
    torch.manual_seed(1)
    embedding = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).double()
    with torch.no_grad():
        places = embedding(X).numpy()
    trees = TreeField(sk.GradientBoostingRegressor(n_estimators=10, random_state=0).fit(places, Y))
    field = EmbeddedTrees(trees, embedding)
    attribution = explained(field, X[:8])
    assert float(attribution.residual.abs().max()) < 1e-10
    ig.testing.check_field(field, X[:4], differentiable=False)
    stacked = Compose(
        lambda v: v.sum(1).tanh(),
        field,
        TreeField(sk.RandomForestRegressor(3, random_state=0).fit(X, Y)),
    )
    assert float(explained(stacked, X[:8]).residual.abs().max()) < 1e-10


def test_what_mixtures_refuse() -> None:
    trees, net = field_of([stump(0, 0.2, 0.0, 2.0)], features=3), net_field()
    with pytest.raises(ig.errors.InputError, match="at least one field"):
        Sum([])
    with pytest.raises(ig.errors.InputError, match="made of fields, not of Sequential"):
        Compose(torch.sum, network())  # type: ignore[arg-type]
    with pytest.raises(ig.errors.InputError, match="a weight for each"):
        Sum([trees, net], [1.0])
    with pytest.raises(ig.errors.InputError, match="a mixture of both"):
        Compose(torch.sum, Sum([trees, net]))
    with pytest.raises(ig.errors.NoGradient, match="generalized"):
        ig.methods.idgi()(Sum([trees, net]), X[:3])
    with pytest.raises(ig.errors.InputError, match="one number per row"):
        Compose(lambda v: v, trees).value(X[:3])


def test_examples_may_be_repeated_and_turned_round() -> None:
    """A view of some examples, in another order: the numbers of each are its own."""
    trees = TreeField(sk.RandomForestRegressor(5, random_state=0).fit(X.numpy(), Y))
    net = network()
    target = torch.tensor([0, 1, 2, 0])
    heads = nn.Sequential(nn.Linear(3, 3), nn.Tanh()).double()
    field = Compose(lambda v: v.prod(1), ig.TorchField(heads, target), trees)
    method = ig.methods.generalized(0.0, ig.rules.GaussLegendre(8))
    whole = method(field, X[:4]).values
    index = torch.tensor([3, 1, 1, 0])
    some = method(field.at(index), X[:4][index]).values
    torch.testing.assert_close(some, whole[index], rtol=0, atol=1e-12)
    total = Sum([ig.TorchField(heads, target), trees, ig.TorchField(net, 0)])
    expected = method(total, X[:4]).values[index]
    torch.testing.assert_close(
        method(total.at(index), X[:4][index]).values, expected, rtol=0, atol=1e-12
    )


def test_smooth_functions_cost_what_their_rule_costs() -> None:
    """A network has no jumps: Generalized IG of it is Integrated Gradients, at its price."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
    rows, rule = torch.randn(5, 3), ig.rules.GaussLegendre(7)
    plain = ig.explain(network, rows, target=1, rule=rule)
    general = ig.explain(network, rows, target=1, method="generalized", smooth=rule)
    torch.testing.assert_close(general.values, plain.values)
    assert general.cost.gradients == plain.cost.gradients == 5 * 7


# --- methods by default -----------------------------------------------------------------------------------------------


def test_every_rule_of_nodes_takes_the_jumps_exactly(quiet: None) -> None:
    """Of trees nothing is left to nodes; of a sum with a network, what the rule makes of that."""
    boosted = sk.GradientBoostingRegressor(n_estimators=10, random_state=0).fit(X.numpy(), Y)
    net, trees = net_field(), TreeField(boosted)
    mixed = Sum([net, trees], [0.7, -2.0])
    jumps = ig.methods.generalized(0.1)(trees, X[:5])
    rules = (
        ig.rules.Left(3),
        ig.rules.GaussLegendre(4),
        ig.rules.Simpson(2),
        ig.rules.ClenshawCurtis(4),
        ig.rules.Chords(6),
        ig.rules.MonteCarlo(4),
        ig.rules.Adaptive(0.01),
    )
    for rule in rules:
        flat = ig.methods.integrated(0.1, rule)(trees, X[:5])
        torch.testing.assert_close(flat.values, jumps.values, rtol=0, atol=1e-14)
        assert float(flat.error.max()) < 1e-12, rule
        assert flat.cost.gradients == 0
        smooth = ig.methods.integrated(0.1, rule)(net, X[:5])
        both_parts = ig.methods.integrated(0.1, rule)(mixed, X[:5])
        torch.testing.assert_close(
            both_parts.values, 0.7 * smooth.values - 2 * jumps.values, rtol=0, atol=1e-12
        )


def test_expected_weighted_and_until_tolerance_on_trees_by_default(quiet: None) -> None:
    boosted = sk.GradientBoostingClassifier(n_estimators=10, random_state=0).fit(
        X.numpy(), (Y > 0).astype(int)
    )
    references, x = X[50:60], X[:6]
    single = [
        ig.explain(boosted, x, target=1, method="generalized", baseline=r).values
        for r in references
    ]
    each = torch.stack(single)
    usual = ig.explain(boosted, x, target=1, method="expected", baseline=references)
    torch.testing.assert_close(usual.values, each.mean(0), rtol=0, atol=1e-13)
    assert float(usual.error.max()) < 1e-12
    assert bool(usual.converged.all())
    # Of more references than draws, what is left to chance is which of them.
    drawn = ig.explain(boosted, x, target=1, method="expected", baseline=X[50:250], draws=60)
    full = ig.explain(boosted, x, target=1, method="expected", baseline=X[50:250])
    off = (drawn.values - full.values).norm(dim=1) / full.values.norm(dim=1)
    assert bool((drawn.error > 0).all())
    assert bool((off < drawn.error).all())
    reached = ig.explain(
        boosted, x, target=1, method="expected", baseline=X[50:250], tol=0.2, draws=4000
    )
    assert bool((reached.error <= 0.2).all())
    weighted = ig.explain(boosted, x, target=1, method="weighted", baseline=references)
    summed = torch.einsum("rb,rbi->bi", weighted.weights, each)
    torch.testing.assert_close(weighted.values, summed, rtol=0, atol=1e-13)
    assert weighted.cost.gradients == usual.cost.gradients == drawn.cost.gradients == 0


def test_wrappers_and_comparisons_of_trees(quiet: None) -> None:
    boosted = sk.GradientBoostingClassifier(n_estimators=5, random_state=0).fit(
        X.numpy(), (Y > 0).astype(int)
    )
    compared = ig.compare(
        boosted,
        X[:4],
        target=1,
        methods=["generalized", "integrated", "expected", "weighted", "baseline_shapley"],
        metrics=[ig.metrics.Deletion(fill=0.0)],
        references=X[50:56],
        controls=["random"],
    )
    first, second = compared.scores.values[:2]
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(compared.scores.values).all()
