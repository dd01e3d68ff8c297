"""Views of a field: some of its examples, another type, counted. Whatever explains the field explains them, and finds the same."""

from __future__ import annotations

import ast
import contextlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import integrand as ig
from integrand.compare.subset import Portion
from integrand.core.segment import Curvature, Evaluation, Segment
from integrand.fields import (
    BatchSizer,
    Cast,
    CountedField,
    Field,
    MultiTarget,
    Subset,
    View,
    innermost,
)
from integrand.fields.multi_target import SeveralBehind
from integrand.fields.views import LayerView
from integrand.model.flow import LayerFlow
from integrand.model.layout import Layout
from integrand.model.network import Network
from integrand.model.row_independence import Answer, RowCheck
from tests.problems import filled, wave

MIDPOINTS = ig.methods.integrated(rule=ig.rules.Midpoint(4))
CLASSES = torch.tensor([0, 2, 1, 0])
X = wave(4, 4, phase=0.4)
PICTURES = wave(4, 2, 6, 6, phase=0.2)


def picture_model() -> nn.Module:
    return filled(
        nn.Sequential(
            nn.Conv2d(2, 3, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48, 6),
            nn.ReLU(),
            nn.Linear(6, 3),
        )
    )


def halves(picture: Tensor) -> Tensor:
    """An over-segmentation into a left and a right half."""
    return (torch.arange(picture.shape[2]) // 3).expand(1, *picture.shape[1:])


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda inner: inner,
    "backward": lambda inner: ig.Backward(ig.fields.GuidedReLU(), inner),
    "smoothed": lambda inner: ig.SmoothGrad(inner, draws=2),
    "greedy_pig": lambda inner: ig.GreedyPIG(inner, rounds=2),
    "sequential": lambda inner: ig.Sequential(inner, features=3),
    "xrai": lambda inner: ig.XRAI(inner, segments=halves, dilation=0, least=1),
    "artificial_distancing": lambda inner: ig.ArtificialDistancing(
        inner, wave(20, 2, 6, 6, phase=2), (0, 1), torch.arange(20) % 2, epochs=1
    ),
}
"""Every wrapper, around what it is given."""


def only(index: list[int]) -> Callable[[Field], Field]:
    return lambda field: field.at(torch.tensor(index))


VIEWS: dict[str, tuple[list[int], Callable[[Field], Field]]] = {
    "gathered": ([3, 1, 1], only([3, 1, 1])),
    "narrowed": ([0, 1, 2, 3], lambda field: Cast(field, torch.float64)),
    "metered": ([0, 1, 2, 3], CountedField),
    "portion": ([2, 0], lambda field: Portion(field, torch.tensor([2, 0]))),
    "portion of some": (
        [1, 3],
        lambda field: Portion(only([3, 2, 1])(field), torch.tensor([2, 0])),
    ),
    "counted in another type": (
        [2, 3],
        lambda field: CountedField(Cast(only([2, 3])(field), torch.float64)),
    ),
}
"""Every view: the examples of the inner field that it shows, and how it is made."""


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("inner", WRAPPERS)
@pytest.mark.parametrize("outer", WRAPPERS)
def test_every_wrapper_of_every_wrapper_on_every_view(outer: str, inner: str, view: str) -> None:
    """The map of a view is that of a field made of these examples alone."""
    model, (index, make) = picture_model(), VIEWS[view]
    method, x = WRAPPERS[outer](WRAPPERS[inner](MIDPOINTS)), PICTURES[index]
    seen = method(make(ig.TorchField(model, CLASSES)), x)
    alone = method(ig.TorchField(model, CLASSES[index]), x)
    torch.testing.assert_close(seen.values, alone.values, rtol=1e-10, atol=1e-12)
    assert bool((seen.values != 0).any())


# --- every member -----------------------------------------------------------------------------------------------------

SUGAR = {
    "at": "a view of the view",
    "stream": "evaluate",
    "stream_chords": "evaluate_chords",
    "rows": "evaluate",
    "gradient": "evaluate",
    "value": "evaluate",
    "ends": "look and read, or evaluate",
    "together": "evaluate_both",
    "outputs": "look",
    "looked": "look",
    "distance": "site and look",
}
"""Members that a view does not hand on itself, because they are made of members that it does."""

OWN = {
    "memory": "of inputs, not of F",
    "adopts": "of a class of fields, not of one",
    "adopted": "of a class of fields, not of one",
}
"""Members that belong to each view, or to none."""

