"""Methods at a layer: only what is behind it runs, the numbers are the definitions', and the model comes back as it was."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import integrand as ig
from integrand.model.recording import forwards
from integrand.model.row_independence import ROWS
from tests.problems import filled, relu_mlp, softplus_cnn, wave

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from captum.attr import LayerConductance, LayerIntegratedGradients

CLASSES = torch.tensor([0, 2, 1, 0, 2])
X = wave(5, 6, phase=0.3)
IMAGES = 0.5 + 0.5 * wave(5, 3, 8, 8)
FINE = ig.rules.GaussLegendre(20)


class Skip(nn.Module):
    """A skip connection around ``inner``; code between the modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.first(x))
        h = 0.7 * h + self.inner(torch.sin(h))
        return self.last(self.act(h))


class Around(nn.Module):
    """The input itself goes around ``first``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(torch.cat([self.first(x), x], 1)))


@contextmanager
def counted(model: nn.Module) -> Iterator[Counter[str]]:
    """Rows that each module's class-level forward really ran on."""
    rows: Counter[str] = Counter()
    names = {module: name for name, module in model.named_modules()}
    classes = {type(module) for module in names}
    own = {cls: cls.forward for cls in classes}

    def counting(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self in names and args:
                rows[names[self]] += len(args[0])
            return forward(self, *args, **kwargs)

        return run

    for cls in classes:
        cls.forward = counting(own[cls])
    try:
        yield rows
    finally:
        for cls in classes:
            cls.forward = own[cls]


def run(model: nn.Module, x: Any, method: Any, **options: Any) -> ig.Attribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        return ig.explain(model, x, **({"target": CLASSES[: len(x)], "method": method} | options))


# --- the definitions, slowly ------------------------------------------------------------------------------------------


def layer_by_hand(
    before: Any, behind: Any, x: Tensor, b: Tensor, target: int, n: int = 400
) -> Tensor:
    """(h(x) − h(b)) ⊙ the mean over n midpoints of ∂F/∂h, F = behind(h, x): what passes the layer by is as for x."""
    start, end = before(b).detach(), before(x).detach()
    total = torch.zeros_like(end)
    for q in range(n):
        h = (start + (q + 0.5) / n * (end - start)).requires_grad_()
        total += torch.autograd.grad(behind(h, x)[:, target].sum(), h)[0] / n
    return (end - start) * total


def conductance_by_hand(
    before: Any, behind: Any, x: Tensor, b: Tensor, target: int, n: int = 3000
) -> Tensor:
    """∫ ∂F/∂h(γ) · dh(γ)/dt dt at n midpoints, the derivative of h by a finite difference of 1e-5."""
    total, eps = 0, 1e-5
    for q in range(n):
        t = (q + 0.5) / n
        z = (b + t * (x - b)).detach()
        h = before(z).detach().requires_grad_()
        (slope,) = torch.autograd.grad(behind(h, z)[:, target].sum(), h)
        total = (
            total
            + slope
            * (before(z + eps * (x - b)) - before(z - eps * (x - b))).detach()
            / (2 * eps)
            / n
        )
    return total


def halves(model: nn.Module, name: str) -> tuple[Any, Any]:
    """What comes before and behind the sites of the models above, written out."""
    if isinstance(model, Skip):
        early = lambda z: torch.tanh(model.first(z))  # noqa: E731
        if name == "first":
            return model.first, lambda h, z: late(
                model, torch.tanh(h), model.inner(torch.sin(torch.tanh(h)))
            )
        return lambda z: model.inner(torch.sin(early(z))), lambda h, z: late(model, early(z), h)
    assert isinstance(model, Around)
    return model.first, lambda h, z: model.last(torch.tanh(torch.cat([h, z], 1)))


def late(model: Skip, skip: Tensor, h: Tensor) -> Tensor:
    return model.last(torch.tanh(0.7 * skip + h))


PLACES = [(Skip, "first"), (Skip, "inner"), (Around, "first")]


@pytest.mark.parametrize(("build", "site"), PLACES)
def test_layer_is_its_definition(build: Any, site: str) -> None:
    model = filled(build())
    before, behind = halves(model, site)
    made = run(model, X, "layer", site=site, baseline=0.25, target=1, rule=FINE)
    by_hand = layer_by_hand(before, behind, X, torch.full_like(X, 0.25), 1)
    torch.testing.assert_close(made.values, by_hand, rtol=0, atol=1e-5)
    torch.testing.assert_close(made.inputs, before(X).detach(), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("build", "site"), PLACES)
def test_conductance_converges_to_its_definition(build: Any, site: str) -> None:
    """At second order where everything passes the layer, at first where something does not."""
    model = filled(build())
    by_hand = conductance_by_hand(*halves(model, site), X, torch.full_like(X, 0.25), 1)
    errors = []
    for steps in (4, 16, 64):
        made = run(model, X, "conductance", site=site, baseline=0.25, steps=steps, target=1)
        errors.append(float((made.values - by_hand).abs().max()))
    rate = 12 if (build, site) == (Skip, "first") else 3
    assert errors[0] > rate * errors[1] > rate**2 * errors[2]


def test_one_step_of_conductance_is_the_layer() -> None:
    layer = run(filled(Skip()), X, "layer", site="inner", rule=FINE)
    one = run(filled(Skip()), X, "conductance", site="inner", steps=1, rule=FINE)
    assert torch.equal(layer.values, one.values)


@pytest.mark.parametrize("site", ["0", "1", "3", "4", "6"])
@pytest.mark.parametrize("method", ["layer", "conductance"])
def test_bottlenecks_are_complete(method: str, site: str) -> None:
    made = run(softplus_cnn(), IMAGES, method, site=site, baseline=0.25, rule=FINE)
    torch.testing.assert_close(made.residual, torch.zeros(5).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        made.values.flatten(1).sum(1), made.output - made.base, rtol=0, atol=1e-10
    )
    model = softplus_cnn()
    picked = lambda z: model(z)[torch.arange(5), CLASSES].detach()  # noqa: E731
    torch.testing.assert_close(
        made.change[0], picked(IMAGES) - picked(torch.full_like(IMAGES, 0.25)), rtol=0, atol=1e-12
    )


def test_at_the_last_layer_and_at_the_input_nothing_is_new() -> None:
    """At the entrance of the first layer the map is that of the inputs."""
    plain = run(softplus_cnn(), IMAGES, "integrated", baseline=0.25, rule=FINE)
    made = run(softplus_cnn(), IMAGES, "layer", site="0", side="input", baseline=0.25, rule=FINE)
    torch.testing.assert_close(made.values, plain.values, rtol=0, atol=1e-13)
    logits = run(softplus_cnn(), IMAGES, "layer", site="6", baseline=0.25)
    others = torch.ones(5, 3, dtype=torch.bool)
    others[torch.arange(5), CLASSES] = False
    assert bool((logits.values[others] == 0).all())


def test_the_input_of_a_layer_is_the_output_of_the_one_before() -> None:
    before = run(relu_mlp(), X, "layer", site="1", rule=FINE)
    behind = run(relu_mlp(), X, "layer", site="2", side="input", rule=FINE)
    torch.testing.assert_close(before.values, behind.values, rtol=0, atol=1e-14)


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
def test_sites_may_be_modules_names_or_sites() -> None:
    model = softplus_cnn()
    by_name = ig.explain(model, IMAGES, target=0, method="layer", site="3")
    for site in (model[3], ig.fields.Site(model[3], "output", "3")):
        made = ig.explain(model, IMAGES, target=0, method="layer", site=site)
        assert torch.equal(made.values, by_name.values)
        assert repr(made.method) == repr(by_name.method) == "Layered('3', Method())"


# --- what runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_only_what_is_behind_the_layer_runs(batch_size: int | None) -> None:
    """Layers before the site run on inputs, references, one row to look and two to check; the ones behind on every node."""
    checked = min(ROWS, batch_size or ROWS)
    model = softplus_cnn()
    with counted(model) as rows:
        made = run(
            model,
            IMAGES,
            "layer",
            site="3",
            baseline=[0.0, 1.0],
            rule=ig.rules.Midpoint(7),
            batch_size=batch_size,
        )
    assert rows["0"] == rows["1"] == rows["2"] == rows["3"] == 5 + 2 * 5 + 1 + checked
    assert made.cost.gradients == 2 * 5 * 7
    assert rows["4"] == rows["6"] == made.cost.gradients + made.cost.values
    assert made.cost.values == 16 + 8 + 15 + checked  # lifted, tried, F at the ends, and the check


def test_corners_are_lifted_once() -> None:
    model = softplus_cnn()
    with counted(model) as rows:
        made = run(
            model,
            IMAGES,
            "conductance",
            site="3",
            baseline=[0.0, 1.0],
            steps=4,
            rule=ig.rules.Midpoint(3),
        )
    assert rows["0"] == 5 + 2 * 5 + 1 + 3 * 2 * 5 + ROWS
    assert made.cost.gradients == 2 * 5 * 4 * 3
    assert rows["4"] == made.cost.gradients + made.cost.values


def test_what_passes_the_layer_by_runs_once_too() -> None:
    model = filled(Skip())
    with counted(model) as rows:
        made = run(model, X, "layer", site="inner", rule=ig.rules.Midpoint(7))
    assert rows["first"] == rows["inner"] == 5 + 5 + 1 + ROWS
    assert rows["last"] == made.cost.gradients + made.cost.values
    # The activation runs before the layer and behind it: once on what is lifted, then behind only.
    assert rows["act"] == rows["last"] + 11 + ROWS


@pytest.mark.parametrize(
    ("method", "options"), [("layer", {"rule": FINE}), ("conductance", {"steps": 5})]
)
def test_the_expected_number_of_gradients_is_told(method: str, options: dict[str, Any]) -> None:
    told: list[int | None] = []
    made = run(
        softplus_cnn(),
        IMAGES,
        method,
        site="1",
        progress=lambda t: told.append(t.expected),
        **options,
    )
    assert set(told) == {made.cost.gradients}


# --- Captum -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "site"),
    [
        (softplus_cnn, "0"),
        (softplus_cnn, "3"),
        (relu_mlp, "1"),
        (Skip, "first"),
        (Skip, "inner"),
        (Around, "first"),
    ],
)
def test_layer_agrees_with_captum(build: Any, site: str) -> None:
    model = filled(build())
    x = IMAGES if build is softplus_cnn else X
    ours = run(model, x, "layer", site=site, baseline=0.25, rule=FINE)
    theirs, delta = LayerIntegratedGradients(model, model.get_submodule(site)).attribute(
        x, 0.25, target=CLASSES, n_steps=20, return_convergence_delta=True
    )
    torch.testing.assert_close(ours.values, theirs, rtol=1e-6, atol=1e-8)
    # Their delta is our residual with the other sign, also for what passes the layer by.
    torch.testing.assert_close(-ours.residual, delta, rtol=0, atol=1e-6)


