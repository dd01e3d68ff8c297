"""Modules behind plain functions: found by reading the function, without running anything of the user's."""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.model.discovery import modules_behind
from tests.problems import filled, relu_mlp, wave

X = wave(4, 6, phase=0.3)
MODEL = filled(
    nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
)
OTHER = nn.Linear(6, 3).double()
REGISTRY = {"models": [MODEL]}


def by_global(z: Tensor) -> Tensor:
    return MODEL(z)


def by_global_function(z: Tensor) -> Tensor:
    return by_global(z)


def by_default(z: Tensor, model: Any = MODEL) -> Tensor:
    return model(z)


def by_keyword_default(z: Tensor, *, model: Any = MODEL) -> Tensor:
    return model(z)


def by_registry(z: Tensor) -> Tensor:
    return REGISTRY["models"][0](z)


def with_a_loop(z: Tensor) -> Tensor:
    return torch.cat([MODEL(row) for row in z.split(1)])


class Service:
    """Holds models in several ways, one that its ``predict`` does not name among them."""

    fixed = MODEL

    def __init__(self) -> None:
        self.net, self.unused = MODEL, OTHER
        self.inner = types.SimpleNamespace(nets=[MODEL])

    def __call__(self, z: Tensor) -> Tensor:
        return self.net(z)

    def predict(self, z: Tensor) -> Tensor:
        return self._run(z)

    def _run(self, z: Tensor) -> Tensor:
        return self.net(z)

    def nested(self, z: Tensor) -> Tensor:
        return self.inner.nets[0](z)

    @property
    def model(self) -> nn.Module:
        return self.net

    @cached_property
    def cached(self) -> nn.Module:
        return self.net

    def by_property(self, z: Tensor) -> Tensor:
        return self.model(z)

    def by_cached_property(self, z: Tensor) -> Tensor:
        return self.cached(z)

    @classmethod
    def of_the_class(cls, z: Tensor) -> Tensor:
        return cls.fixed(z)

    @staticmethod
    def static(z: Tensor) -> Tensor:
        return MODEL(z)


class Slotted:
    __slots__ = ("net",)

    def __init__(self) -> None:
        self.net = MODEL

    def run(self, z: Tensor) -> Tensor:
        return self.net(z)