KEPT: dict[Any, Any] = {}


def public(cls: type) -> set[str]:
    own = {
        name for base in cls.__mro__[:-1] for name in (*vars(base), *inspect.get_annotations(base))
    }
    return {name for name in own if not name.startswith("_")}


def test_the_lists_name_what_there_is() -> None:
    assert set(SUGAR) | set(OWN) <= public(Field)
    assert set(CALLS) | set(KNOWN) == public(Field) - set(SUGAR) - set(OWN)


class Recorder(Field):
    """Answers everything in its own way, and remembers what it was asked."""

    normalisation = ig.Normalisation((0.1,), (0.2,))
    layout = Layout.of(X)
    target = ig.targets.Logit(2)
    network = Network(torch.nn.Linear(4, 3))
    kept = KEPT  # type: ignore[assignment]
    row_check = RowCheck(lambda: "")  # type: ignore[assignment]
    gated, smooth, integers, conservative, reads, pooled = (False, True, True, False, True, True)  # type: ignore[assignment]
    additive = ("a sum",)  # type: ignore[assignment]
    resolution = 0.5  # type: ignore[assignment]
    packer = BatchSizer(3)

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[Any, ...]]] = []

    def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
        self.asked.append(("evaluate", (z, index)))
        return Evaluation(z.sum(1), torch.ones_like(z))


def recorded(name: str) -> Any:
    def method(self: Recorder, *given: Any) -> Any:
        self.asked.append((name, given))
        return ANSWERS.get(name, lambda self, *_: self)(self, *given)

    return method


ANSWERS: dict[str, Callable[..., Any]] = {
    "evaluate_both": lambda self, z, *_: (Evaluation(z.sum(1), z), Evaluation(z.sum(1), z)),
    "evaluate_chords": lambda self, z, *_: Evaluation(z.sum(1), z),
    "share": lambda self, segment: segment.step,
    "points": lambda self, index: index,
    "questions": lambda self, index: index,
    "look": lambda self, z, *_: z,
    "site": lambda self, *_: "a place",
    "read": lambda self, outputs, index: outputs[:, 0],
    "again": lambda self, z, index: Answer(z.sum(1), z),
    "trouble": lambda self, *_: "much",
    "ready": lambda self: contextlib.nullcontext("ready"),
    "plainly": lambda self, z, index: z,
    "decomposed": lambda self, *_: None,
    "line_covariance": lambda self, start, *_: start,
    "curvature": lambda self, z, index, directions: Curvature(z.sum(1), z, directions),
    "kinked_operations": lambda self, z, index: ("relu",),
    "attached": lambda self, z, index: Evaluation(z.sum(1), z),
    "trainable": lambda self: contextlib.nullcontext("trainable"),
    "flow": lambda self, z, index, direction, sites: LayerFlow(z.sum(1), direction, (z,), (z,)),
}
Z, PLACES = wave(3, 4), torch.tensor([1, 0, 1])
SEGMENT = ig.segments.polyline(torch.stack([X[:2], X[1:3]])[:, None])

CALLS: dict[str, tuple[Any, ...]] = {
    "evaluate": (Z, PLACES),
    "share": (SEGMENT,),
    "score": (),
    "points": (PLACES,),
    "questions": (PLACES,),
    "evaluate_both": (Z, PLACES, ig.targets.Logit(0), PLACES),
    "evaluate_chords": (Z, PLACES, torch.arange(3)),
    "look": (Z, PLACES, None),
    "site": ("layer", Z[:1], PLACES[:1]),
    "behind": ("layer", "output"),
    "with_backward": ("rule",),
    "with_target": (ig.targets.Logit(1),),
    "with_targets": ([ig.targets.Logit(1)],),
    "with_model": ("model",),
    "afresh": (),
    "plainly": (Z, PLACES),
    "read": (Z, PLACES),
    "again": (Z, PLACES),
    "trouble": (Z[:1], Z[1:2], PLACES[:1]),
    "ready": (),
    "decomposed": (SEGMENT, PLACES[:2]),
    "line_covariance": (Z[None], Z, torch.ones(1, 3, dtype=torch.float64)),
    "curvature": (Z, PLACES, Z.expand(2, 3, 4)),
    "kinked_operations": (Z, PLACES),
    "attached": (Z, PLACES),
    "trainable": (),
    "with_softplus": (10.0,),
    "flow": (Z, PLACES, Z, ["layer"]),
}
"""How every member that is called is called."""