def test_layer_inputs_agree_with_captum() -> None:
    model = softplus_cnn()
    ours = run(model, IMAGES, "layer", site="4", side="input", rule=FINE)
    theirs = LayerIntegratedGradients(model, model[4]).attribute(
        IMAGES, target=CLASSES, n_steps=20, attribute_to_layer_input=True
    )
    torch.testing.assert_close(ours.values, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("site", ["0", "3", "5"])
def test_conductance_agrees_with_captum_where_its_corners_are_the_ends(site: str) -> None:
    """Their trapezoid has both ends among its corners, and takes each gradient at the corner before: our ``Left``."""
    model = softplus_cnn()
    ours = run(
        model, IMAGES, "conductance", site=site, baseline=0.25, steps=20, rule=ig.rules.Left()
    )
    theirs = LayerConductance(model, model.get_submodule(site)).attribute(
        IMAGES, 0.25, target=CLASSES, n_steps=20, method="riemann_trapezoid"
    )
    torch.testing.assert_close(ours.values, theirs, rtol=1e-6, atol=1e-8)


def test_captums_usual_conductance_misses_the_ends() -> None:
    """With Gauss nodes for corners their path begins behind the baseline and ends before the input: an error of 1/n or so."""
    model = filled(Skip())
    by_hand = conductance_by_hand(*halves(model, "inner"), X, torch.full_like(X, 0.25), 1)
    ours = run(model, X, "conductance", site="inner", baseline=0.25, steps=50, target=1).values
    theirs = LayerConductance(model, model.inner).attribute(X, 0.25, target=1, n_steps=50).detach()
    assert float((ours - by_hand).abs().max()) < 0.5 * float((theirs - by_hand).abs().max())


# --- any method -------------------------------------------------------------------------------------------------------

REFERENCES = 0.5 + 0.5 * wave(3, 3, 8, 8, phase=1)

METHODS: dict[str, Any] = {
    "expected": ig.methods.expected(ig.baselines.Given(REFERENCES), rule=FINE),
    "random": ig.methods.expected(ig.baselines.Given(REFERENCES), draws=9),
    "weighted": ig.methods.weighted(
        ig.baselines.Given(REFERENCES), rule=FINE, fill=0.0, features="elements"
    ),
    "weighted corners": ig.methods.weighted(
        ig.baselines.Given(REFERENCES), ig.paths.Straight(3), FINE, fill=0.0, features="elements"
    ),
    "staged": ig.methods.weighted(
        ig.baselines.Given(REFERENCES), rule=FINE, fill=0.0, keep=0.5, scout=3, features="elements"
    ),
    "sampled": ig.methods.expected(REFERENCES, tol=0.4, draws=100),
    "ig2": ig.methods.ig2(ig.baselines.Given(REFERENCES), "5", 4, 0.05, (-9.0, 9.0), rule=FINE),
    "chords": ig.methods.integrated(0.25, ig.rules.Chords(5)),
    "adaptive": ig.methods.integrated(0.25, ig.rules.Adaptive(0.01)),
    "corners": ig.methods.integrated(0.25, FINE, ig.paths.Straight(3)),
}


@pytest.mark.parametrize("site", ["1", "4"])
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_works_at_a_layer(name: str, site: str) -> None:
    model = softplus_cnn()
    made = run(model, IMAGES, ig.Layered(site, METHODS[name]))
    shape = nn.Sequential(*list(model)[: int(site) + 1])(IMAGES).shape
    assert made.values.shape == made.inputs.shape == shape
    assert made.baselines.shape == (len(made.weights), *shape)
    torch.testing.assert_close(made.weights.sum(0), torch.ones(5).double(), rtol=0, atol=1e-14)
    if name not in ("random", "sampled"):
        torch.testing.assert_close(made.residual, torch.zeros(5).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        made.values.flatten(1).sum(1) + made.residual, made.output - made.base, rtol=0, atol=1e-12
    )
    assert made.method.method == METHODS[name]


@pytest.mark.parametrize("name", list(METHODS))
def test_five_at_once_are_five_alone(name: str) -> None:
    model = softplus_cnn()
    whole = run(model, IMAGES, ig.Layered("1", METHODS[name]))
    for b in range(5):
        alone = run(
            model, IMAGES[b : b + 1], ig.Layered("1", METHODS[name]), target=CLASSES[b : b + 1]
        )
        torch.testing.assert_close(alone.values[0], whole.values[b], rtol=0, atol=1e-10)
        torch.testing.assert_close(alone.weights[:, 0], whole.weights[:, b], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.residual[0], whole.residual[b], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("method", "batch_size"),
    [
        (ig.methods.layer("inner", [0.0, 0.5]), 2),  # calls of one row have no chords
        (ig.methods.layer("inner", [0.0, 0.5]), 7),
        (ig.methods.layer("inner", [0.0, 0.5], FINE), 1),
        (ig.methods.conductance("inner", [0.0, 0.5], 5), 1),
        (ig.methods.conductance("inner", [0.0, 0.5], 5), 7),
    ],
)
def test_rows_keep_their_own_surroundings(method: ig.Layered, batch_size: int) -> None:
    """A skip connection around the layer: one at a time, in calls of any size."""
    model = filled(Skip())
    whole = run(model, X, method, batch_size=batch_size)
    for b in range(5):
        alone = run(model, X[b : b + 1], method, target=CLASSES[b : b + 1])
        torch.testing.assert_close(alone.values[0], whole.values[b], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.change[:, 0], whole.change[:, b], rtol=0, atol=1e-12)


def test_expected_is_the_mean_over_references() -> None:
    model = filled(Skip())
    references = wave(3, 6, phase=1)
    for build in (ig.methods.layer, ig.methods.conductance):
        maps = [run(model, X, build("inner", one, rule=FINE)).values for one in references]
        both = run(model, X, build("inner", list(references), rule=FINE))
        torch.testing.assert_close(both.values, sum(maps) / 3, rtol=0, atol=1e-12)
        assert both.shares is None
        kept = run(model, X, build("inner", list(references), rule=FINE, record=("shares",)))
        torch.testing.assert_close(kept.shares, torch.stack(maps), rtol=0, atol=1e-12)


def test_chords_are_complete_at_a_layer() -> None:
    """A ReLU network: at any number of chords, also where a skip connection passes the layer by."""
    model = relu_mlp()
    made = run(model, X, ig.Layered("0", ig.methods.integrated(0.25, ig.rules.Chords(2))))
    torch.testing.assert_close(made.residual, torch.zeros(5).double(), rtol=0, atol=1e-12)

    class Kinked(Skip):
        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.first(x))
            return self.last(F.relu(h + self.inner(h)))

    kinked = filled(Kinked())
    field = ig.TorchField(kinked, CLASSES).behind("inner")
    lifted = field.lift(torch.cat([X, torch.zeros_like(X)]), torch.arange(5).repeat(2))
    field.hold(lifted[:5])
    made = ig.Method(ig.baselines.Given(lifted.points[5:][None]), rule=ig.rules.Chords(2))(
        field, lifted.points[:5]
    )
    torch.testing.assert_close(made.residual, torch.zeros(5).double(), rtol=0, atol=1e-12)