def logged(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Tensor:
        return function(*args, **kwargs)

    return run


def called(f: Callable[..., Tensor], z: Tensor) -> Tensor:
    return f(z)


def functions() -> dict[str, Callable[[Tensor], Tensor]]:
    model, service, slotted = MODEL, Service(), Slotted()
    namespace = types.ModuleType("namespace")
    namespace.net = MODEL  # type: ignore[attr-defined]
    return {
        "closure": lambda z: model(z),
        "part of a closure": lambda z: model[4](model[:4](z)),
        "method of a closure": lambda z: model.forward(z),
        "closure of a closure": (lambda f: lambda z: f(z))(lambda z: model(z)),
        "global": by_global,
        "global function": by_global_function,
        "default": by_default,
        "keyword default": by_keyword_default,
        "registry": by_registry,
        "comprehension": with_a_loop,
        "partial function": functools.partial(called, model),
        "partial keyword": functools.partial(by_default, model=model),
        "callable object": service,
        "bound method": service.predict,
        "method of a closure's object": lambda z: service.predict(z),
        "attribute of an attribute": lambda z: service.inner.nets[0](z),
        "nested": service.nested,
        "property": service.by_property,
        "cached property": service.by_cached_property,
        "class method": Service.of_the_class,
        "static method": service.static,
        "slot": slotted.run,
        "python module": lambda z: namespace.net(z),
        "wrapped": logged(by_global),
        "no_grad decorator": torch.enable_grad()(lambda z: model(z)),
        "vmap": torch.func.vmap(lambda z: model(z[None])[0]),
        "functional call": lambda z: torch.func.functional_call(
            model, dict(model.named_parameters()), (z,)
        ),
    }


@pytest.mark.parametrize("kind", list(functions()))
def test_kinds_of_functions(kind: str) -> None:
    function = functions()[kind]
    assert modules_behind(function) == [MODEL]


@pytest.mark.parametrize("kind", list(functions()))
def test_they_are_explained_in_eval_mode_and_given_back(kind: str) -> None:
    """Every kind of function, its module in training mode: the map is that of eval mode, the flags come back."""
    function = functions()[kind]
    rule = ig.rules.GaussLegendre(6)
    expected = ig.explain(MODEL, X, target=1, rule=rule).values
    seen: list[tuple[bool, bool]] = []
    hook = MODEL[0].register_forward_pre_hook(
        lambda module, _: seen.append((module.training, module.weight.requires_grad))
    )
    MODEL.train()
    try:
        made = ig.explain(function, X, target=1, rule=rule)
    finally:
        hook.remove()
        training = [module.training for module in MODEL.modules()]
        MODEL.eval()
    assert set(seen) == {(False, False)}
    assert all(training)
    assert all(parameter.requires_grad for parameter in MODEL.parameters())
    torch.testing.assert_close(made.values, expected, rtol=0, atol=1e-12)


def test_what_a_function_does_not_name_is_left_alone() -> None:
    service = Service()
    assert modules_behind(service.predict) == [MODEL]
    assert modules_behind(lambda z: z.square()) == []
    assert modules_behind(torch.tanh) == []
    assert modules_behind(lambda z: torch.nn.functional.relu(z)) == []
    assert set(modules_behind(lambda z: MODEL(z) + OTHER(z))) == {MODEL, OTHER}
    head = MODEL[4]
    assert modules_behind(lambda z: head(MODEL[:4](z))) == [
        MODEL
    ]  # a layer of it is no other module


def test_nothing_of_the_users_is_run() -> None:
    class Trap:
        def __init__(self) -> None:
            self.__dict__["net"] = MODEL

        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

        def __eq__(self, other: object) -> bool:
            raise AssertionError

        def __hash__(self) -> int:
            raise AssertionError

        def __len__(self) -> int:
            raise AssertionError

        def __iter__(self) -> Any:
            raise AssertionError

        @property
        def model(self) -> Any:
            raise AssertionError

    trap = object.__new__(Trap)
    assert modules_behind(lambda z: trap.net(trap.model(z))) in ([], [MODEL])

    class Strange(dict):  # type: ignore[type-arg]
        def values(self) -> Any:
            raise AssertionError

        def __getitem__(self, key: Any) -> Any:
            raise AssertionError

    strange = Strange(net=MODEL)
    assert modules_behind(lambda z: strange["net"](z)) == [MODEL]


def test_circles_and_large_things_come_to_an_end() -> None:
    circle: list[Any] = [MODEL]
    circle.append(circle)
    many = [types.SimpleNamespace(net=number) for number in range(100_000)]
    assert modules_behind(lambda z: circle[0](z)) == [MODEL]
    assert modules_behind(lambda z: many[0].net * z) == []

    def forever(z: Tensor) -> Tensor:
        return forever(z) + MODEL(z)

    assert modules_behind(forever) == [MODEL]


# --- training mode ----------------------------------------------------------------------------------------------------


def test_a_training_module_inside_a_function_is_seen() -> None:
    model = filled(
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    ).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with pytest.warns(
        ig.errors.TrainingModeWarning,
        match=r"has BatchNorm1d, Dropout; it is explained in eval mode",
    ):
        made = ig.explain(lambda z: model(z), X, target=1)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert torch.equal(made.values, ig.explain(model.eval(), X, target=1).values)


def test_a_representation_that_is_a_function_is_called_in_eval_mode() -> None:
    model = relu_mlp()
    seen = filled(nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5)))
    run = lambda: ig.explain(  # noqa: E731
        model,
        X,
        target=0,
        method="ig2",
        baseline=wave(2, 6, phase=1),
        steps=3,
        representation=lambda z: seen(z),
    )
    expected = (seen.eval(), run())[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.TrainingModeWarning)
        made = (seen.train(), run())[1]
    assert torch.equal(made.values, expected.values)
    assert seen.training


# --- layers -----------------------------------------------------------------------------------------------------------

IG2: dict[str, Any] = {"method": "ig2", "baseline": wave(3, 6, phase=1), "steps": 6, "rate": 0.05}
LAYER: dict[str, Any] = {"method": "layer", "baseline": 0.25, "rule": ig.rules.GaussLegendre(20)}
FLOW: dict[str, Any] = {"method": "conductance", "baseline": 0.25, "steps": 5}


