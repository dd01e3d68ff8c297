"""Patterns (PatternNet, PatternAttribution): a unit's typical input direction, used in place of
its weights.

A unit's weights say what it has to look away from as well as what it looks for (Kindermans et al.
2017). Its pattern is the direction in its inputs that its output goes with. Forward the model is
what it is; backward, weights w are replaced by w ⊙ a (PatternAttribution, which Pattern-Guided
Integrated Gradients integrates) or by a (PatternNet). Gates of ReLUs and pools are those of the
real forward pass.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.files import write_tensors
from ...core.optional import optional
from ...core.options import check_choice
from ...core.shapes import describe, state_dtype
from ...core.torch_calls import Arguments, Function, Keywords
from ...core.values import part
from ...errors import InputError, ModelError
from ...model.autograd import gradients
from ...model.network import Network
from .base import Changed, During, check_open
from .fit_patterns import ESTIMATORS, Batch, PatternData, Sums, fitted, in_float64
from .linear_calls import LinearCall, Names, with_factor

_NEEDS = "Saving and loading patterns"
_FORMAT = 1
_SUMMING = 1e-12  # what the order of a sum in float64 may change, relative to its terms
_SAMPLE = 4096  # weights of a layer are looked at one by one, about so many; all of them in sums
KINDS = ("attribution", "signal")


@part
class Pattern:
    """One layer's: what it is called, the pattern (like its weight), and by what its weight is
    known again.

    Args:
        name: of the layer.
        values: the pattern, like the layer's weight.
        fingerprint: Σ w, Σ |w|, and a sum over some thousand weights that also tells their order.
        rounding: of the type the weights were in.
    """

    name: str
    values: Tensor
    fingerprint: tuple[float, float, float]
    rounding: float


@part
class Patterns:
    """A backward rule: what comes back through a layer goes through w ⊙ a, or through a, instead of
    through its weights w.

        a = (E₊[h y] − E₊[h] E[y]) / (w · (E₊[h y] − E₊[h] E[y])),     w · a = 1

    ``Patterns.fit(model, data)`` makes them; ``save`` and ``Patterns.load`` keep them.

    Linear layers and convolutions are meant, also functional calls that use the model's own
    parameters. All else keeps its derivative: transposed convolutions, normalisations, matrix
    products, and what torch does inside one call (``nn.MultiheadAttention``, recurrent kernels).
    The result is not complete and depends on how F is written down: the authors' own
    counter-example.

    Args:
        each: a pattern for every layer.
        estimator: which samples counted, as in ``fit``.
        kind: "attribution": what comes back goes through w ⊙ a (PatternAttribution); "signal":
            through a (PatternNet).

    Raises:
        ModelError: for a plain function, for compiled and scripted modules, and when a layer runs
            that has no pattern.
        InputError: for another model than the patterns were fitted on.

    Cost:
        nearly that of the ordinary gradient, and twice as much memory again as the weights. With
        ``optimize=True`` the model itself runs all the same: folded weights are others than the
        patterns are for.

    References:
        Kindermans et al., "Learning how to explain neural networks: PatternNet and
        PatternAttribution", arXiv 1705.05598.

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> patterns = ig.fields.Patterns.fit(model, torch.randn(100, 4))
        >>> ig.explain(model, torch.randn(5, 4), target=0, method="pattern_guided", patterns=patterns).values.shape
        torch.Size([5, 4])
    """

    each: tuple[Pattern, ...]
    estimator: str = "positive"
    kind: str = "attribution"

    layers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)

    def __repr__(self) -> str:
        shown = f"Patterns<{len(self.each)} layers, {self.estimator}>"
        return shown if self.kind == KINDS[0] else f"{shown[:-1]}, {self.kind}>"

    # --- making and keeping them ----------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        model: nn.Module,
        data: PatternData,
        estimator: str = "positive",
        *,
        batch_size: int = 64,
    ) -> Patterns:
        """Patterns of every linear layer and convolution that runs, from one pass over data.

        A convolution's samples are all its windows. Units that are never active, or always the
        same, get the pattern zero. Sums are in float64; neither batches nor the order of the data
        matter. The model runs in eval mode and is given back as it was.

        Args:
            model: whose layers are looked at.
            data: a tensor (N, \\*s), a dataset, or anything that yields batches, such as a
                DataLoader: tensors, or (inputs, …), of which the rest is not looked at; a tuple of
                inputs is handed on as several arguments, a dict by name.
            estimator: which samples count, and what E[y] is of:
                "positive": y > 0; E of what comes out, behind the ReLU where one follows at once
                (Schwarzenberg and Castle).
                "two-component": y > 0; E of y before the ReLU (the positive part of Kindermans et
                al.).
                "linear": all samples; a = cov[h, y] / var[y] (the linear estimator of Kindermans
                et al.).
            batch_size: rows per call, for a tensor or a dataset.

        Cost:
            a forward pass of the data, and three passes of each layer alone in float64, together
            some ten forward passes on a CPU; memory of the weights three times over in float64, and
            one layer's twice more.

        References:
            Kindermans et al. 2017; Schwarzenberg and Castle, arXiv 2007.10685, with their formula:
            in their published code E₊[h y] comes out as E₊[h] E₊[y], because (N, 1, 1) is
            multiplied with (N, 1), so that the pattern is E₊[h] over w · E₊[h].
        """
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"Patterns are those of a model's layers: give an nn.Module, not {type(model).__name__}."
            )
        check_choice("estimator", estimator, ESTIMATORS)
        if batch_size < 1:
            raise InputError(f"batch_size is at least 1, not {batch_size}.")
        check_open(model, "Fitting patterns")
        network = Network(model)
        with network.ready(), gradients(False):
            sums_by_layer = fitted(
                model, lambda inputs: _run(model, inputs), data, estimator, batch_size
            )
            patterns = tuple(
                _pattern(name, values, sums) for name, (values, sums) in sums_by_layer.items()
            )
        return cls(patterns, estimator)

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file: the patterns, and in its header what they are called and by
        what the model is known again."""
        write = optional("safetensors.torch", extra="save", needs=_NEEDS).save_file
        header = {
            "format": _FORMAT,
            "integrand": metadata.version("integrand"),
            "estimator": self.estimator,
            "kind": self.kind,
            "layers": [
                {
                    "name": pattern.name,
                    "shape": list(pattern.values.shape),
                    "fingerprint": list(pattern.fingerprint),
                    "rounding": pattern.rounding,
                }
                for pattern in self.each
            ],
        }
        tensors = {
            pattern.name: pattern.values.detach().cpu().contiguous().clone()
            for pattern in self.each
        }
        write_tensors(write, tensors, path, {"patterns": json.dumps(header)})

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None) -> Patterns:
        """Read patterns back, and check at once that they are this model's, if one is given.

        Args:
            path: what ``save`` wrote.
            model: which they have to be of, if one is given.

        Returns:
            The patterns.

        Raises:
            InputError: for files that hold no patterns, or those of another model.
            MissingExtra: without safetensors.
        """
        open_file = optional("safetensors", extra="save", needs=_NEEDS).safe_open
        if not Path(path).is_file():
            raise InputError(f"There is no file {str(path)!r}.")
        try:
            with open_file(str(path), framework="pt") as file:
                words = (file.metadata() or {}).get("patterns")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception as error:  # safetensors raises its own kinds, unnamed in its stubs
            raise InputError(
                f"{str(path)!r} cannot be read as a safetensors file: {error}"
            ) from error
        if words is None:
            raise InputError(f"{str(path)!r} holds tensors, but no patterns.")
        try:
            patterns = cls._read(json.loads(words), tensors, path)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{str(path)!r} has a header that is not that of patterns ({error!r})."
            ) from error
        if model is not None:
            patterns.check(model)
        return patterns

    @classmethod
    def _read(
        cls, header: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str | Path
    ) -> Patterns:
        if header["format"] > _FORMAT:
            raise InputError(
                f"{str(path)!r} was written by integrand {header['integrand']}, in a newer format: upgrade to read it."
            )
        patterns = []
        for layer in header["layers"]:
            values = tensors[layer["name"]]
            if list(values.shape) != layer["shape"]:
                raise InputError(
                    f"{str(path)!r} says that the pattern of layer {layer['name']!r} is {describe(layer['shape'])}, but it is "
                    f"{describe(values.shape)}: the file was changed."
                )
            first, second, third = layer["fingerprint"]
            patterns.append(
                Pattern(layer["name"], values, (first, second, third), float(layer["rounding"]))
            )
        return cls(tuple(patterns), header["estimator"], header["kind"])

    def check(self, model: nn.Module) -> None:
        """Check that ``model`` is the one these were fitted on.

        Raises:
            InputError: that names the first layer in which it is not.
        """
        weights = Names(model).weights()
        for pattern in self.each:
            if pattern.name not in weights:
                raise InputError(
                    f"The patterns are for another model: they have a layer {pattern.name!r} ({describe(pattern.values.shape)}), which this "
                    f"{type(model).__name__} has not. Fit them on this one: ig.fields.Patterns.fit(model, data)."
                )
            weight = weights[pattern.name]
            if weight.shape != pattern.values.shape:
                raise InputError(
                    f"The patterns are for another model: that of layer {pattern.name!r} is {describe(pattern.values.shape)}, the layer's weight "
                    f"{describe(weight.shape)}. Fit them on this one: ig.fields.Patterns.fit(model, data)."
                )
            # Weights that are kept elsewhere until they are needed cannot be looked at now.
            if not weight.is_meta and not _known_again(pattern, weight):
                raise InputError(
                    f"The patterns are for another model: layer {pattern.name!r} has other weights than when they were fitted. "
                    "Fit them again after training: ig.fields.Patterns.fit(model, data)."
                )

    # --- the rule -------------------------------------------------------------------------------------------------

    def bound(self, module: nn.Module | None) -> During:
        if module is None:
            raise ModelError(
                "Patterns belong to a model's layers: explain the nn.Module itself, not a function."
            )
        check_open(module, "Patterns: the backward pass")
        with gradients(False):
            self.check(module)
        names = Names(module)
        factors = _Factors(self)

        def change(func: Function, args: Arguments, kwargs: Keywords) -> Any:
            match = LinearCall.of(func, args, kwargs)
            if match is None or not match[1].requires_grad:
                return NotImplemented
            call, h = match
            name = names(call.weight)
            return (
                NotImplemented
                if name is None
                else with_factor(h, call, factors.of(name, call.weight))
            )

        @contextmanager
        def during() -> Iterator[None]:
            with names.listening(), Changed(change):
                yield

        return during


