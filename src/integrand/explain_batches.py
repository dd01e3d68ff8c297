"""``explain_batches``: a dataset that does not fit into memory, batch by batch into a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .core.files import digest
from .core.frames import is_frame
from .core.optional import check_installed, optional
from .errors import InputError
from .explain import baseline_by_example, explain, target_by_batch
from .fields import Field
from .integration.attribution import ExplainerLike
from .integration.folder import AttributionFolder, FolderWriter
from .integration.wrappers.base import RepeatedWarnings
from .model.network import weights_digest
from .targets import TargetLike


def explain_batches(
    model: Callable[..., Any] | Field,
    batches: Iterable[Any],
    *,
    target: TargetLike | None = None,
    method: str | ExplainerLike = "integrated",
    out: str | Path,
    resume: bool = False,
    **options: Any,
) -> AttributionFolder:
    """Explain batch after batch, and write each attribution to a folder before the next begins.

        load(out)[k] = explain(model, batches[k])

    A batch is written whole or not at all. Whatever stops the call, what was written stays, and the
    same call with ``resume=True`` goes on: batches that are there already, of the same inputs, are
    not computed again.

    Args:
        model: as in ``explain``.
        batches: a DataLoader, a list, a generator: of tensors (B, \\*s), data frames, dicts of
            inputs, or pairs (x, y), of which x is explained. One is held at a time.
        target: as in ``explain``; what has something for each example has it for all examples of
            all batches, in their order.
        method: as in ``explain``.
        out: the folder, made if need be.
        resume: go on with what an earlier call left in the folder.
        **options: as ``explain`` takes them, but ``extra`` and ``create_graph``.

    Returns:
        An ``AttributionFolder``: a sequence of attributions, read from the disk where they are
        looked at. ``ig.load(out)`` opens it again, ``ig.concat`` joins it.

    Raises:
        InputError: for a folder that holds attributions and is not to be gone on with, or those of
            another model, method or target.
        IntegrandError: whatever ``explain`` raises of a batch; those before it are written.
        OSError: where the disk refuses.
        MissingExtra: without safetensors.

    Cost:
        That of ``explain`` for each batch, and one pass over the bytes of inputs and weights, which
        tell whether a batch is there already.

    Example:
        >>> import tempfile, torch, integrand as ig
        >>> field = ig.fields.Linear(torch.tensor([1.0, -2.0]))
        >>> folder = ig.explain_batches(field, torch.ones(5, 2).split(2), out=tempfile.mkdtemp())
        >>> len(folder), folder.examples, folder.complete
        (3, 5, True)
    """
    for name in ("extra", "create_graph"):
        if name in options:
            raise InputError(
                f"{name}= has no meaning for batches that go to the disk: leave it out."
            )
    check_installed({"safetensors": "save"}, "explain_batches")
    if isinstance(batches, Tensor | dict):
        raise InputError(
            "batches is a DataLoader, a list or another series of batches; for a single one use ig.explain."
        )
    by_example = baseline_by_example(method, options.get("baseline"), options)
    series = target_by_batch(batches, target, by_example)
    first = next(series, None)
    if first is None:  # before a folder is made
        raise InputError("There are no examples to explain: batches is empty.")
    writer = FolderWriter(out, _fingerprint(model, target, method, options), resume=resume)
    count = 0
    with RepeatedWarnings() as repeated:
        for x, batch_target in chain([first], series):
            inputs = _digest_of(x)
            if not writer.stands(count, inputs):
                with repeated.collected():
                    attribution = explain(model, x, target=batch_target, method=method, **options)
                    writer.write(count, attribution, inputs)
            count += 1
    return writer.end(count)


def _fingerprint(model: object, target: object, method: object, options: dict[str, Any]) -> str:
    """A hash of what decides the maps, as far as it can be told from outside: weights, numbers,
    names and settings; not the code of a function."""
    indifferent = {"progress", "batch_size"}
    decisive = {name: value for name, value in options.items() if name not in indifferent}
    parts = {"model": model, "target": target, "method": method, **decisive}
    return digest(_spelled(parts).encode())


def _spelled(value: object) -> str:
    """A value in words that tell it from others: tensors by their numbers, parts by their fields,
    modules by their weights, functions by their names."""
    if isinstance(value, Tensor | np.ndarray):
        return _digest_of(value)
    if isinstance(value, nn.Module):
        return f"{type(value).__qualname__} {weights_digest(value)}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}{[_spelled(entry) for entry in value]}"
    if isinstance(value, Mapping):
        return repr(sorted((str(name), _spelled(entry)) for name, entry in value.items()))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {spec.name: getattr(value, spec.name) for spec in dataclasses.fields(value)}
        return f"{type(value).__qualname__} {_spelled(fields)}"
    if isinstance(value, FunctionType | BuiltinFunctionType | type):
        return value.__qualname__
    text = repr(value)
    # Where it lies in memory tells nothing.
    return type(value).__qualname__ if text == object.__repr__(value) else text


def _digest_of(x: Any) -> str:
    """A hash of the numbers of a batch: a tensor, an array, a data frame, or a dict of them."""
    if isinstance(x, Mapping):
        return digest(repr([(str(name), _digest_of(part)) for name, part in x.items()]).encode())
    if is_frame(x):
        opened = optional("narwhals", extra="tables", needs="Reading a data frame").from_native(x)
        return digest(repr((opened.columns, opened.rows())).encode())
    array = np.ascontiguousarray(x.detach().cpu().view(torch.uint8) if _is_odd(x) else _plain(x))
    shape = tuple(x.shape)
    return digest(f"{x.dtype}{shape}".encode() + array.tobytes())


def _is_odd(x: object) -> bool:
    """Whether NumPy has no type for a tensor's numbers."""
    return isinstance(x, Tensor) and x.dtype == torch.bfloat16


def _plain(x: Any) -> Any:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x