def test_a_tolerance_at_a_layer() -> None:
    made = ig.explain(
        relu_mlp(), X, target=CLASSES, method="layer", site="0", baseline=0.25, tol=0.01
    )
    exact = run(relu_mlp(), X, "layer", site="0", baseline=0.25, rule=ig.rules.GaussLegendre(2000))
    assert bool(made.converged.all())
    assert float((made.values - exact.values).flatten(1).norm(dim=1).max()) < 0.01 * float(
        exact.values.norm()
    )
    same = run(relu_mlp(), X, ig.methods.layer("0"), baseline=0.25, tol=0.01)
    assert torch.equal(same.values, made.values)


def test_a_path_of_ones_own() -> None:
    @dataclass(frozen=True)
    class Detour:
        def __call__(self, field: Any, start: Tensor, end: Tensor) -> Any:
            yield ig.segments.polyline(
                torch.stack([start, torch.ones_like(start), end.expand_as(start)])
            )

    made = run(relu_mlp(), X, ig.Layered("1", ig.Method(path=Detour(), rule=ig.rules.Chords(3))))
    torch.testing.assert_close(made.residual, torch.zeros(5).double(), rtol=0, atol=1e-12)
    straight = run(relu_mlp(), X, ig.Layered("1", ig.Method(rule=ig.rules.Chords(3))))
    assert float((made.values - straight.values).abs().max()) > 1e-3