KNOWN = sorted(public(Field) - set(SUGAR) - set(OWN) - set(CALLS))
"""Members that are looked up."""

for _name in CALLS:
    if _name != "evaluate":
        setattr(Recorder, _name, recorded(_name))

BOTH = {"gathered": torch.tensor([3, 1]), "portion": torch.tensor([2, 0])}

EVERY_VIEW: dict[str, Callable[[Field], Field]] = {
    "view": View,
    "gathered": lambda field: Subset(field, BOTH["gathered"]),
    "narrowed": lambda field: Cast(field, torch.float64),
    "metered": CountedField,
    "portion": lambda field: Portion(field, BOTH["portion"]),
    "layer": lambda field: LayerView(View(field), field),
}


def test_every_view_is_here() -> None:
    def below(cls: type) -> set[type]:
        return {cls}.union(*map(below, cls.__subclasses__()))

    own = {type(make(Recorder())) for make in EVERY_VIEW.values()}
    assert {cls for cls in below(View) if cls.__module__.startswith("integrand.")} == own | {
        MultiTarget,
        SeveralBehind,
    }


@pytest.mark.parametrize("member", CALLS)
@pytest.mark.parametrize("view", EVERY_VIEW)
def test_every_view_hands_on_every_member(view: str, member: str) -> None:
    """The inner field is asked, about its own examples, and its answer comes back, or the same view of it."""
    inner = Recorder()
    made = EVERY_VIEW[view](inner)
    answer = getattr(made, member)(*CALLS[member])
    if member == "share":  # put in the places of the inner field's examples: see below
        assert torch.equal(answer, SEGMENT.step)
        assert [name for name, _ in inner.asked] == ["share"]
        return
    # A meter has more to ask: whether rows depend on one another.
    asked = [given for name, given in inner.asked if name == member]
    assert len(asked) == 1
    for sent, received in zip(CALLS[member], asked[0], strict=False):
        if (
            isinstance(sent, Tensor)
            and not sent.is_floating_point()
            and sent is not CALLS["evaluate_chords"][2]
        ):
            other = (
                member == "evaluate_both" and received is asked[0][3]
            )  # looked up by its own numbers
            expected = BOTH[view][sent] if view in BOTH and not other else sent
            assert torch.equal(received, expected)
        elif isinstance(sent, Tensor):
            assert torch.equal(received, sent)
    if isinstance(answer, Field):
        assert innermost(answer) is inner
        assert isinstance(
            answer, LayerView if member == "behind" else Subset if view == "portion" else type(made)
        )
    else:
        direct = getattr(Recorder(), member)(*asked[0])
        for one, other in zip(
            tree_leaves(vars_of(answer)), tree_leaves(vars_of(direct)), strict=True
        ):
            assert (
                torch.equal(one, other)
                if isinstance(one, Tensor)
                else one == other or member in ("ready", "trainable")
            )


def vars_of(answer: Any) -> Any:
    parts = answer if isinstance(answer, tuple) else (answer,)
    return [
        vars(one) if isinstance(one, Evaluation | Answer | LayerFlow | Curvature) else one
        for one in parts
    ]


@pytest.mark.parametrize("member", KNOWN)
@pytest.mark.parametrize("view", EVERY_VIEW)
def test_every_view_looks_everything_up(view: str, member: str) -> None:
    inner = Recorder()
    made = EVERY_VIEW[view](inner)
    if member == "kept" and view == "metered":
        assert made.kept == {}
        assert made.kept is not KEPT
    elif member == "target":
        assert made.target == inner.target
    elif member == "example_name":
        place = int(BOTH[view][torch.tensor([1])]) if view in BOTH else 1
        assert made.example_name(1) == f"example {place}"
    else:
        assert getattr(made, member) is getattr(inner, member)


