"""``explain``: one call from a model and its inputs to an attribution.

inputs ── layout ──▶ x (B, *s) ─┐
model, target ─────▶ field ─────┼── method(field, x) ──▶ Attribution, arranged as the inputs were
name or Method ────▶ method ────┘

``explain`` reads from top to bottom: make the task (inputs laid out, a field of the model and its
target), resolve the method (a published name is built, its baseline arranged as the inputs are),
run it, and arrange the result as the inputs were.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from .baselines.names import baseline_of
from .core.frames import is_frame
from .core.normalisation import Normalisation
from .core.random import reseeded
from .errors import InputError, TargetError, UnknownName
from .fields import Field
from .fields.views import CallCount
from .integration import Method
from .integration.attached import check_recording
from .integration.attribution import Attribution, Explainer, ExplainerLike, as_explainer, mapped
from .integration.join import concat, examples_named
from .integration.wrappers.base import RepeatedWarnings
from .methods import about
from .methods.baseline_names import for_inputs
from .methods.hints import about_option
from .model.doors import options_of
from .model.extra import checked_extra
from .model.layout import Layout
from .rules import Adaptive
from .tables.results import decoded
from .targets import TargetLike, as_target
from .task import Task, is_predicted

Progress = bool | Callable[[CallCount], None]


def explain(
    model: Callable[..., Any] | Field,
    inputs: Any,
    *,
    target: TargetLike | None = None,
    method: str | ExplainerLike = "integrated",
    baseline: Any = None,
    tol: float | None = None,
    seed: int | None = None,
    progress: Progress = False,
    extra: Sequence[Any] | Mapping[str, Any] = (),
    normalisation: Normalisation | None = None,
    feature_names: Sequence[str] | None = None,
    batch_size: int | None = None,
    optimize: bool = False,
    create_graph: bool = False,
    **options: Any,
) -> Attribution:
    """Attribute a model's output to its inputs by integrating gradients along paths.

        A(x) = Σ_r w_r ∫ ∇F(γ_r) ⊙ dγ_r

    Args:
        model: an nn.Module or any function torch can differentiate; it is given back as it was,
            whatever happens. A Field (of ``ig.fields``, or your own) goes in its place: it has its
            target, extra and batch_size already.
        inputs: a tensor or array (B, \\*s), a data frame of pandas, polars or pyarrow (B rows, the
            columns' names go with the result), a DataLoader (batches are explained one by one and
            joined; of a pair (x, y) x), or a tuple or dict of them (each is attributed); for
            methods that explain a layer also integers, such as ids, which reach the model exactly,
            up to 2^53.
        target: the scalar that is explained: an int, a tensor of ints (one per example), a position
            in a longer output or a list of positions (one per example), "predicted" (of a model
            with one number per row, the side of its sign: minus that number where it is negative,
            which is warned of), an ``ig.targets`` value, or a callable
            outputs → (N,).
        method: a published name (``integrand methods`` lists them), or a ``Method``; ``options`` go
            to the published name.
        baseline: what the method starts from, as its first argument (``references`` for expected
            and ig2). A list is several baselines; for several inputs a tuple or dict is one for
            each: tensors, numbers, names, baselines, or None for zero.
        tol: relative L2 error of the map to reach, 0.05 for most methods unless given; the result's
            ``error`` says what was reached. For "expected" it is a 95 % bound over random draws,
            and one standard error is well below it.
        seed: mixed into every random part; without it their own seeds hold. No global random state
            is touched.
        progress: True for a line on stderr, or a callable that is given a running tally.
        extra: further arguments of the model, not attributed: a tuple or dict. Tensors, arrays and
            lists of numbers or words hold one entry per example, inside tuples, lists and dicts
            too; ``ig.Shared(t)`` is the same for all.
        normalisation: how image inputs map to colours: black baselines, data ranges and plots need
            it.
        feature_names: names of the columns of inputs (B, N); a data frame has its own.
        batch_size: rows per model call, at most; found while working unless given. With 1 there are
            no chords, but gradients at both ends.
        optimize: run a faster copy of the model: batch norms folded into convolutions, channels
            last. Maps agree to rounding.
        create_graph: keep the graph from the values to the model's parameters, so that a loss of
            them can be trained on (attribution priors). For methods at fixed nodes; the model is
            run in eval mode, and memory grows with nodes and references. No map is warned of.
        **options: options of the published method, and of the kind of model (``attribute_after``
            of pipelines; see ``integrand.tables.pipelines``).

    Returns:
        An ``Attribution`` whose values are arranged as the inputs were.

    Raises:
        IntegrandError: one of the tree in ``integrand.errors``, before any long work where
            possible.

    Cost:
        That of the method, one forward pass for "predicted", and two rows without gradients, which
        detect models whose rows depend on one another or that are random.

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        ... )
        >>> result = ig.explain(model, torch.randn(5, 4), target="predicted")
        >>> result.values.shape, bool(result.converged.all())
        (torch.Size([5, 4]), True)
    """
    if not isinstance(progress, bool) and not callable(progress):
        raise InputError(
            f"progress is True, False or a callable that is given a running tally, not {progress!r}."
        )
    if create_graph:
        check_recording()
    if isinstance(inputs, DataLoader):
        _check_loader(extra, create_graph)
        explain_batch = partial(
            explain,
            model,
            method=method,
            baseline=baseline,
            tol=tol,
            seed=seed,
            progress=progress,
            normalisation=normalisation,
            feature_names=feature_names,
            batch_size=batch_size,
            optimize=optimize,
            **options,
        )
        by_example = baseline_by_example(method, baseline, options)
        return concat(list(explained_by_batch(explain_batch, inputs, target, by_example)))
    model_options = {name: options.pop(name) for name in options_of(model) if name in options}
    task = make_task(
        method,
        model,
        inputs,
        target,
        extra=extra,
        normalisation=normalisation,
        batch_size=batch_size,
        optimize=optimize,
        **model_options,
    )
    if feature_names is not None:
        task = dataclasses.replace(task, layout=task.layout.named(feature_names))
    explainer = resolve_method(inputs, method, baseline, tol, options, task)
    if create_graph:
        return _run_attached(task, explainer, seed, progress)
    return run_task(task, explainer, seed=seed, progress=progress)


def _check_loader(extra: Sequence[Any] | Mapping[str, Any], create_graph: bool) -> None:
    """Check that what is asked can be asked of batches."""
    if create_graph:
        raise InputError(
            "create_graph=True would keep the graphs of all batches of the loader: explain a batch at a time."
        )
    if len(checked_extra(extra)):
        raise InputError("extra= has something for each example, and a DataLoader none of it.")


def explained_by_batch(
    explain_batch: Callable[..., Attribution],
    batches: Iterable[Any],
    target: TargetLike | None,
    baseline: Any,
) -> Iterator[Attribution]:
    """An attribution for each batch, one at least."""
    empty = True
    with RepeatedWarnings() as repeated:
        for x, batch_target in target_by_batch(batches, target, baseline):
            empty = False
            with repeated.collected():
                attribution = explain_batch(x, target=batch_target)
            yield attribution
    if empty:
        raise InputError(
            "There are no examples to explain: the loader, or the list of batches, is empty."
        )


def target_by_batch(
    batches: Iterable[Any], target: TargetLike | None, baseline: object = None
) -> Iterator[tuple[Any, Any]]:
    """The inputs of each batch, and its target; one with something for each example is taken apart
    as the examples are, and a ``baseline`` with something for each is refused."""
    named = None if target is None or is_predicted(target) else as_target(target)
    count = None if named is None else examples_named(named)
    if count is not None and isinstance(batches, DataLoader):
        _check_order(batches)
    done = 0
    for batch in batches:
        x = batch
        if isinstance(batch, tuple | list):
            if len(batch) not in (1, 2):
                raise InputError(
                    f"A batch of the loader holds {len(batch)} things: give (x, y), of which x is explained, or a dict of inputs."
                )
            x = batch[0]
        first = next(iter(x.values())) if isinstance(x, dict) else x
        if isinstance(baseline, Tensor | np.ndarray):
            _check_alike(baseline, 2 if is_frame(first) else first.ndim)
        examples = torch.arange(done, done + len(first))
        done += len(first)
        if count is not None and done > count:
            raise _miscounted(count, "more")
        yield x, target if named is None else named.at(examples)
    if count is not None and done < count:
        raise _miscounted(count, str(done))


def _miscounted(count: int, there: str) -> TargetError:
    return TargetError(
        f"The target names something for {count} examples, and the batches hold {there}: give it for each."
    )


def _check_alike(baseline: Tensor | NDArray[Any], axes: int) -> None:
    """Check that a baseline with a batch axis, as inputs of so many ``axes`` have one, is the same
    for all examples of a loader."""
    if baseline.ndim == axes and len(baseline) > 1:
        raise InputError(
            f"This baseline has {len(baseline)} rows, one for each example, and batches do not say which of them are theirs: "
            "give one that all share, or explain a batch at a time."
        )


def _check_order(loader: DataLoader[Any]) -> None:
    """Check that a loader gives its examples in their order, which a target for each of them
    needs."""
    if isinstance(loader.dataset, IterableDataset) or isinstance(loader.sampler, SequentialSampler):
        return
    raise InputError(
        "The loader gives its examples in an order of its own (shuffle=True or a sampler), and the target names something for each in "
        "theirs: take shuffle=False, or a target that is the same for all."
    )


def baseline_by_example(
    method: str | ExplainerLike, baseline: object, options: Mapping[str, Any]
) -> object:
    """The baseline, if its first axis may be one of examples; None where it is of references."""
    return None if _shares_references(method, options) else baseline


def make_task(
    method: str | ExplainerLike,
    model: Callable[..., Any] | Field,
    inputs: Any,
    target: TargetLike | None,
    **options: Any,
) -> Task:
    """Lay out the inputs and pair the model with its target; methods that explain a layer accept
    integers too."""
    return Task.of(model, inputs, target, **options, integers=_explains_layer(method))


def run_task(
    task: Task, explainer: Explainer, *, seed: int | None = None, progress: Progress = False
) -> Attribution:
    """Run a method on a task, and arrange the attribution as the inputs were."""
    layout, normalisation = task.layout, task.field.normalisation
    if seed is not None:
        explainer = reseeded(explainer, seed)
    with task.ready() as field, _progress_watch(progress) as watch:
        attribution = explainer(field, task.x, watch=watch)
    if not isinstance(attribution, Attribution):
        raise InputError(
            f"A method returns an Attribution, and {explainer!r} returned a {type(attribution).__name__}."
        )
    table = layout.arranged(layout.tables) if any(layout.tables) else None
    if explainer.explains == "layer":  # arranged as the layer's values are, and no image
        layout, normalisation = attribution.layout or Layout.of(attribution.values), None
        table = None
    else:
        attribution = attribution.apart()
    attribution = dataclasses.replace(
        attribution, target=field.target, normalisation=normalisation, table=table
    )
    if layout.encoding is not None and layout.source is not None and table is not None:
        return decoded(attribution, layout.encoding.origin, layout.source)
    return _unpack(attribution, layout)


def _run_attached(
    task: Task, explainer: Explainer, seed: int | None, progress: Progress
) -> Attribution:
    """``run_task``, with the graph to the model's parameters."""
    if seed is not None:
        explainer = reseeded(explainer, seed)
    with task.field.trainable(), _progress_watch(progress) as watch:
        with task.ready() as field:  # classes that are "predicted" are known after it
            pass
        attribution = explainer.attached(field, task.x, watch=watch).apart()
    table = task.layout.arranged(task.layout.tables) if any(task.layout.tables) else None
    attribution = dataclasses.replace(
        attribution, target=field.target, normalisation=field.normalisation, table=table
    )
    return _unpack(attribution, task.layout)


