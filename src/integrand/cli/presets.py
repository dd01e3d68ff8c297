"""Default settings of methods for a single picture.

A published method leaves open where it starts from. For a photograph there are usual answers, and
these are they:

    one baseline          black
    several baselines     black, white, grey, two uniform noises, for models of photographs also
                          one other photograph, always the same; 50 nodes each
    references of IG2     2 photographs that the model takes for what it ranks 2nd to 4th for this
                          one ("relevant"; else of other classes), 25 steps, Simpson's rule on the
                          two halves of each
    attacks               5 rival classes where there is a choice, Simpson's rule as for IG2

``PresetInputs`` holds what is known (what was asked for, and which other photographs there are);
``method`` turns a name and a setting into a Method. Names without a recipe of their own are set up
by what their first argument is called, so a method that is published tomorrow works today.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..baselines import Baseline, Constant, Given, Relevant, Uniform
from ..baselines.names import baseline_of
from ..errors import InputError, UnknownName
from ..methods import BASELINES, about, known
from ..rules import Adaptive, GaussLegendre, Rule, Simpson
from .supplies import NAMES, Supplies

PHOTO = "photo"
"""The name of the baseline that is one other photograph."""

ONE = ("black",)
SEVERAL = ("black", "white", "grey", "noise", "noise", PHOTO)
NODES = 50
"""Of each of several baselines."""
STEPS, STEP_PIECES, REFERENCES = 25, 2, 2
"""Of IG2: together about 200 gradients, half a minute for EfficientNet-Lite0 on two cores."""
PATCH = 32
"""Pixels along the side of what Sequential takes away at a time: 49 squares of an image of 224, as
often its method's gradients."""
RIVALS = 5
"""Of an attack on each of several classes: about 100 gradients, as it arrives in five or six
steps."""

BRIEF: dict[str, dict[str, Any]] = {
    "expected": {"rule": GaussLegendre(16)},
    "weighted": {"rule": GaussLegendre(16)},
    "ig2": {"steps": 12, "record": ()},
    "adversarial": {"count": 3, "record": ()},
    "boundary": {"steps": 20},
    "guided": {"steps": 100},
    "samp": {"steps": 100},
    "spectral": {"steps": 100},
    "latent_guided": {"steps": 60, "ends": 20},
    "latent": {"steps": 20},
    "manifold": {"points": 12},
    "geodesic": {"neighbours": 3, "nodes": 3},
    "relaxed": {"corners": 7, "iterations": 5},
    "geometric": {"steps": 9, "iterations": 10},
    "greedy_pig": {"rounds": 5, "rule": GaussLegendre(20)},
    "smoothgrad": {"draws": 6, "rule": GaussLegendre(16)},
    "xrai": {"rule": GaussLegendre(50)},
    "sequential": {"features": 56, "rule": GaussLegendre(6)},
    "artificial_distancing": {"distances": (1.0,), "epochs": 4, "rule": GaussLegendre(50)},
}
"""What differs from the usual where all methods explain one picture: each takes about a hundred
gradients, and thirty take minutes."""

PHOTOGRAPHS = (
    "rocket",
    "coffee",
    "chelsea",
    "astronaut",
    "motorcycle_left",
    "camera",
    "horse",
    "coins",
    "moon",
    "page",
    "retina",
)
"""The samples that serve as other photographs, the one for baselines first; they are of eleven
different classes to ImageNet models."""