def test_a_path_that_chooses_its_own_start() -> None:
    made = run(softplus_cnn(), IMAGES, ig.Layered("1", METHODS["ig2"]))
    plain = run(softplus_cnn(), IMAGES, METHODS["ig2"])
    torch.testing.assert_close(made.change, plain.change, rtol=0, atol=1e-12)
    torch.testing.assert_close(made.notes["distance"], plain.notes["distance"], rtol=0, atol=1e-12)


# --- wrappers inside a layer ------------------------------------------------------------------------------------------


WRAPPED: dict[str, Callable[[Any], Any]] = {
    "smoothed": lambda method: ig.SmoothGrad(method, 4, 0.2),
    "squared": lambda method: ig.SmoothGrad(method, 3, 0.2, reduce="square"),
    "greedy_pig": lambda method: ig.GreedyPIG(method, rounds=4, features="elements"),
    "greedy, smoothed": lambda method: ig.GreedyPIG(
        ig.SmoothGrad(method, 2, 0.1), rounds=3, features="elements"
    ),
}


@pytest.mark.parametrize("name", list(WRAPPED))
def test_wrappers_inside_work_on_the_layers_values(name: str) -> None:
    """Where everything passes through the layer, they are those of the model behind it, explained at h."""
    model = softplus_cnn()
    before, behind = nn.Sequential(*list(model)[:2]), nn.Sequential(*list(model)[2:])
    h, starts = before(IMAGES).detach(), before(REFERENCES).detach()
    at_layer = WRAPPED[name](ig.Method(ig.baselines.Given(REFERENCES), rule=FINE))
    plain = WRAPPED[name](ig.Method(ig.baselines.Given(starts), rule=FINE))
    made = run(model, IMAGES, ig.Layered("1", at_layer))
    alone = run(behind, h, plain)
    for part in ("values", "inputs", "baselines", "output", "change", "weights", "residual"):
        torch.testing.assert_close(getattr(made, part), getattr(alone, part), rtol=0, atol=1e-10)
    assert set(made.notes) == set(alone.notes)
    assert made.method == ig.Layered("1", at_layer)