@pytest.mark.parametrize("member", SUGAR)
@pytest.mark.parametrize("view", [view for view in EVERY_VIEW if view != "layer"])
def test_what_is_made_of_members_is_made_of_those_of_the_view(view: str, member: str) -> None:
    """For a model: the answers are those of the field of these examples alone."""
    model, which = (
        filled(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))),
        BOTH.get(view, torch.arange(4)),
    )
    made = EVERY_VIEW[view](ig.TorchField(model, CLASSES))
    alone = ig.TorchField(model, CLASSES[which])
    for one, other in zip(
        sweet(made, member, X[which]), sweet(alone, member, X[which]), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def sweet(field: Field, member: str, x: Tensor) -> list[Tensor]:
    index = torch.arange(len(x))
    parts: list[Evaluation] = []
    if member == "at":
        return [field.at(index.flip(0)).value(x.flip(0))]
    if member in ("value", "gradient", "outputs"):
        return [getattr(field, member)(x)]
    if member == "ends":
        return list(field.ends(x, torch.stack([x / 2, -x, x.flip(1)])))
    if member == "looked":
        return [field.looked(x, index, field.site("0", x[:1], index[:1]))]
    if member == "distance":
        return [field.distance(x, index).goal]
    if member == "rows":
        parts = [field.rows(x, index)]
    if member == "together":
        parts = list(field.together(x, index, ig.targets.Logit(0), index))
    if member == "stream":
        field.stream(index, lambda part: x[part], lambda _, found: parts.append(found), x[0])
    if member == "stream_chords":
        before = (index - 1).clamp_min(0)
        field.stream_chords(
            index, before, lambda part: x[part], lambda _, found: parts.append(found), x[0]
        )
    return [number for part in parts for number in (part.value, part.gradient)]


# --- examples of their own --------------------------------------------------------------------------------------------


def test_exact_shares_are_those_of_the_examples_shown() -> None:
    class Own(Field):
        """w_b · z, with weights of each example's own."""

        weight = wave(4, 4, phase=5)

        def evaluate(self, z: Tensor, index: Tensor, *, gradient: bool = True) -> Evaluation:
            return Evaluation(
                (z * self.weight[index]).sum(1), self.weight[index] if gradient else z.new_empty(0)
            )

        def share(self, segment: Segment) -> Tensor:
            return segment.step * self.weight[: segment.leading[2]]

    index = torch.tensor([3, 1, 1, 0])
    made = ig.methods.integrated(rule=ig.rules.Exact())(Own().at(index), X[index])
    torch.testing.assert_close(made.values, X[index] * Own.weight[index])


def test_a_target_of_examples_is_theirs() -> None:
    model = filled(nn.Linear(4, 3))
    some = ig.TorchField(model, CLASSES).at(torch.tensor([2, 1]))
    assert some.target == ig.targets.Logit(torch.tensor([1, 2]))
    other = some.with_target(torch.tensor([0, 1]))
    torch.testing.assert_close(other.value(X[[2, 1]]), model(X[[2, 1]])[[0, 1], [0, 1]].detach())
    assert other.target == ig.targets.Logit(torch.tensor([0, 1]))
    repeated = ig.TorchField(model, CLASSES).at(torch.tensor([2, 2]))
    with pytest.raises(
        ig.errors.TargetError, match="different things of an example that the batch holds twice"
    ):
        repeated.with_target(torch.tensor([0, 1]))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("view", VIEWS)
def test_a_layer_is_explained_through_every_view(view: str) -> None:
    model, (index, make) = picture_model(), VIEWS[view]
    method = ig.methods.layer("1", rule=ig.rules.Midpoint(4))
    seen = method(make(ig.TorchField(model, CLASSES)), PICTURES[index])
    alone = method(ig.TorchField(model, CLASSES[index]), PICTURES[index])
    torch.testing.assert_close(seen.values, alone.values, rtol=1e-10, atol=1e-12)


def test_nothing_outside_asks_what_kind_of_field_it_has() -> None:
    """Capability is a member of Field; ``isinstance`` of one of its kinds is for the folder of fields alone."""
    kinds = {cls.__name__ for cls in subclasses(Field)} - {"Field"}
    source = Path(inspect.getfile(ig)).parent
    found = []
    for path in sorted(source.rglob("*.py")):
        if path.relative_to(source).parts[0] == "fields":
            continue
        text = path.read_text()
        tree = ast.parse(text)
        imported = imported_fields(tree)
        known = {name for name in kinds if name in imported or f"class {name}(" in text}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("isinstance", "type")
            ):
                asked = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} & known
                found += [f"{path.relative_to(source)}:{node.lineno}: {name}" for name in asked]
    assert found == []


def imported_fields(tree: ast.AST) -> set[str]:
    """Names that a file imports from where fields are."""
    return {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module is not None
        and {"fields", "views", "subset", "terms", "base", "analytic"} & set(node.module.split("."))
        for alias in node.names
    }


def subclasses(cls: type) -> set[type]:
    own = {one for one in cls.__subclasses__() if one.__module__.startswith("integrand.")}
    return {cls}.union(*map(subclasses, own))
