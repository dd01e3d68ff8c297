"""Options of the wrong type: every number that a part or a published method takes is refused by its name, and never raises raw."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import integrand as ig
from integrand.core.options import numeric, option, real, whole
from integrand.core.values import part
from integrand.errors import InputError, IntegrandError
from integrand.methods.registry import known
from tests.problems import tanh_mlp, wave

WRAPPERS = (
    ig.ArtificialDistancing,
    ig.GreedyPIG,
    ig.XRAI,
    ig.UntilTolerance,
    ig.Sequential,
    ig.SmoothGrad,
)

NEEDED: dict[str, Any] = {
    "edges": torch.tensor([[0], [1]]),
    "node": 0,
    "baseline": 0.0,
    "baselines": wave(2, 4),
    "references": wave(2, 4),
    "data": wave(8, 4),
    "classes": (0, 1),
    "points": wave(8, 4),
    "pool": wave(8, 4),
    "table": wave(6, 2),
    "neighbours": 2,
    "codec": (torch.nn.Identity(), torch.nn.Identity()),
    "patterns": None,
    "site": "0",
    "fill": ig.baselines.Constant(0.0),
    "fills": [ig.baselines.Constant(0.0)],
    "path": ig.paths.Guided(40),
    "method": ig.methods.integrated(),
    "content": wave(4),
    "parts": (ig.baselines.Constant(0.0),),
    "positions": (0,),
    "clock": (0.0, 0.5, 1.0),
}
"""What has no default, by the name of its parameter."""


def exported() -> Iterator[type]:
    for space in (
        ig.weightings,
        ig.paths,
        ig.rules,
        ig.baselines,
    ):  # of two that share a name the later is looked at
        for thing in vars(space).values():
            if (
                isinstance(thing, type)
                and dataclasses.is_dataclass(thing)
                and "__post_init__" in dir(thing)
            ):
                yield thing
    yield from WRAPPERS


BUILDS: dict[str, Callable[..., Any]] = {name: one.build for name, one in known().items()}
BUILDS |= {one.__name__: one for one in exported()}


def numbers() -> list[Any]:
    """Every (who, parameter) that takes a whole or a real number, but no tuple of them."""
    return [
        pytest.param(who, name, id=f"{who}-{name}")
        for who, build in BUILDS.items()
        for name, kinds in numeric(inspect.unwrap(build)).items()
        if int in kinds or float in kinds
    ]


def built(who: str, **options: Any) -> Any:
    parameters = inspect.signature(BUILDS[who]).parameters.values()
    needed = {
        one.name: NEEDED[one.name]
        for one in parameters
        if one.default is one.empty and one.name in NEEDED
    }
    return BUILDS[who](**{**needed, **options})


def test_there_are_many() -> None:
    """Annotations are read: nobody's counts and rates are passed over."""
    assert len(numbers()) >= 110
    for who, build in BUILDS.items():
        for name, parameter in inspect.signature(build).parameters.items():
            if str(parameter.annotation) in ("int", "float", "int | None", "float | None"):
                assert name in numeric(inspect.unwrap(build)), (who, name)


@pytest.mark.parametrize(("who", "name"), numbers())
def test_wrong_types_are_refused_by_name(who: str, name: str) -> None:
    kinds = numeric(inspect.unwrap(BUILDS[who]))[name]
    wrong: list[Any] = [[], [1, 2], (), {}, object(), True, 1j, b"3", math.nan]
    wrong += ["3"] if str not in kinds else []
    wrong += [None] if type(None) not in kinds else []
    wrong += (
        [2.5, np.float32(2.5), torch.tensor(2.5)]
        if float not in kinds and torch.Tensor not in kinds
        else []
    )
    wrong += [torch.zeros(3)] if torch.Tensor not in kinds else []
    for value in wrong:
        with pytest.raises(
            InputError, match="NaN" if name == "content" and value is math.nan else name
        ):
            built(who, **{name: value})


@pytest.mark.parametrize(("who", "name"), numbers())
def test_numbers_of_other_libraries_are_python_numbers(who: str, name: str) -> None:
    default = inspect.signature(BUILDS[who]).parameters[name].default
    if who == "pattern_guided" or type(default) not in (int, float):
        pytest.skip("no number by default")
    others = [np.asarray(default)[()]]
    if torch.Tensor not in numeric(inspect.unwrap(BUILDS[who]))[name]:
        others.append(
            torch.tensor(default, dtype=torch.float64 if isinstance(default, float) else None)
        )
    for other in others:
        assert repr(built(who, **{name: other})) == repr(built(who))