def test_a_layer_inside_a_wrapper_is_another_thing() -> None:
    """Noise is on the inputs there, and on the layer's values here."""
    method = ig.methods.integrated(0.25, FINE)
    inside = run(softplus_cnn(), IMAGES, ig.Layered("1", ig.SmoothGrad(method, 3)))
    around = run(softplus_cnn(), IMAGES, ig.SmoothGrad(ig.Layered("1", method), 3))
    assert inside.values.shape == around.values.shape
    assert not torch.allclose(inside.values, around.values, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", list(WRAPPED))
def test_five_at_once_are_five_alone_inside_a_wrapper(name: str) -> None:
    model, method = (
        filled(Skip()),
        ig.Layered("inner", WRAPPED[name](ig.methods.integrated(0.25, FINE))),
    )
    whole = run(model, X, method)
    for b in range(5):
        alone = run(model, X[b : b + 1], method, target=CLASSES[b : b + 1])
        torch.testing.assert_close(alone.values[0], whole.values[b], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.change[:, 0], whole.change[:, b], rtol=0, atol=1e-12)


def test_a_wrapper_costs_what_its_runs_behind_the_layer_cost() -> None:
    model, draws = filled(Skip()), 4
    method = ig.Layered(
        "inner", ig.SmoothGrad(ig.methods.integrated(0.25, ig.rules.Midpoint(6)), draws)
    )
    tallies: list[Any] = []
    with counted(model) as rows:
        made = run(
            model,
            X,
            method,
            progress=lambda tally: tallies.append((tally.gradients, tally.expected)),
        )
    assert made.cost.gradients == draws * 6 * 5
    assert tallies[-1] == (draws * 6 * 5, draws * 6 * 5)
    assert (
        rows["first"] == 2 * 5 + 1 + ROWS
    )  # the input, the baseline, a row to learn from, and the check


def test_noise_on_the_embeddings_of_tokens() -> None:
    model, pads = filled(Reader()), torch.full_like(IDS, 10)
    method = ig.Layered("embeddings", ig.SmoothGrad(ig.methods.integrated(pads, FINE), 3))
    made = run(model, IDS, method)
    plain = run(model, IDS, "layer", site="embeddings", baseline=pads, rule=FINE)
    assert made.values.shape == (3, 5, 4)
    assert 1e-3 < float((made.values - plain.values).abs().max()) < 1
    with pytest.raises(
        ig.errors.InputError, match=r"adds noise to its inputs, and integers take none"
    ):
        run(
            model,
            IDS,
            ig.SmoothGrad(ig.Layered("embeddings", ig.methods.integrated(pads, FINE)), 3),
        )


def test_a_wrapper_in_a_layer_for_several_targets() -> None:
    method = ig.Layered("1", ig.SmoothGrad(ig.methods.integrated(0.25, FINE), 3))
    several = ig.explain_targets(softplus_cnn(), IMAGES, targets=[0, CLASSES], method=method)
    torch.testing.assert_close(
        several[1].values, run(softplus_cnn(), IMAGES, method).values, rtol=0, atol=1e-10
    )


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        (
            lambda: ig.XRAI(ig.Method()),
            r"XRAI explains the inputs only; leave it out at a layer",
        ),
        (lambda: ig.GreedyPIG(ig.XRAI(ig.Method())), r"XRAI explains the inputs only"),
        (
            lambda: ig.ArtificialDistancing(ig.Method(), X, (0, 1)),
            r"ArtificialDistancing explains the inputs only",
        ),
        (lambda: ig.methods.layer("0"), r"is of a layer already"),
        (lambda: ig.SmoothGrad(ig.methods.layer("0")), r"is of a layer already"),
        (
            lambda: ig.SmoothGrad(ig.Method(path=ig.paths.Straight(3))),
            r"SmoothGrad goes with straight lines",
        ),
        (
            lambda: ig.SmoothGrad(ig.methods.expected(REFERENCES, tol=0.4)),
            r"UntilTolerance draws other references in every run of SmoothGrad: leave tol out",
        ),
        (lambda: ig.methods.pattern_guided, r"pattern_guided is the function that makes one"),
    ],
)
def test_wrappers_that_are_of_the_inputs_only(inside: Any, message: str) -> None:
    with pytest.raises(ig.errors.InputError, match=message):
        ig.Layered("1", inside())


# --- what passes the layer by -----------------------------------------------------------------------------------------


def test_what_passes_the_layer_by_is_left_in_the_residual() -> None:
    model = filled(Skip())
    with pytest.warns(
        ig.errors.IncompleteWarning,
        match=r"most likely because it passes the layer by: .* at 'inner'",
    ):
        made = ig.explain(model, X, target=CLASSES, method="layer", site="inner", baseline=0.25)
    picked = lambda z: z[torch.arange(5), CLASSES].detach()  # noqa: E731
    before, behind = halves(model, "inner")
    b = torch.full_like(X, 0.25)
    around = picked(behind(before(b), X)) - picked(behind(before(b), b))
    torch.testing.assert_close(made.residual, around, rtol=0, atol=1e-8)
    # The integral itself is accurate, and says so.
    assert bool(made.converged.all())


