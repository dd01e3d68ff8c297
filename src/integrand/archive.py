"""Attributions on disk: one safetensors file, numbers as tensors and everything else as JSON in its header.

Reading runs no code from the file: a method and a target come back as the words they printed as.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from .attribution import Attribution
from .cost import Cost
from .errors import InputError, MissingExtra
from .normalisation import Normalisation
from .walk import Frames

_FORMAT = 1
_STRUCTURED = ("values", "inputs", "shares", "baselines")
_PLAIN = ("output", "weights", "change", "residual", "error", "converged", "fitness")


class Words(str):
    """Something that was written down as it printed; it prints the same and runs nothing.

    ``complete``: of a method, whether its maps are meant to add up.
    """

    complete: bool = True

    def __repr__(self) -> str:
        return str(self)


def save(attribution: Attribution, path: str | Path) -> None:
    """Write an attribution to ``path``. Errors: ``MissingExtra`` without safetensors."""
    write = _safetensors("save_file")
    tensors: dict[str, Tensor] = {}
    arranged: dict[str, Any] = {}
    for name in _STRUCTURED:
        arranged[name] = _put(name, getattr(attribution, name), tensors)
    for name in _PLAIN:
        _put(name, getattr(attribution, name), tensors)
    for name, note in attribution.notes.items():
        _put(f"notes/{name}", note, tensors)
    if attribution.frames is not None:
        _put("frames/clock", attribution.frames.clock, tensors)
        _put("frames/points", attribution.frames.points, tensors)
    header = {
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
    }
    write(tensors, str(path), metadata={"integrand": json.dumps(header)})


def load(path: str | Path) -> Attribution:
    """Read an attribution back; its method and target are words. Errors: ``InputError`` for files that hold none."""
    opened = _safetensors("safe_open")
    if not Path(path).is_file():
        raise InputError(f"There is no file {str(path)!r}.")
    try:
        with opened(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {})["integrand"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except KeyError:
        raise InputError(f"{str(path)!r} holds tensors, but no attribution.") from None
    except Exception as error:  # safetensors raises its own kinds, unnamed in its stubs
        raise InputError(f"{str(path)!r} cannot be read as a safetensors file: {error}") from error
    try:
        return _attribution(header, tensors, path)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{str(path)!r} has a header that is not an attribution's ({error!r}).") from error


def _attribution(header: Any, tensors: dict[str, Tensor], path: str | Path) -> Attribution:
    if header["format"] > _FORMAT:
        raise InputError(
            f"{str(path)!r} was written by integrand {header['integrand']}, in a newer format: upgrade to read it."
        )
    frames = None
    if "frames/clock" in tensors:
        frames = Frames(tensors["frames/clock"], tensors["frames/points"])
    normalisation = header["normalisation"]
    method = Words(header["method"])
    method.complete = header.get("complete", True)  # files of 0.1 do not say
    return Attribution(
        **{name: _take(name, header["arranged"][name], tensors) for name in _STRUCTURED},
        **{name: tensors.get(name) for name in _PLAIN},  # type: ignore[arg-type]
        reasons=tuple(header["reasons"]),
        criterion=header["criterion"],
        names=tuple(header["names"]),
        notes={name: tensors[f"notes/{name}"] for name in header["notes"]},
        frames=frames,
        cost=Cost(**header["cost"]),
        resolution=header.get("resolution", 0.0),
        method=method,
        target=Words(header["target"]),
        normalisation=normalisation and Normalisation(tuple(normalisation["mean"]), tuple(normalisation["std"])),
    )


def _put(name: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """Store ``value`` under ``name``; returns how it was arranged: None, "tensor", "tuple" and a length, or "dict" and its keys."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        # A view (an expanded baseline) is written once, not as what it is a view of.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return "tensor"
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    for key in keys:
        _put(f"{name}/{key}", value[key], tensors)
    return [type(value).__name__, keys]


def _take(name: str, arranged: Any, tensors: dict[str, Tensor]) -> Any:
    if arranged is None:
        return None
    if arranged == "tensor":
        return tensors[name]
    kind, keys = arranged
    parts = {key: tensors[f"{name}/{key}"] for key in keys}
    return parts if kind == "dict" else tuple(parts.values())


def _safetensors(name: str) -> Any:
    try:
        if name == "save_file":
            from safetensors.torch import save_file

            return save_file
        from safetensors import safe_open
    except ImportError:
        raise MissingExtra("safetensors", "save", "Saving and loading attributions") from None
    return safe_open