class _Factors:
    """What is in each weight's place on the way back, kept for as long as the weight is what it
    was."""

    def __init__(self, patterns: Patterns) -> None:
        self.patterns = {pattern.name: pattern.values for pattern in patterns.each}
        self.weighs = patterns.kind == "attribution"
        self._cache: dict[str, tuple[weakref.ref[Tensor], int, Tensor]] = {}

    def of(self, name: str, weight: Tensor) -> Tensor:
        version = 0 if weight.is_inference() else weight._version
        known, then, factor = self._cache.get(name, (None, 0, weight))
        if known is not None and known() is weight and then == version:
            return factor
        pattern = self.patterns.get(name)
        if pattern is None:
            raise ModelError(
                f"Layer {name!r} runs, but has no pattern: it did not when the patterns were fitted. Fit them on data that takes the "
                "same way through the model."
            )
        with torch.no_grad():
            # In the pattern's type: a product of half-precision weights would be rounded once more
            # than it need be.
            factor = pattern.to(weight.device)
            if self.weighs:
                factor = factor * weight.detach().to(factor.dtype)
        self._cache[name] = (weakref.ref(weight), version, factor)
        return factor


def _run(model: nn.Module, inputs: Batch) -> Any:
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _pattern(name: str, values: Tensor, sums: Sums) -> Pattern:
    stored = values.to(state_dtype(sums.dtype)).cpu()
    return Pattern(name, stored, _fingerprint(sums.weight), float(torch.finfo(sums.dtype).eps))


def _fingerprint(weight: Tensor) -> tuple[float, float, float]:
    w = weight.detach().flatten()
    w = w.cpu() if w.device.type == "mps" else w
    sample = in_float64(w[:: max(1, len(w) // _SAMPLE)])
    waves = torch.cos(1.7 * torch.arange(len(sample), dtype=torch.float64, device=sample.device))
    return (
        float(w.sum(dtype=torch.float64)),
        float(w.abs().sum(dtype=torch.float64)),
        float((sample * waves).sum()),
    )


def _known_again(pattern: Pattern, weight: Tensor) -> bool:
    """Whether weights are those of the pattern, as far as the types they were and are in can
    tell."""
    now = _fingerprint(weight)
    rounding = max(pattern.rounding, float(torch.finfo(weight.dtype).eps))
    room = (rounding + _SUMMING) * max(now[1], pattern.fingerprint[1])
    return all(abs(a - b) <= room for a, b in zip(now, pattern.fingerprint, strict=True))