def _explains_layer(method: str | ExplainerLike) -> bool:
    """Whether a method explains a layer, so that no gradient of the inputs is needed."""
    return (about(method) if isinstance(method, str) else as_explainer(method)).explains == "layer"


def resolve_method(
    inputs: Any,
    method: str | ExplainerLike,
    baseline: Any,
    tol: float | None,
    options: dict[str, Any],
    task: Task | None = None,
) -> Explainer:
    """The method that ``explain`` would run for these arguments.

    Args:
        inputs: as ``explain`` takes them.
        method: a published name, or a method.
        baseline: what it starts from; None for its own.
        tol: relative error to reach; None for its own.
        options: options of the published name.
        task: has the inputs laid out already, where that was done.
    """
    layout = Layout.of(inputs, integers=_explains_layer(method)) if task is None else task.layout
    x = layout.pack(inputs) if task is None else task.x
    arrange = baseline_arranger(inputs, layout, x)
    if tol is not None and "rule" in options:
        raise InputError("tol= and rule= both say how to integrate: give one of them.")
    if baseline is not None:
        baseline = arrange(baseline, _shares_references(method, options))
    if isinstance(method, str):
        if layout.features is not None and "features" in about(method).options:
            options = {"features": layout.features, **options}  # a word is one, not its columns
        return _build(method, baseline, tol, _arrange_options(method, options, arrange))
    if not callable(method):
        raise InputError(
            f"method= is a published name or a Method, not {type(method).__name__}; 'integrand methods' lists the names."
        )
    if options:
        raise UnknownName(f"option beside method={method!r}", next(iter(options)), ("baseline",))
    return _replace_parts(as_explainer(method), baseline, tol)


