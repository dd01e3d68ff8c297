"""Saving and loading attributions: one safetensors file, with everything but tensors as JSON in its
header.

Reading runs no code from the file: a method and a target come back as the words they printed as. A
file is written whole or not at all, and carries a digest of all it holds; one that does not fit
together, or not to its digest, is refused when it is read, not when it is used.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.files import read_tensors, unreadable, write_tensors
from ..core.frames import Table
from ..core.normalisation import Normalisation
from ..core.optional import optional, room
from ..core.shapes import describe
from ..errors import InputError
from .attribution import Attribution, feature_counts
from .cost import Cost
from .loop import Frames

_NEEDS = "Saving and loading attributions"
_FORMAT = 1
_STRUCTURED = ("values", "inputs", "shares", "baselines")
_BY_EXAMPLE = ("output", "residual", "residual_error", "error", "converged")  # (B,)
_BY_REFERENCE = ("weights", "change", "fitness")  # (R, B)
_OPTIONAL = ("fitness", "covariance", "residual_error")
_PLAIN = (*_BY_EXAMPLE, *_BY_REFERENCE, "covariance")
INTERACTIONS = "interactions"
"""Where a file of interactions has its header."""

CIRCUIT = "circuit"
"""Where a file of a circuit has its header."""

_TEXT = "text"
"""Where the header of an attribution of texts has these."""

_DIGEST = "blake2b"
"""Where a file says what it held when it was written; files of 0.1 do not."""


class PrintedText(str):
    """Something that was written down as it printed; it prints the same and runs nothing.

    ``complete``: of a method, whether its maps are meant to add up.
    """

    complete: bool = True

    def __repr__(self) -> str:
        return str(self)


def save(
    attribution: Attribution,
    path: str | Path,
    *,
    text: Mapping[str, Any] | None = None,
    beside: Mapping[str, Tensor] | None = None,
) -> None:
    """Write an attribution to ``path``, whole or not at all.

    Args:
        text: what an attribution of texts knows beside it, for ``text.io`` to read.
        beside: tensors that it has beside those of the attribution.

    Raises:
        OSError: where the disk refuses.
        MissingExtra: without safetensors.
    """
    write = optional("safetensors.torch", extra="save", needs=_NEEDS).save_file
    tensors: dict[str, Tensor] = {}
    arranged: dict[str, Any] = {}
    for name in _STRUCTURED:
        arranged[name] = _store(name, getattr(attribution, name), tensors)
    for name in _PLAIN:
        _store(name, getattr(attribution, name), tensors)
    for name, note in attribution.notes.items():
        _store(f"notes/{name}", note, tensors)
    if attribution.frames is not None:
        _store("frames/clock", attribution.frames.clock, tensors)
        _store("frames/points", attribution.frames.points, tensors)
    for name, tensor in (beside or {}).items():
        _store(name, tensor, tensors)
    header: dict[str, Any] = {
        "format": _FORMAT,
        "integrand": metadata.version("integrand"),
        "arranged": arranged,
        "method": repr(attribution.method),
        "complete": attribution.claims_completeness,
        "target": repr(attribution.target),
        "names": attribution.names,
        "reasons": attribution.reasons,
        "criterion": attribution.criterion,
        "notes": list(attribution.notes),
        "cost": asdict(attribution.cost),
        "resolution": attribution.resolution,
        "normalisation": attribution.normalisation and asdict(attribution.normalisation),
        "tables": [table and _stored_table(table) for table in attribution.tables],
    }
    if text is not None:
        header[_TEXT] = text
    written = json.dumps(header)
    write_tensors(write, tensors, path, {"integrand": written, _DIGEST: digest(written, tensors)})


def load(path: str | Path) -> Attribution | Any:
    """Read an attribution, interactions or a circuit from a file; or open a folder of attributions.

    Args:
        path: a file that ``Attribution.save``, ``TextAttribution.save``, ``Interactions.save`` or
            ``Circuit.save`` wrote, or a folder that ``explain_batches`` did.

    Returns:
        The ``Attribution``, ``TextAttribution``, ``Interactions`` or ``Circuit``; methods and targets are texts,
        as they printed. Of a folder an ``AttributionFolder``: a sequence of attributions, each read
        when it is asked for, that knows whether it is ``complete``.

    Raises:
        InputError: for files that hold none, only a part of one, or not what was written, and for
            those of a newer format.
    """
    opened = optional("safetensors", extra="save", needs=_NEEDS).safe_open
    if Path(path).is_dir():
        return room("integration.folder").AttributionFolder.open(path)
    written, tensors = read_tensors(opened, path)
    if INTERACTIONS in written:
        return room("interactions.io").read(path, written, tensors)
    if CIRCUIT in written:
        return room("circuits.io").read(path, written, tensors)
    if "integrand" not in written:
        raise InputError(f"{str(path)!r} holds tensors, but no attribution.")
    try:
        header = json.loads(written["integrand"])
    except ValueError as error:
        raise unreadable(path, error) from error
    written_as = header.get("format") if isinstance(header, dict) else None
    if isinstance(written_as, int) and written_as > _FORMAT:
        raise InputError(
            f"{str(path)!r} was written by integrand {header.get('integrand')}, in a newer format: upgrade to read it."
        )
    try:
        wrong = _why_changed(written, tensors)
        attribution = None if wrong else _attribution(header, tensors)
        wrong = wrong or _why_unfit(attribution)
        if attribution is not None and not wrong and _TEXT in header:
            return room("text.io").read(header[_TEXT], attribution, tensors)
    except (AttributeError, LookupError, TypeError, ValueError, InputError) as error:
        raise InputError(
            f"{str(path)!r} has a header that is not an attribution's ({error!r})."
        ) from error
    if attribution is None or wrong:
        raise InputError(f"{str(path)!r} holds no whole attribution: {wrong}. Save it again.")
    return attribution


def _attribution(header: dict[str, Any], tensors: dict[str, Tensor]) -> Attribution:
    _number(header["format"])
    frames = None
    if "frames/clock" in tensors:
        frames = Frames(tensors["frames/clock"], tensors["frames/points"])
    normalisation = header["normalisation"]
    method = PrintedText(_text(header["method"]))
    method.complete = bool(header.get("complete", True))  # files of 0.1 do not say
    return Attribution(
        **{name: _restore(name, header["arranged"][name], tensors) for name in _STRUCTURED},
        **{name: tensors.get(name) for name in _PLAIN},  # type: ignore[arg-type]
        reasons=tuple(reason and _text(reason) for reason in header["reasons"]),
        criterion=_text(header["criterion"]),
        names=tuple(map(_text, header["names"])),
        notes={name: tensors[f"notes/{name}"] for name in header["notes"]},
        frames=frames,
        cost=Cost(**{name: _number(value) for name, value in header["cost"].items()}),
        resolution=header.get("resolution", 0.0),
        method=method,
        target=PrintedText(_text(header["target"])),
        normalisation=None if normalisation is None else _normalisation(**normalisation),
        table=_tables(header),
    )


def _stored_table(table: Table) -> dict[str, Any]:
    """A table for JSON; labels of rows that are neither words nor whole numbers as they print."""
    index = [label if isinstance(label, str | int) else str(label) for label in table.index]
    return {"names": table.names, "index": index, "shown": dict(table.shown)}


def _tables(header: dict[str, Any]) -> Any:
    """The tables of the inputs, arranged as these were; None where there are none."""
    tables = [
        entry
        and Table(
            tuple(map(_text, entry["names"])),
            tuple(entry["index"]),
            {_text(name): tuple(cells) for name, cells in entry["shown"].items()},
        )
        for entry in header.get("tables", [])  # files of 0.1 have none
    ]
    if not any(tables):
        return None
    arranged = header["arranged"]["values"]
    if arranged == "tensor":
        return tables[0]
    kind, keys = arranged
    return dict(zip(keys, tables, strict=True)) if kind == "dict" else tuple(tables)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InputError(f"{value!r} is no text")
    return value


def _number(value: object) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{value!r} is no number")
    return value


def _normalisation(mean: list[float], std: list[float]) -> Normalisation:
    if (
        not len(mean)
        or len(mean) != len(std)
        or not all(_number(deviation) > 0 for deviation in std)
    ):
        raise InputError(f"mean {mean!r} and std {std!r} are no normalisation")
    return Normalisation(tuple(map(_number, mean)), tuple(std))


# --- what fits together -----------------------------------------------------------------------------------------------


def digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    """A hash of everything a file says: its header, and the names, types, shapes and numbers of its
    tensors."""
    digest = hashlib.blake2b(header.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        flat = tensor.contiguous().as_strided(
            (tensor.numel(),), (1,)
        )  # strides of axes of one element may be any
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _why_changed(written: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Why a file does not hold what was written; empty if it does, or does not know."""
    recorded = written.get(_DIGEST)
    same = recorded is None or recorded == digest(written["integrand"], tensors)
    return "" if same else "its content has changed since it was written"