class Masked(nn.Module):
    """The sign of the input decides, which autograd does not see, and a mask from it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        pre = self.first(x)
        return self.last(torch.tanh(pre) * (x > 0) + pre.detach() ** 2)


def test_values_that_matter_without_a_gradient_are_kept() -> None:
    model = filled(Masked())
    gate, square = (X > 0), lambda z: model.first(z).detach() ** 2
    behind = lambda h, z: model.last(torch.tanh(h) * gate + h.detach() ** 2)  # noqa: E731
    made = run(model, X, "layer", site="first", baseline=0.25, target=1, rule=FINE)
    by_hand = layer_by_hand(model.first, behind, X, torch.full_like(X, 0.25), 1)
    torch.testing.assert_close(made.values, by_hand, rtol=0, atol=1e-5)
    del square


class Awkward(nn.Module):
    """Everything that makes replaying hard: in-place work on skips, shared modules, tuples, folded and shifted rows, odd objects."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pair, self.site, self.last = (
            nn.Linear(6, 6),
            Pair(),
            nn.Linear(6, 6),
            nn.Linear(6, 3),
        )
        self.relu, self.fold, self.turn, self.thing = nn.ReLU(inplace=True), Fold(), Turn(), Thing()
        self.positions = nn.Embedding(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        skip = h
        h = self.relu(h * 1.1)
        left, named = self.pair(h)
        folded = self.fold(h)  # (2N, 3)
        turned = self.turn(h)  # (6, N)
        place = self.positions(torch.arange(2))  # (2, 6), not by row
        thing = self.thing(h)
        s = self.site(self.relu(left + named["right"]))
        skip += 0.1 * s  # in place on what is handed out
        s = (
            self.relu(1.0 * s)
            + skip
            + folded.reshape(-1, 6)
            + turned.T
            + place.sum(0)
            + thing.value
        )
        return self.last(torch.tanh(s))


class Pair(nn.Module):
    def forward(self, h: Tensor) -> Any:
        return torch.sin(h), {"right": torch.cos(h), "rows": None}


class Fold(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return h.reshape(-1, 3) * 0.3


class Turn(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return (0.2 * h).T


class Thing(nn.Module):
    """Returns an object that cannot be taken apart; its inner layer can."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, h: Tensor) -> Any:
        class Value:
            value = self.inner(h) * 0.5

        return Value()


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_awkward_models(batch: int, side: str) -> None:
    model = filled(Awkward())
    ours = run(model, X[:batch], "layer", site="site", side=side, baseline=0.25, rule=FINE)
    theirs = LayerIntegratedGradients(model, model.site).attribute(
        X[:batch],
        0.25,
        target=CLASSES[:batch],
        n_steps=20,
        internal_batch_size=batch,
        attribute_to_layer_input=side == "input",
    )
    torch.testing.assert_close(ours.values, theirs, rtol=1e-6, atol=1e-8)
    with counted(model) as rows:
        made = run(model, X[:batch], "layer", site="site", side=side, rule=ig.rules.Midpoint(7))
    # Two rows more: what is worked on in place is not there any more when it turns out that it is needed.
    assert rows["first"] == rows["thing.inner"] == 2 * batch + 1 + 2 + ROWS
    # What cannot be handed out again is run again.
    assert rows["thing"] == rows["last"] == made.cost.gradients + made.cost.values


# --- tokens -----------------------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """Token ids, embeddings, an attention mask made from the ids, a layer that returns a tuple as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings, self.positions = nn.Embedding(11, 4), nn.Embedding(5, 4)
        self.block, self.last = Block(), nn.Linear(4, 3)

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        mask = (ids != 0) if attention_mask is None else attention_mask.bool()
        h = self.embeddings(ids) + self.positions(torch.arange(ids.shape[1]))
        h = self.block(hidden_states=h, mask=mask)[0]
        return self.last(torch.tanh((h * mask[..., None]).sum(1)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        scores = hidden_states @ hidden_states.transpose(1, 2)
        scores = scores.masked_fill(~mask[:, None], -1e9).softmax(2)
        return hidden_states + torch.tanh(self.mix(scores @ hidden_states)), scores


IDS = torch.tensor([[3, 7, 1, 0, 0], [2, 2, 9, 4, 1], [5, 1, 0, 0, 0]])


def test_token_ids_are_explained_at_their_embedding() -> None:
    model, pads = filled(Reader()), torch.full_like(IDS, 10)
    made = run(model, IDS, "layer", site="embeddings", baseline=pads, rule=FINE)
    theirs = LayerIntegratedGradients(model, model.embeddings).attribute(
        IDS, pads, target=CLASSES[:3], n_steps=20
    )
    assert made.values.shape == (3, 5, 4)
    torch.testing.assert_close(made.values, theirs, rtol=1e-6, atol=1e-8)
    for b in range(3):
        alone = run(
            model,
            IDS[b : b + 1],
            "layer",
            site="embeddings",
            baseline=pads[b : b + 1],
            rule=FINE,
            target=CLASSES[b : b + 1],
        )
        torch.testing.assert_close(alone.values[0], made.values[b], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("site", "side"), [("block", "input"), ("block", "output"), ("block.mix", "output")]
)
def test_token_ids_further_in(site: Any, side: str) -> None:
    """The mask passes the block by; where it is the same for the baseline, nothing is missing."""
    model, words = filled(Reader()), torch.where(IDS == 0, 0, 10)
    if (site, side) == (
        "block",
        "output",
    ):  # it returns its attention scores too, which nobody reads
        site = ig.fields.Site(site, tensor=0)
    made = run(model, IDS, "layer", site=site, side=side, baseline=words, rule=FINE)
    assert made.values.shape == (3, 5, 4)
    if site != "block.mix":
        torch.testing.assert_close(made.residual, torch.zeros(3).double(), rtol=0, atol=1e-5)


def test_several_integer_inputs() -> None:
    model = filled(Reader())
    inputs = {"ids": IDS, "attention_mask": (IDS != 0).long()}
    baseline = {"ids": torch.full_like(IDS, 10), "attention_mask": inputs["attention_mask"]}
    made = run_on_dict(model, inputs, baseline)
    by_extra = run(
        model,
        IDS,
        "layer",
        site="embeddings",
        baseline=baseline["ids"],
        rule=FINE,
        extra={"attention_mask": inputs["attention_mask"]},
    )
    torch.testing.assert_close(made.values, by_extra.values, rtol=0, atol=1e-13)


def run_on_dict(model: nn.Module, inputs: Any, baseline: Any) -> ig.Attribution:
    return ig.explain(
        model,
        inputs,
        target=CLASSES[:3],
        method="layer",
        site="embeddings",
        baseline=baseline,
        rule=FINE,
    )


def test_there_is_nothing_between_integers() -> None:
    with pytest.raises(
        ig.errors.InputError, match=r"between integers there is nothing: use method='layer'"
    ):
        run(filled(Reader()), IDS, "conductance", site="embeddings", baseline=IDS.flip(0))
    with pytest.raises(ig.errors.IntegerInput, match=r"method='layer', site="):
        run(filled(Reader()), IDS, "integrated")


# --- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("through", ["explain", "field"])
def test_types(dtype: torch.dtype, through: str, quiet: None) -> None:
    """The model sees its own type; the map is float32 at least."""
    model = softplus_cnn().to(dtype)
    method = ig.methods.layer("3", rule=ig.rules.GaussLegendre(8))
    x = IMAGES.to(dtype)
    made = (
        run(model, x, method) if through == "explain" else method(ig.TorchField(model, CLASSES), x)
    )
    exact = run(softplus_cnn(), IMAGES, method)
    assert made.values.dtype == torch.promote_types(dtype, torch.float32)
    tolerance = {torch.bfloat16: 0.1, torch.float32: 1e-5, torch.float64: 1e-14}[dtype]
    assert float((made.values - exact.values).abs().max()) <= tolerance * float(
        exact.values.abs().max()
    )


def test_a_layers_result_is_no_image() -> None:
    made = run(
        softplus_cnn(),
        IMAGES,
        "layer",
        site="1",
        baseline="black",
        normalisation=ig.Normalisation.unit(),
    )
    assert made.normalisation is None
    assert made[2].values.shape == (1, 4, 6, 6)


# --- errors -----------------------------------------------------------------------------------------------------------


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.unused, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.Tanh()
        self.mean, self.thing, self.last = Mean(), Thing(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.first(x))
        return self.last(self.act(h + self.mean(h) + self.thing(h).value))


class Mean(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return h.mean()


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("unused", r"Layer 'unused' did not run in the forward pass"),
        (
            ig.fields.Site("act", run=2),
            r"Layer 'act' runs 2 times in one forward pass, so there is no run 2",
        ),
        (
            ig.fields.Site("act", tensor=1),
            r"There is no tensor 1 of the output of layer 'act': it is 1 tensor, counted from 0",
        ),
        ("mean", r"one entry per row \(2\), but the output of layer 'mean' is float64 \(\)"),
        ("thing", r"Layer 'thing' returns a Value, which cannot be handed out again"),
        ("frist", r"no layer named 'frist'. Did you mean 'first'"),
        (nn.Linear(6, 3), r"The given Linear is not a layer of this model"),
    ],
)
def test_layers_that_are_no_place_to_explain_at(site: Any, message: str) -> None:
    model = filled(Odd())
    before = {name: sorted(vars(module)) for name, module in model.named_modules()}
    with pytest.raises(ig.errors.IntegrandError, match=message):
        run(model, X, "layer", site=site)
    assert {name: sorted(vars(module)) for name, module in model.named_modules()} == before


def test_a_layer_that_reads_integers() -> None:
    with pytest.raises(
        ig.errors.ModelError,
        match=r"floating-point numbers .* the input of layer 'embeddings' is int64 2x5",
    ):
        run(filled(Reader()), IDS, "layer", site="embeddings", side="input", baseline=IDS.flip(0))


def test_calls_that_depend_on_the_numbers() -> None:
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.other, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(self.first(x) if len(x) > 1 else self.other(x)))

    with pytest.raises(ig.errors.ModelError, match=r"Which layers run before 'last' depends on"):
        run(filled(Fickle()), X, "layer", site="last")


def test_models_that_do_not_give_the_same_twice() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last, self.calls = nn.Linear(6, 6), nn.Linear(6, 3), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.last(self.first(x)) * self.calls

    with pytest.raises(
        ig.errors.ModelError,
        match=r"gives other numbers when it is continued from the output of layer 'first'",
    ):
        run(filled(Counts()), X, "layer", site="first")


def test_a_score_that_is_all_rounding_is_no_reason_to_refuse() -> None:
    model = relu_mlp().float()
    with torch.no_grad():
        model[4].weight[1], model[4].bias[1] = (
            model[4].weight[0] * (1 + 3e-7),
            model[4].bias[0] + 1e-6,
        )
    made = run(model, X.float(), "layer", site="1", target=ig.targets.Margin(0, 1))
    assert float(made.output.abs().max()) < 1e-4


def test_other_misuse() -> None:
    with pytest.raises(ig.errors.InputError, match=r"Method 'layer' needs site="):
        run(relu_mlp(), X, "layer")
    with pytest.raises(ig.errors.InputError, match=r"side is 'input' or 'output'"):
        ig.methods.layer("0", side="inside")
    with pytest.raises(ig.errors.ModelError, match=r"Linear has no layers"):
        ig.methods.layer("0")(ig.fields.Linear(torch.ones(6).double()), X)
    with pytest.raises(ig.errors.InputError, match=r"A layer takes a Method, .* not str"):
        ig.Layered("0", "weighted")
    staged = ig.methods.weighted([0.0, 1.0], ig.paths.Straight(3), keep=0.5, scout=2)
    with pytest.raises(ig.errors.InputError, match=r"TwoStage goes with straight lines"):
        ig.Layered("0", staged)
    with pytest.raises(ig.errors.UnknownName, match=r"no layer"):
        run(lambda z: z @ wave(6, 3), X, "layer", site="0")
    field = ig.TorchField(relu_mlp(), CLASSES).behind("2")
    with pytest.raises(ig.errors.ModelError, match=r"only after lift"):
        field.value(torch.zeros(5, 8).double())
    field.hold(field.lift(X, torch.arange(5)))
    with pytest.raises(ig.errors.TargetError, match=r"only known for examples"):
        field.outputs(torch.zeros(5, 8).double(), pool=True)
    with pytest.raises(
        ig.errors.ModelError, match=r"layer '1' is not behind the output of layer '2'"
    ):
        field.distance(torch.zeros(5, 8).double(), torch.arange(5), "1")


# --- the model comes back ---------------------------------------------------------------------------------------------


def test_a_forward_of_the_models_own_instance_is_put_back() -> None:
    model = relu_mlp()
    plain = run(model, X, "layer", site="2")
    own = model[0].forward
    patched = lambda z: own(z) * 1.0  # noqa: E731
    model[0].forward = patched
    made = run(model, X, "layer", site="2")
    assert model[0].forward is patched
    assert torch.equal(made.values, plain.values)


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_forwards_are_put_back_after_an_error(error: BaseException) -> None:
    model = relu_mlp()

    def inside() -> None:
        with forwards([(module, lambda *_: None) for module in model]):
            assert model[0](X) is None
            raise error

    with pytest.raises(type(error)):
        inside()
    assert all("forward" not in vars(module) for module in model)


def test_hooks_of_the_user_run_once_for_each_pass() -> None:
    """What is noted is what ``forward`` returned: a hook that changes it is not applied twice."""
    model = relu_mlp()
    for module in (model[0], model[2]):
        module.register_forward_hook(lambda _, __, output: 1.5 * output)
    before = lambda z: model[:2](z) @ model[2].weight.T + model[2].bias  # noqa: E731
    by_hand = layer_by_hand(before, lambda h, z: model[3:](1.5 * h), X, torch.zeros_like(X), 1)
    made = run(model, X, "layer", site="2", target=1, rule=ig.rules.Midpoint(400))
    torch.testing.assert_close(made.values, by_hand, rtol=0, atol=1e-12)


# --- claims -----------------------------------------------------------------------------------------------------------


def test_axioms_that_are_claimed() -> None:
    """Units that F does not look at get nothing; maps of sums are sums; equal units get equal parts of a straight line."""
    model = relu_mlp()
    with torch.no_grad():
        model[2].weight[:, 3] = 0
        model[0].weight[5], model[0].bias[5] = model[0].weight[4], model[0].bias[4]
        model[2].weight[:, 5] = model[2].weight[:, 4]
    for name in ("layer", "conductance"):
        axioms = ig.methods.about(name).axioms
        assert axioms["dummy"]
        assert axioms["linear"]
        made = run(model, X, name, site="0", rule=FINE, target=0)
        other = run(model, X, name, site="0", rule=FINE, target=1)
        both = run(
            model, X, name, site="0", rule=FINE, target=lambda out: 2 * out[:, 0] - out[:, 1]
        )
        assert bool((made.values[:, 3] == 0).all())
        torch.testing.assert_close(both.values, 2 * made.values - other.values, rtol=0, atol=1e-12)
        torch.testing.assert_close(made.values[:, 4], made.values[:, 5], rtol=0, atol=1e-12)
    assert not ig.methods.about("layer").axioms[
        "complete"
    ]  # not where something passes the layer by


def test_repr_and_equality() -> None:
    assert repr(ig.methods.layer("3", 0.5)) == "Layered('3', Method(Constant(0.5)))"
    assert repr(ig.methods.conductance("3", side="input")) == (
        "Layered('3', Method(path=Straight(50), rule=Midpoint()), 'input')"
    )
    assert ig.methods.layer("3") == ig.Layered("3", ig.methods.integrated())
    assert replace(ig.methods.layer("3"), site="4") != ig.methods.layer("3")


@pytest.mark.parametrize("unit", [2, [0, 1, 2]])
def test_a_unit_behind_the_layer_is_explained_there(unit: Any) -> None:
    """Targets that read a layer, of methods at a layer before it: by dense quadrature through both halves."""
    torch.manual_seed(0)
    front = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh())
    middle = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh())
    model = torch.nn.Sequential(*front, *middle, torch.nn.Linear(5, 3)).double().eval()
    x = torch.randn(3, 4, dtype=torch.float64)
    units = torch.tensor(unit).expand(3)
    start, end = front(torch.zeros_like(x)).detach(), front(x).detach()
    times = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    points = (start + times[:, None, None] * (end - start)).requires_grad_()
    scalars = middle(points).gather(2, units[None, :, None].expand(2000, 3, 1))
    (slopes,) = torch.autograd.grad(scalars.sum(), points)
    expected = (end - start) * slopes.mean(0)
    outputs = middle(end).gather(1, units[:, None])[:, 0]

    target = ig.targets.Unit("3", unit)
    rule = ig.rules.GaussLegendre(20)
    at_layer = ig.explain(model, x, target=target, method="layer", site="1", baseline=0.0, rule=rule)  # fmt: skip
    torch.testing.assert_close(at_layer.output, outputs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(at_layer.values, expected, rtol=1e-6, atol=1e-7)
    flow = ig.explain(model, x, target=target, method="conductance", site="1", baseline=0.0)
    torch.testing.assert_close(flow.output, outputs, rtol=1e-12, atol=1e-12)
    change = outputs - middle(start).gather(1, units[:, None])[:, 0]
    torch.testing.assert_close(flow.values.sum(1), change, rtol=0.05, atol=0.02)
    several = ig.explain_targets(
        model, x, targets=[target, 1], method="layer", site="1", baseline=0.0, rule=rule
    )
    torch.testing.assert_close(several[0].values, at_layer.values, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(several[1].output, model(x)[:, 1], rtol=1e-12, atol=1e-12)