_Arrange = Callable[[Any, bool], Any]
"""(baseline as it was given, whether all examples share its references) → a baseline for the inputs
laid end to end."""


def baseline_arranger(inputs: Any, layout: Layout, x: Tensor) -> _Arrange:
    """A function that arranges baselines as these inputs are laid out."""
    return lambda baseline, shared: for_inputs(
        baseline, layout, x, shared=shared, listed=isinstance(inputs, list)
    )


def _arrange_options(name: str, options: dict[str, Any], arrange: _Arrange) -> dict[str, Any]:
    """The options of a published method, those that hold baselines arranged as the inputs are."""
    start = about(name).start
    shared = {} if start is None else {start: _shares_references(name, options)}
    return {
        option: arrange(value, shared.get(option, False))
        if option in (*shared, "fill") and value is not None
        else value
        for option, value in options.items()
    }


def _build(name: str, baseline: object, tol: float | None, options: dict[str, Any]) -> Explainer:
    """A published method, built by its factory; options it does not take are refused."""
    published = about(name)
    accepted, start = published.options, published.start
    if tol is not None:
        if "tol" not in accepted and "rule" not in accepted:
            raise InputError(
                f"Method {name!r} takes no tol=: it integrates in its own way, to which no tolerance can be given. Leave it out."
            )
        options = {**options, **({"tol": tol} if "tol" in accepted else {"rule": Adaptive(tol)})}
    for option in options:
        if option not in accepted:
            hint = about_option(option, options[option], accepted)
            raise UnknownName(f"option of method {name!r}", option, accepted, hint)
    for option in published.needs:
        if option not in options and option != start:
            raise InputError(f"Method {name!r} needs {option}=; see help(ig.methods.{name}).")
    if baseline is None:
        if start in published.needs and start not in options:
            raise InputError(
                f"Method {name!r} starts from {start}: give baseline= a tensor, a list of baselines, or a sampler."
            )
        return as_explainer(published.build(**options))
    if start is None:
        raise InputError(
            f"Method {name!r} chooses for itself where it starts: it takes no baseline=."
        )
    if start in options:
        raise InputError(
            f"Method {name!r} was given where to start twice: as baseline= and as {start}=."
        )
    return as_explainer(published.build(**{start: baseline}, **options))