@pytest.mark.parametrize(
    ("who", "options", "message"),
    [
        ("guided", {"steps": 2.5}, "steps is a whole number, not 2.5"),
        ("Adaptive", {"tol": "0.1"}, "tol is a number, not '0.1'"),
        ("Adaptive", {"max_gradients": math.nan}, "max_gradients is a whole number, not nan"),
        ("ig2", {"rate": "3"}, "rate is a number, Relative or None, not '3'"),
        ("ig2", {"rate": -1.0}, "rate .* above 0, not -1.0"),
        ("mfaba", {"rate": -0.1}, "rate .* above 0, not -0.1"),
        ("weighted", {"ratio": None}, "ratio is a number, not None"),
        ("weighted", {"ratio": math.nan}, "ratio is between 0 and 1, not nan"),
        ("weighted", {"keep": "a"}, "keep is a number, not 'a'"),
        ("weighted", {"scout": 2.5, "keep": 0.5}, "scout is .*a whole number.* not 2.5"),
        ("expected", {"draws": 2.5}, "draws is a whole number or None, not 2.5"),
        ("blur", {"axes": (1, 2.5)}, r"axes is a tuple of whole numbers or None, not \(1, 2.5\)"),
        ("ig2", {"clip": (0.0, 1.0, 2.0)}, "clip is a tuple of 2 numbers or None"),
        ("ig2", {"clip": (0.0, "1")}, "clip is a tuple of 2 numbers or None"),
        ("xrai", {"scales": 3.0}, "scales is a tuple of numbers, not 3.0"),
        ("Sample", {"count": 2.5}, "count is a whole number or None, not 2.5"),
        ("Uniform", {"low": math.inf}, "low is a finite number, not inf"),
        ("MonteCarlo", {"seed": "a"}, "seed is a whole number, not 'a'"),
        ("smoothgrad", {"sigma": "wide"}, "sigma is a number or a tensor, not 'wide'"),
    ],
)
def test_what_is_said(who: str, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(who, **options)


@pytest.mark.parametrize("wrong", [2.5, "3", math.nan, True, [], 0, -1])
@pytest.mark.parametrize("option", ["batch_size", "seed", "tol", "progress"])
def test_options_of_explain(option: str, wrong: Any) -> None:
    model, x = tanh_mlp(), wave(2, 6)
    taken = {"seed": (0, -1), "tol": (2.5,), "progress": (True,)}.get(option, ())
    if any(wrong is one or (wrong == one and type(wrong) is type(one)) for one in taken):
        return
    with pytest.raises(InputError, match=option):
        ig.explain(model, x, target=0, **{option: wrong})
    with pytest.raises(InputError, match=option):
        ig.explain(model, x, target=0, method=ig.methods.integrated(), **{option: wrong})


def test_options_of_explain_of_other_libraries() -> None:
    model, x = tanh_mlp(), wave(2, 6)

    def run(**options):
        return ig.explain(model, x, target=0, method="smoothgrad", draws=3, **options).values

    other = run(batch_size=np.int64(4), seed=torch.tensor(3), tol=np.float64(0.1))
    assert torch.equal(other, run(batch_size=4, seed=3, tol=0.1))


@part
class Counted:
    count: int
    rate: float | None = None
    ends: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise InputError(f"A count is 0 at least, not {self.count}.")


@part
class Deeper(Counted):
    label: str = ""
    depth: int | torch.Tensor = 1


def test_a_part_of_ones_own() -> None:
    """Types before the part's own checks, which see numbers; NaN after them; inherited fields too."""
    assert repr(Deeper(np.int64(3), ends=(np.float64(1), 2))) == "Deeper(3, ends=(1.0, 2))"
    assert Deeper(1, depth=torch.ones(())).depth.shape == ()
    assert Counted(1, ends=(-math.inf, math.inf)).ends[1] == math.inf
    for options, message in (
        ({"count": "3"}, "count is a whole number, not '3'"),
        ({"count": -1}, "A count is 0 at least"),
        ({"count": 1, "rate": math.inf}, "rate is a finite number, not inf"),
        ({"count": 1, "ends": (0, math.nan)}, "ends holds numbers, and NaN is none"),
        ({"count": 1, "ends": (0,)}, "ends is a tuple of 2 numbers"),
        ({"count": 1, "depth": 2.5}, "depth is a whole number or a tensor, not 2.5"),
    ):
        with pytest.raises(IntegrandError, match=message):
            Deeper(**options)


def test_single_options() -> None:
    assert whole("n", np.int32(4), least=4) == 4
    assert real("t", 1) == 1
    assert option("t", None, (float, type(None))) is None
    with pytest.raises(InputError, match="n is 4 at least, not 3"):
        whole("n", 3, least=4)
    with pytest.raises(InputError, match="t is a finite number, not nan"):
        real("t", math.nan)
    with pytest.raises(InputError, match="t is a number, not a list"):
        real("t", [1] * 100)