@dataclass(frozen=True, eq=False)
class PresetInputs:
    """What methods are set up with.

    baselines  names and numbers as they were asked for; empty for each method's usual ones
    photo      one other photograph (C, H, W), where there is one;  ``photo_name``  what it is called
    pool       photographs (N, C, H, W) to choose IG2's references from, and ``others``, how many of
               them the model gives another class than the picture to explain
    nodes      gradients per baseline, pieces of Simpson's rule per step of IG2, steps of other
               paths that go in steps; None for as many as the tolerance takes, or the usual steps
    tol        the relative error that maps are integrated to; None for the usual
    supplies   what methods need that a picture and a model are not, made from other photographs
    brief      unless nodes or a tolerance are asked for, take about a hundred gradients where the
               usual is more (``BRIEF``)
    """

    baselines: tuple[str, ...] = ()
    photo: Tensor | None = None
    photo_name: str = ""
    pool: Tensor | None = None
    others: int = 0
    nodes: int | None = None
    tol: float | None = None
    supplies: Supplies | None = None
    brief: bool = False


def method(name: str, setting: PresetInputs) -> Any:
    """The method called ``name``, set up for a picture.

    Raises:
        UnknownName: for the method or a baseline.
        InputError: when there is nothing to start from.

    Example:
        >>> from integrand.cli import presets
        >>> method = presets.method("integrated", presets.PresetInputs(nodes=8))
        >>> method.baseline.label, method.rule
        ('black', GaussLegendre(8))
    """
    build, accepted = about(name).build, about(name).options
    recipe = _BY_NAME.get(name) or _BY_ARGUMENT.get(_first_argument(name), _no_options)
    options = recipe(setting)
    has_rule = setting.nodes is not None or setting.tol is not None
    if setting.brief and not has_rule:
        options |= BRIEF.get(name, {})
    if "steps" in accepted and "steps" not in options:
        options |= _step_by_step(setting)
    elif has_rule:
        options.setdefault("rule", _rule(setting, Adaptive()))
    for argument in supplied(name):
        if setting.supplies is None:
            raise InputError(
                f"{name} needs {argument}, which is made from other photographs, and there are none: give some with --references."
            )
        options[argument] = setting.supplies.of(argument)
    return build(**{key: value for key, value in options.items() if key in accepted})


def _rule(setting: PresetInputs, usual: Rule) -> Rule:
    """What was asked for: so many nodes, or a tolerance; else the usual."""
    if setting.nodes is not None:
        return GaussLegendre(setting.nodes)
    return usual if setting.tol is None else Adaptive(setting.tol)


def _step_by_step(setting: PresetInputs) -> dict[str, Any]:
    """Of a path that goes in steps of its own: as many as nodes were asked for, or each piece to a
    tolerance; else its usual ones."""
    if setting.nodes is not None:
        return {"steps": setting.nodes}
    return {} if setting.tol is None else {"rule": Adaptive(setting.tol)}


def check(methods: Iterable[str], baselines: Iterable[str]) -> None:
    """Refuse names that are not known, before any work, and methods that need what neither pictures
    nor a model give.

    Raises:
        UnknownName: with the nearest names.
        InputError: for a method that needs what neither gives.
    """
    for method in methods:
        lacking = [name for name in about(method).needs if name not in (*_STARTS, *NAMES)]
        if lacking:
            raise InputError(
                f"{method} needs {', '.join(lacking)}, which pictures and a model do not give: in Python, ig.explain(model, x, target=…, "
                f"method={method!r}, {lacking[0]}=…)."
            )
    for baseline in baselines:
        _baseline(baseline, 0, None)


def every() -> tuple[str, ...]:
    """All published methods that can be set up for a picture."""
    return tuple(
        name
        for name, method in known().items()
        if set(method.needs) <= {*_STARTS, *NAMES} and method.takes == "models"
    )


def wants(name: str, baselines: Sequence[str] = ()) -> str | None:
    """What a method looks for in a setting besides the ``baselines`` asked for: "photo", "pool",
    "supplies", or nothing."""
    if _BY_NAME.get(name) is _ig2:
        return "pool"
    if supplied(name):
        return "supplies"
    usual = _USUAL.get(_first_argument(name), ())
    return PHOTO if PHOTO in (baselines or usual) else None


def supplied(name: str) -> tuple[str, ...]:
    """The arguments of a method that are made from other photographs."""
    return tuple(argument for argument in about(name).needs if argument in NAMES)