def _replace_parts(method: Explainer, baseline: object, tol: float | None) -> Explainer:
    """The same method with another baseline and another tolerance, where these are given."""
    if baseline is None and tol is None:
        return method
    if method.inner is not None and not method.samples:
        return method.with_inner(_replace_parts(method.inner, baseline, tol))
    if not isinstance(method, Method):
        raise InputError(f"baseline= and tol= do not go with {method!r}, which has its own.")
    if baseline is not None:
        method = dataclasses.replace(method, baseline=baseline_of(baseline))
    return method if tol is None else dataclasses.replace(method, rule=Adaptive(tol))


def _shares_references(method: str | ExplainerLike, options: Mapping[str, Any]) -> bool:
    """Whether a published method starts from references that all examples share, rather than from a
    baseline for each; a wrapper does what the method it wraps does."""
    if not isinstance(method, str):
        return False
    published = about(method)
    if published.wraps is None:
        return published.shared
    return _shares_references(options.get("of", published.wraps), {})


@contextmanager
def _progress_watch(progress: Progress) -> Iterator[Callable[[CallCount], None] | None]:
    """The callable that is shown the running tally: none, the user's, or one that prints a line on
    stderr."""
    if progress is not True:
        yield progress if callable(progress) else None
        return
    try:
        yield _print_tally
    finally:
        print(file=sys.stderr, flush=True)


def _print_tally(tally: CallCount) -> None:
    expected = f"/{tally.expected}" if tally.expected else ""
    print(
        f"\r{tally.gradients}{expected} gradients, {tally.values} values",
        end="",
        file=sys.stderr,
        flush=True,
    )


def _unpack(attribution: Attribution, layout: Layout) -> Attribution:
    """The attribution with maps, inputs and baselines arranged as the inputs were."""
    if layout.single:
        return attribution
    shares, baselines = attribution.shares, attribution.baselines
    return dataclasses.replace(
        attribution,
        values=mapped(lambda t: layout.unpack(t, 1), attribution.values),
        inputs=layout.unpack(attribution.inputs, 1),
        shares=None if shares is None else layout.unpack(shares, 2),
        baselines=None if baselines is None else layout.unpack(baselines, 2),
        layout=None,
    )