def _why_unfit(attribution: Attribution | None) -> str:
    """Why the tensors of an attribution do not belong together, in words; empty if they do."""
    if attribution is None:
        return ""
    absent = [
        name
        for name in (*_STRUCTURED[:2], *_PLAIN)
        if getattr(attribution, name) is None and name not in _OPTIONAL
    ]
    if absent:
        return f"it lacks {', '.join(absent)}"
    if (
        attribution.output.ndim != 1
        or attribution.weights.ndim != 2
        or not len(attribution.weights)
    ):
        return f"output has shape {describe(attribution.output.shape)}, weights {describe(attribution.weights.shape)}"
    if len(attribution.reasons) not in (0, len(attribution)):
        return f"there are {len(attribution.reasons)} reasons for {len(attribution)} examples"
    return next(_misfits(attribution), "")


def _misfits(attribution: Attribution) -> Iterator[str]:
    """What does not fit to the examples B and references R there are, one by one."""
    examples, pairs = (len(attribution),), (len(attribution.weights), len(attribution))
    for name, tensor in _tensors(attribution):
        expected: tuple[int | None, ...] = examples
        exact = False
        if name in (*_BY_EXAMPLE, *_BY_REFERENCE):
            expected, exact = (examples if name in _BY_EXAMPLE else pairs), True
        elif name == "covariance":
            size = sum(feature_counts(attribution.values))
            expected, exact = (len(attribution), size, size), True
        elif name.startswith(("shares", "baselines")):
            expected = (None, len(attribution))
        elif name.startswith(("notes", "points")):
            expected = (None, None, len(attribution))
        shape = tuple(tensor.shape)
        fits = len(shape) == len(expected) if exact else len(shape) >= len(expected)
        if not fits or any(
            size not in (None, length) for size, length in zip(expected, shape, strict=False)
        ):
            yield f"{name} has shape {describe(shape)} beside {len(attribution)} examples and {len(attribution.weights)} references"
        counts = name.startswith(
            ("fitness", "inputs", "baselines", "notes")
        )  # which may be whole numbers: features, ids, ranks
        real = tensor.is_floating_point() or (
            counts and not tensor.is_complex() and tensor.dtype != torch.bool
        )
        if not (tensor.dtype == torch.bool if name == "converged" else real):
            yield f"{name} holds {str(tensor.dtype).removeprefix('torch.')}"
    if (
        attribution.frames is not None
        and attribution.frames.clock.shape != attribution.frames.points.shape[:1]
    ):
        yield f"there are {len(attribution.frames.points)} frames at times of shape {describe(attribution.frames.clock.shape)}"