def integrates(name: str) -> bool:
    """Whether a method can be told how to integrate, so that a tolerance can be asked of it."""
    return "rule" in about(name).options


def _first_argument(name: str) -> str:
    """What decides where a method starts: its first argument, but for those that are supplied."""
    return next((argument for argument in about(name).options if argument not in NAMES), "")


def _single_baseline(setting: PresetInputs) -> dict[str, Any]:
    starts = baselines(setting.baselines or ONE, setting.photo, setting.photo_name)
    return {"baseline": starts[0] if len(starts) == 1 else starts}


def _several_baselines(setting: PresetInputs) -> dict[str, Any]:
    starts = baselines(setting.baselines or SEVERAL, setting.photo, setting.photo_name)
    # Maps of very different baselines cancel: a tolerance on their sum can cost ten times what a
    # picture on a page is worth.
    return {"baselines": starts, "references": starts, "rule": _rule(setting, GaussLegendre(NODES))}


def _no_options(setting: PresetInputs) -> dict[str, Any]:
    return {}


def _ig2(setting: PresetInputs) -> dict[str, Any]:
    if setting.pool is None or not setting.others:
        raise InputError(
            "ig2 walks towards pictures that the model gives another class, and there are none: give some with --references."
        )
    references = Relevant(setting.pool, min(REFERENCES, setting.others))
    return {
        "references": references,
        "steps": STEPS,
        "rule": _inside_steps(setting),
        "record": ("path",),
    }


def _regions(setting: PresetInputs) -> dict[str, Any]:
    return _single_baseline(setting) if setting.baselines else {}  # else from XRAI's own two


def _sequential(setting: PresetInputs) -> dict[str, Any]:
    return {**_single_baseline(setting), "features": PATCH}


def _attack(setting: PresetInputs) -> dict[str, Any]:
    return {"count": RIVALS, "rule": _inside_steps(setting), "record": ("path",)}


def _inside_steps(setting: PresetInputs) -> Rule:
    """For walks, which have paid for the ends of every step."""
    return Simpson(setting.nodes or STEP_PIECES) if setting.tol is None else Adaptive(setting.tol)


_Recipe = Callable[[PresetInputs], dict[str, Any]]
_BY_NAME: dict[str, _Recipe] = {"ig2": _ig2, "xrai": _regions, "sequential": _sequential}
_BY_ARGUMENT: dict[str, _Recipe] = {
    "baseline": _single_baseline,
    "of": _single_baseline,
    "baselines": _several_baselines,
    "references": _several_baselines,
    "goal": _attack,
}
"""For methods without a recipe of their own: by the name of their first argument."""
_STARTS = ("baseline", "baselines", "references")
_USUAL = {"baseline": ONE, "of": ONE, "baselines": SEVERAL, "references": SEVERAL}


def baselines(
    names: Sequence[str], photo: Tensor | None = None, photo_name: str = ""
) -> list[Baseline]:
    """Baselines by name or number; every further "noise" is another noise, and "photo" is left out
    where there is none.

    Raises:
        UnknownName: with the nearest names.
        InputError: when nothing is left.
    """
    result: list[Baseline] = []
    for place, name in enumerate(names):
        result += _baseline(name, names[:place].count(name), photo, photo_name)
    if not result:
        raise InputError(
            "There is no other photograph to serve as the baseline: give one with --references."
        )
    return result


def _baseline(
    name: str, before: int, photo: Tensor | None, photo_name: str = ""
) -> Iterable[Baseline]:
    if name == PHOTO:
        label = f"{PHOTO} ({photo_name})" if photo_name else PHOTO
        return () if photo is None else (Given(photo[None], label),)
    if name == "noise":
        return (Uniform(seed=before),)
    number = _number(name)
    if number is not None:
        return (Constant(number, name),)
    if name not in BASELINES:
        raise UnknownName("baseline", name, (*BASELINES, PHOTO))
    return (baseline_of(name),)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
