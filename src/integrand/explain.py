"""The front door: one call from a model and its inputs to an attribution.

inputs ── layout ──▶ x (B, *s) ─┐
model, target ─────▶ field ─────┼── method(field, x) ──▶ Attribution, arranged as the inputs were
name or Method ────▶ method ────┘
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from .baselines import as_baseline
from .core.normalisation import Normalisation
from .core.random import reseeded
from .errors import InputError, UnknownName
from .fields import Field
from .fields.views import CallCount
from .integration import Method
from .integration.attribution import Attribution, Explainer, ExplainerLike, as_explainer, mapped
from .methods import BASELINES, about
from .methods.baseline_names import for_inputs
from .methods.hints import about_option
from .model.layout import Layout
from .rules import Adaptive
from .task import Task

Progress = bool | Callable[[CallCount], None]


def explain(
    model: Callable[..., Any] | Field,
    inputs: Any,
    *,
    target: Any = None,
    method: str | ExplainerLike = "integrated",
    baseline: Any = None,
    tol: float | None = None,
    seed: int | None = None,
    progress: Progress = False,
    extra: Sequence[Any] | Mapping[str, Any] = (),
    normalisation: Normalisation | None = None,
    batch_size: int | None = None,
    optimize: bool = False,
    **options: Any,
) -> Attribution:
    """Explain what a model says of some inputs: A(x) = Σ_r w_r ∫ ∇F(γ_r) ⊙ dγ_r, and how far that
    adds up.

    model          an nn.Module or any function torch can differentiate; it is given back as it was,
                   whatever happens. A Field (of ``ig.fields``, or your own) goes in its place: it
                   has its target, extra and batch_size already
    inputs         a tensor or array (B, \\*s), or a tuple or dict of them (each is attributed); of
                   layers also integers, such as ids, which reach the model exactly, up to 2^53
    target         which scalar: an int, a tensor of ints (one per example), a position in a longer
                   output or a list of positions (one per example), "predicted" (of a model with one
                   number per row, that number), an ``ig.targets`` value, or a callable outputs →
                   (N,)
    method         a published name (``integrand methods`` lists them), or a ``Method``; ``options``
                   go to the published name
    baseline       what the method starts from, as its first argument (``references`` for expected
                   and ig2). A list is several; for several inputs a tuple or dict is one for each:
                   tensors, numbers, names, baselines, or None for zero
    tol            relative L2 error of the map to reach, 0.05 for most methods unless given; the
                   result's ``error`` says what was reached. For "expected" it is a 95 % bound over
                   random draws, and one standard error is well below it
    seed           mixed into every random part; without it their own seeds hold. Nothing global is
                   touched
    progress       True for a line on stderr, or a callable that is given a running tally
    extra          further arguments of the model, not attributed: a tuple or dict. Tensors, arrays
                   and lists of numbers or words hold one entry per example, inside tuples, lists
                   and dicts too; ``ig.Shared(t)`` is the same for all
    normalisation  what image inputs mean to the eye: black baselines, data ranges and plots need it
    batch_size     rows per model call, at most; found while working unless given. With 1 there are
                   no chords, but gradients at both ends
    optimize       run a faster double of the model: batch norms folded into convolutions, channels
                   last. Maps agree to rounding

    Returns an ``Attribution`` arranged as the inputs were. Cost: that of the method, one forward
    pass for "predicted", and two rows without gradients, by which models are warned of whose rows
    depend on one another or that roll dice. Errors: the tree in ``integrand.errors``, before any
    long work where possible.

    >>> import torch, integrand as ig
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    >>> result = ig.explain(model, torch.randn(5, 4), target="predicted")
    >>> result.values.shape, bool(result.converged.all())
    (torch.Size([5, 4]), True)
    """
    if not isinstance(progress, bool) and not callable(progress):
        raise InputError(
            f"progress is True, False or a callable that is given a running tally, not {progress!r}."
        )
    task = task_for(
        method,
        model,
        inputs,
        target,
        extra=extra,
        normalisation=normalisation,
        batch_size=batch_size,
        optimize=optimize,
    )
    return explained(
        task, chosen(inputs, method, baseline, tol, options, task), seed=seed, progress=progress
    )


def task_for(
    method: str | ExplainerLike, model: Any, inputs: Any, target: Any, **door: Any
) -> Task:
    """The task that a method is given: one that explains a layer takes integers too."""
    return Task.of(model, inputs, target, **door, integers=_explains_layer(method))


def explained(
    task: Task, way: Explainer, *, seed: int | None = None, progress: Progress = False
) -> Attribution:
    """What a method makes of a task, arranged as its inputs were."""
    layout, normalisation = task.layout, task.field.normalisation
    if seed is not None:
        way = reseeded(way, seed)
    with task.ready() as field, _watched(progress) as watch:
        made = way(field, task.x, watch=watch)
    if way.explains == "layer":  # a layer's values are arranged as the layer is, and no image's
        layout, normalisation = made.layout or Layout.of(made.values), None
    else:
        made = made.apart()
    made = dataclasses.replace(made, target=field.target, normalisation=normalisation)
    return _unpacked(made, layout)


def _explains_layer(method: str | ExplainerLike) -> bool:
    """Whether a method explains a layer, so that nobody asks for the gradient of the inputs."""
    return (about(method) if isinstance(method, str) else as_explainer(method)).explains == "layer"


def chosen(
    inputs: Any,
    method: str | ExplainerLike,
    baseline: Any,
    tol: float | None,
    options: dict[str, Any],
    task: Task | None = None,
) -> Explainer:
    """The method that ``explain`` would run for these arguments; ``task`` has the inputs laid out,
    where that was done."""
    layout = Layout.of(inputs, integers=_explains_layer(method)) if task is None else task.layout
    x = layout.pack(inputs) if task is None else task.x
    return _method(method, baseline, tol, options, placing(inputs, layout, x))


_Place = Callable[[Any, bool], Any]
"""A baseline as it was given, and whether it is references that all examples share → what fits the
inputs laid end to end."""


def placing(inputs: Any, layout: Layout, x: Tensor) -> _Place:
    """How baselines are arranged for these inputs."""
    return lambda given, shared: for_inputs(
        given, layout, x, shared=shared, listed=isinstance(inputs, list)
    )


def _method(
    method: str | ExplainerLike,
    baseline: Any,
    tol: float | None,
    options: dict[str, Any],
    place: _Place,
) -> Explainer:
    """The method that was asked for: built by its name, or as it was given with another start and
    tolerance."""
    if tol is not None and "rule" in options:
        raise InputError("tol= and rule= both say how to integrate: give one of them.")
    baseline = None if baseline is None else place(baseline, _takes_references(method, options))
    if isinstance(method, str):
        return _built(method, baseline, tol, _placed(method, options, place))
    if not callable(method):
        raise InputError(
            f"method= is a published name or a Method, not {type(method).__name__}; 'integrand methods' lists the names."
        )
    if options:
        raise UnknownName(f"option beside method={method!r}", next(iter(options)), ("baseline",))
    return _changed(as_explainer(method), baseline, tol)


def _placed(name: str, options: dict[str, Any], place: _Place) -> dict[str, Any]:
    """Options that hold baselines, arranged as the inputs are."""
    start = about(name).start
    starts = {} if start is None else {start: _takes_references(name, options)}
    return {
        option: place(given, starts.get(option, False))
        if option in (*starts, "fill") and given is not None
        else given
        for option, given in options.items()
    }


def _built(name: str, baseline: Any, tol: float | None, options: dict[str, Any]) -> Explainer:
    """A published method, its options those of the factory."""
    known = about(name)
    accepted, start = known.options, known.start
    if tol is not None:
        options = {**options, **({"tol": tol} if "tol" in accepted else {"rule": Adaptive(tol)})}
    for option in options:
        if option not in accepted:
            hint = about_option(option, options[option], accepted)
            raise UnknownName(f"option of method {name!r}", option, accepted, hint)
    for option in known.needs:
        if option not in options and option != start:
            raise InputError(f"Method {name!r} needs {option}=; see help(ig.methods.{name}).")
    if baseline is None:
        if start in known.needs and start not in options:
            raise InputError(
                f"Method {name!r} starts from {start}: give baseline= a tensor, a list of baselines, or a sampler."
            )
        return as_explainer(known.build(**options))
    if start is None:
        raise InputError(
            f"Method {name!r} chooses for itself where it starts: it takes no baseline=."
        )
    if start in options:
        raise InputError(
            f"Method {name!r} was given where to start twice: as baseline= and as {start}=."
        )
    return as_explainer(known.build(**{start: baseline}, **options))


def _changed(method: Explainer, baseline: Any, tol: float | None) -> Explainer:
    """The same method from another ``baseline``, to another tolerance, where these are given."""
    if baseline is None and tol is None:
        return method
    if method.inner is not None and not method.samples:
        return method.with_inner(_changed(method.inner, baseline, tol))
    if not isinstance(method, Method):
        raise InputError(f"baseline= and tol= do not go with {method!r}, which has its own.")
    if baseline is not None:
        method = dataclasses.replace(method, baseline=as_baseline(baseline, BASELINES))
    return method if tol is None else dataclasses.replace(method, rule=Adaptive(tol))


def _takes_references(method: str | ExplainerLike, options: Mapping[str, Any]) -> bool:
    """Whether a published name starts from references that all examples share, rather than from a
    baseline each.

    One that wraps another starts where that does.
    """
    if not isinstance(method, str):
        return False
    known = about(method)
    return (
        known.shared
        if known.wraps is None
        else _takes_references(options.get("of", known.wraps), {})
    )


@contextmanager
def _watched(progress: Progress) -> Iterator[Callable[[CallCount], None] | None]:
    """What shows the running tally: nothing, a callable, or one line on stderr."""
    if progress is not True:
        yield progress if callable(progress) else None
        return
    try:
        yield _print_line
    finally:
        print(file=sys.stderr, flush=True)


def _print_line(tally: CallCount) -> None:
    of = f"/{tally.expected}" if tally.expected else ""
    print(
        f"\r{tally.gradients}{of} gradients, {tally.values} values",
        end="",
        file=sys.stderr,
        flush=True,
    )


def _unpacked(made: Attribution, layout: Layout) -> Attribution:
    """Maps, inputs and baselines arranged as the inputs were."""
    if layout.single:
        return made
    return dataclasses.replace(
        made,
        values=mapped(lambda t: layout.unpack(t, 1), made.values),
        inputs=layout.unpack(made.inputs, 1),
        shares=None if made.shares is None else layout.unpack(made.shares, 2),
        baselines=None if made.baselines is None else layout.unpack(made.baselines, 2),
        layout=None,
    )