def _tensors(attribution: Attribution) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of an attribution but the clock, with what it is called in messages."""
    for name in _STRUCTURED:
        parts = getattr(attribution, name)
        if parts is not None:
            several = (
                parts.items()
                if isinstance(parts, dict)
                else enumerate(parts)
                if isinstance(parts, tuple)
                else ()
            )
            yield from [(f"{name} of {key!r}", part) for key, part in several] or [(name, parts)]
    yield from (
        (name, getattr(attribution, name))
        for name in _PLAIN
        if getattr(attribution, name) is not None
    )
    yield from ((f"notes of {name!r}", note) for name, note in attribution.notes.items())
    if attribution.frames is not None:
        yield "points of the path", attribution.frames.points


# --- parts ------------------------------------------------------------------------------------------------------------


def _store(
    name: str,
    value: Tensor | dict[Any, Tensor] | tuple[Tensor, ...] | None,
    tensors: dict[str, Tensor],
) -> Any:
    """Store ``value`` under ``name``; returns how it was arranged: None, "tensor", "tuple" and a
    length, or "dict" and its keys."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        # A view (an expanded baseline) is written once, not as what it is a view of.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return "tensor"
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    for key in keys:
        _store(f"{name}/{key}", value[key], tensors)
    return [type(value).__name__, keys]


def _restore(name: str, arranged: Any, tensors: dict[str, Tensor]) -> Any:
    if arranged is None:
        return None
    if arranged == "tensor":
        return tensors[name]
    kind, keys = arranged
    parts = {key: tensors[f"{name}/{key}"] for key in keys}
    if kind not in ("dict", "tuple") or not parts or len(parts) != len(keys):
        raise InputError(f"{name} is arranged as {arranged!r}")
    return parts if kind == "dict" else tuple(parts.values())
