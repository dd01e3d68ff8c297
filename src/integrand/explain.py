"""The front door: one call from a model and its inputs to an attribution.

inputs ── layout ──▶ x (B, *s) ─┐
model, target ─────▶ field ─────┼── method(field, x) ──▶ Attribution, arranged as the inputs were
name or Method ────▶ method ────┘
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .attribution import Attribution, mapped
from .baseline import Plain, as_baseline
from .errors import BaselineError, InputError, UnknownName
from .field.layout import Layout
from .field.wrap import Tally
from .method import Method, inside
from .methods import BASELINES, about
from .methods.habits import about_option
from .methods.registry import start_of
from .normalisation import Normalisation
from .question import Question
from .rule import Adaptive
from .seeds import reseeded
from .shapes import describe

Progress = bool | Callable[[Tally], None]


def explain(
    model: Callable[..., Any],
    inputs: Any,
    *,
    target: Any,
    method: str | Callable[..., Attribution] = "integrated",
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
    """Explain what a model says of some inputs: A(x) = Σ_r w_r ∫ ∇F(γ_r) ⊙ dγ_r, and how far that adds up.

    model          an nn.Module or any function torch can differentiate; it is given back as it was, whatever happens
    inputs         a tensor (B, \\*s), or a tuple or dict of them (each is attributed)
    target         which scalar: an int, a tensor of ints (one per example), "predicted", an ``ig.targets`` value, or a callable
                   outputs → (N,)
    method         a published name (``integrand methods`` lists them), or a ``Method``; ``options`` go to the published name
    baseline       what the method starts from, as its first argument (``references`` for expected and ig2)
    tol            relative L2 error of the map to reach, 0.05 for most methods unless given; the result's ``error`` says what was
                   reached. For "expected" it is the standard error over references
    seed           mixed into every random part; without it their own seeds hold. Nothing global is touched
    progress       True for a line on stderr, or a callable that is given a running tally
    extra          further arguments of the model, not attributed: a tuple or dict; tensors hold one entry per example
    normalisation  what image inputs mean to the eye: black baselines, data ranges and plots need it
    batch_size     rows per model call; found while working unless given
    optimize       run a faster double of the model: batch norms folded into convolutions, channels last. Maps agree to rounding

    Returns an ``Attribution`` arranged as the inputs were. Cost: that of the method, plus one forward pass for "predicted".
    Errors: the tree in ``integrand.errors``, before any long work where possible.

    >>> import torch, integrand as ig
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    >>> result = ig.explain(model, torch.randn(5, 4), target="predicted")
    >>> result.values.shape, bool(result.converged.all())
    (torch.Size([5, 4]), True)
    """
    asked = Question.of(
        model,
        inputs,
        target,
        extra=extra,
        normalisation=normalisation,
        batch_size=batch_size,
        optimize=optimize,
        integers=_lifts(method),
    )
    layout, x = asked.layout, asked.x
    way = _method(method, _arranged(baseline, layout, x, shared=_takes_references(method, options)), tol, options)
    if seed is not None:
        way = reseeded(way, seed)
    with asked.ready() as field, _watched(progress) as watch:
        made = way(field, x, watch=watch)
    if _lifts(way):  # a layer's values are arranged as the layer is, and no image's
        layout, normalisation = Layout.of(made.values), None
    made = dataclasses.replace(made, target=field.target, normalisation=normalisation)
    return _unpacked(made, layout)


def _lifts(method: Any) -> bool:
    """Whether a method explains a layer, so that nobody asks for the gradient of the inputs."""
    if isinstance(method, str):
        return "site" in inspect.signature(about(method).build).parameters
    return bool(getattr(method, "lifts", False))


def chosen(inputs: Any, method: Any, baseline: Any, tol: float | None, options: dict[str, Any]) -> Any:
    """The method that ``explain`` would run for these arguments."""
    layout = Layout.of(inputs, integers=_lifts(method))
    x = layout.pack(inputs)
    return _method(method, _arranged(baseline, layout, x, shared=_takes_references(method, options)), tol, options)


def _method(method: Any, baseline: Any, tol: float | None, options: dict[str, Any]) -> Any:
    """The method that was asked for: built by its name, or as it was given with another start and tolerance."""
    if tol is not None and "rule" in options:
        raise InputError("tol= and rule= both say how to integrate: give one of them.")
    if isinstance(method, str):
        return _built(method, baseline, tol, options)
    if not callable(method):
        raise InputError(
            f"method= is a published name or a Method, not {type(method).__name__}; 'integrand methods' lists the names."
        )
    if options:
        raise UnknownName(f"option beside method={method!r}", next(iter(options)), ("baseline",))
    return _changed(method, baseline, tol)


def _built(name: str, baseline: Any, tol: float | None, options: dict[str, Any]) -> Any:
    """A published method, its options those of the factory."""
    build = about(name).build
    accepted = inspect.signature(build).parameters
    if tol is not None:
        options = {**options, **({"tol": tol} if "tol" in accepted else {"rule": Adaptive(tol)})}
    for option in options:
        if option not in accepted:
            hint = about_option(option, options[option], accepted)
            raise UnknownName(f"option of method {name!r}", option, accepted, hint)
    first = start_of(accepted)
    for option, spec in accepted.items():
        if spec.default is spec.empty and option not in options and spec is not first:
            raise InputError(f"Method {name!r} needs {option}=; see help(ig.methods.{name}).")
    if baseline is None:
        if first is not None and first.default is first.empty and first.name not in options:
            raise InputError(
                f"Method {name!r} starts from {first.name}: give baseline= a tensor, a list of baselines, or a sampler."
            )
        return build(**options)
    if first is None:
        raise InputError(f"Method {name!r} chooses for itself where it starts: it takes no baseline=.")
    if first.name in options:
        raise InputError(f"Method {name!r} was given where to start twice: as baseline= and as {first.name}=.")
    return build(**{first.name: baseline}, **options)


def _changed(method: Any, baseline: Any, tol: float | None) -> Any:
    """The same method from another ``baseline``, to another tolerance, where these are given."""
    if baseline is None and tol is None:
        return method
    inner = inside(method)
    if inner is not None and not hasattr(method, "tol"):  # a wrapper without a tolerance and draws of its own
        return dataclasses.replace(method, method=_changed(inner, baseline, tol))
    if not isinstance(method, Method):
        raise InputError(f"baseline= and tol= do not go with {method!r}, which has its own.")
    if baseline is not None:
        method = dataclasses.replace(method, baseline=as_baseline(baseline, BASELINES))
    return method if tol is None else dataclasses.replace(method, rule=Adaptive(tol))


def _takes_references(method: Any, options: Mapping[str, Any]) -> bool:
    """Whether a published name starts from references that all examples share, rather than from a baseline each.

    One that wraps another starts where that does.
    """
    if not isinstance(method, str):
        return False
    accepted = inspect.signature(about(method).build).parameters
    if "of" in accepted:
        return _takes_references(options.get("of", accepted["of"].default), {})
    first = start_of(accepted)
    return first is not None and first.name != "baseline"


def _arranged(baseline: Any, layout: Layout, x: Tensor, *, shared: bool) -> Any:
    """A tuple or dict of baselines for a tuple or dict of inputs → one tensor; anything else as it is.

    Shared references (R, \\*s) stay R rows; baselines are broadcast to one for each example.
    """
    if layout.single or not isinstance(baseline, tuple | dict):
        return baseline
    keys = layout.names if layout.names is not None else tuple(range(len(layout.shapes)))
    given = baseline if isinstance(baseline, dict) else dict(enumerate(baseline))
    if set(given) != set(keys):
        raise InputError(
            f"The baselines are for {sorted(map(str, given))}, the inputs are {sorted(map(str, keys))}: give one for each."
        )
    values = [torch.as_tensor(given[key]).to(x) for key in keys]
    # Shared references: what has an axis more than an example is R of them, anything else is one for all.
    several = [len(v) for v, shape in zip(values, layout.shapes, strict=True) if v.ndim > len(shape)]
    rows = max(several, default=1) if shared else len(x)
    parts = []
    for key, value, shape in zip(keys, values, layout.shapes, strict=True):
        try:
            parts.append(value.expand(rows, *shape).reshape(rows, -1))
        except RuntimeError:
            raise BaselineError(
                f"The baseline for input {key!r} has shape {describe(value.shape)}, which does not broadcast to "
                f"{describe((rows, *shape))}."
            ) from None
    joint = torch.cat(parts, 1)
    return joint if shared else Plain(joint)


@contextmanager
def _watched(progress: Progress) -> Iterator[Callable[[Tally], None] | None]:
    """What shows the running tally: nothing, a callable, or one line on stderr."""
    if progress is not True:
        yield progress if callable(progress) else None
        return
    try:
        yield _print_line
    finally:
        print(file=sys.stderr, flush=True)


def _print_line(tally: Tally) -> None:
    of = f"/{tally.expected}" if tally.expected else ""
    print(f"\r{tally.gradients}{of} gradients, {tally.values} values", end="", file=sys.stderr, flush=True)


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
    )