def explained(model: Any, **options: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
        values: Tensor = ig.explain(model, X, target=1, **options).values
    return values


@pytest.mark.parametrize(
    "kind", [kind for kind in functions() if kind not in ("vmap", "comprehension")]
)
def test_a_module_as_representation_of_a_function_is_a_layer(kind: str) -> None:
    function = functions()[kind]
    expected = explained(MODEL, representation=MODEL[2], **IG2)
    torch.testing.assert_close(
        explained(function, representation=MODEL[2], **IG2), expected, rtol=0, atol=1e-13
    )
    as_a_function = explained(MODEL, representation=lambda z: MODEL[:3](z), **IG2)
    torch.testing.assert_close(as_a_function, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(
        explained(function, representation="2", **IG2), expected, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize(
    "kind", [kind for kind in functions() if kind not in ("vmap", "comprehension")]
)
@pytest.mark.parametrize("options", [LAYER, FLOW], ids=["layer", "conductance"])
def test_layers_of_functions(options: dict[str, Any], kind: str) -> None:
    function = functions()[kind]
    expected = explained(MODEL, site="2", **options)
    for site in ("2", MODEL[2], ig.fields.Site(MODEL[2])):
        torch.testing.assert_close(
            explained(function, site=site, **options), expected, rtol=0, atol=1e-13
        )


HIDDEN = {"MODEL": MODEL}


def hidden(z: Tensor) -> Tensor:
    """Found by nobody who only reads: the name is put together when it runs."""
    return (
        HIDDEN["mo".upper() + "DEL"](z)
        if len(z) < 0
        else vars(_Vault)["_".join(["the", "model"])](z)
    )


class _Vault:
    the_model = MODEL


def test_a_module_that_is_found_nowhere_but_runs_is_a_layer() -> None:
    HIDDEN.clear()
    assert modules_behind(hidden) == []
    expected = explained(MODEL, representation=MODEL[2], **IG2)
    torch.testing.assert_close(
        explained(hidden, representation=MODEL[2], **IG2), expected, rtol=0, atol=1e-13
    )
    torch.testing.assert_close(
        explained(hidden, site=MODEL[2], **LAYER),
        explained(MODEL, site="2", **LAYER),
        rtol=0,
        atol=1e-13,
    )
    MODEL[2].train()
    explained(hidden, site=MODEL[2], **LAYER)
    assert MODEL[2].training
    assert "forward" not in vars(MODEL[2])
    MODEL.eval()


def test_a_module_that_does_not_run_is_a_function_of_the_input() -> None:
    other = filled(nn.Linear(6, 4))
    made = explained(lambda z: MODEL(z), representation=other, **IG2)
    by_function = explained(MODEL, representation=lambda z: z @ other.weight.T + other.bias, **IG2)
    torch.testing.assert_close(made, by_function, rtol=0, atol=1e-13)
    with pytest.raises(
        ig.errors.ModelError,
        match=r"The given Linear is not a layer of this model, and it did not run",
    ):
        explained(lambda z: MODEL(z), site=other, **LAYER)


def test_names_that_several_modules_have() -> None:
    other = filled(nn.Sequential(nn.Linear(6, 3)))
    both = lambda z: MODEL(z) + other(z)  # noqa: E731
    with pytest.raises(
        ig.errors.ModelError,
        match=r"Several of the modules that this function runs have a layer '0'",
    ):
        explained(both, site="0", **LAYER)
    named = explained(both, site="2", **LAYER)
    torch.testing.assert_close(named, explained(both, site=MODEL[2], **LAYER), rtol=0, atol=0)
    first = explained(both, site=[MODEL[0], other[0]], **LAYER)
    assert [tuple(value.shape) for value in first] == [(4, 8), (4, 3)]


def test_a_layer_with_extra_arguments_and_code_of_the_functions_own() -> None:
    """Captum's usual form: a function around the model, its softmax and its mask."""
    model = filled(nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3)))
    ids, mask = (
        torch.tensor([[1, 2, 3], [4, 5, 0]]),
        torch.tensor([[1.0, 1, 1], [1, 1, 0]]).double(),
    )

    def predict(ids: Tensor, mask: Tensor) -> Tensor:
        return (torch.tanh(model(ids)) * mask[..., None]).sum(1).softmax(1)

    made = ig.explain(
        predict,
        ids,
        target=1,
        extra=(mask,),
        method="layer",
        site=model[0],
        layer_baseline=0.0,
        rule=LAYER["rule"],
    )
    h = model[0](ids).detach()
    total = torch.zeros_like(h)
    for q in range(400):
        p = ((q + 0.5) / 400 * h).requires_grad_()
        out = (torch.tanh(model[1](p)) * mask[..., None]).sum(1).softmax(1)
        total += torch.autograd.grad(out[:, 1].sum(), p)[0] / 400
    torch.testing.assert_close(made.values, h * total, rtol=0, atol=1e-6)
