"""Access to users' encoders and decoders, in batches; modules are given back as they were.

    E: (N, \\*s) → (N, \\*c)        a code for every row           D: (N, \\*c) → (N, \\*s)        a row for every code

A codec is a pair (encode, decode) of functions or modules, or an object with the methods ``encode``
and ``decode``. What they return may be a tensor, a tuple that begins with one, or what image
autoencoders return: a distribution or ``latents`` from the encoder, a ``sample`` from the decoder
(read by name, no package is needed). Nothing is drawn at random: of a distribution its mode is
taken. Latent scaling factors are left aside, since no path here depends on a common factor of all
coordinates.

A codec speaks the units of the inputs. One that wants others, [−1, 1] where the model takes
normalised images, is wrapped in a module:

    class Rescaled(nn.Module):
        def __init__(self, vae): super().__init__(); self.vae = vae
        def encode(self, x): return self.vae.encode(2 * x * std + 2 * mean - 1)
        def decode(self, z): return ((self.vae.decode(z).sample + 1) / 2 - mean) / std

In a module, or in methods of one, dropout and the like are switched off while it runs; into a
function that merely uses a module nobody can look.

Inside the paths a code is a flat row (N, L). Calls hold as many rows as are fast and fit, like
those of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...core.segment import Evaluation
from ...core.shapes import describe, total
from ...errors import DetachedModel, InputError, ModelError, NonFiniteGradient, ShapeError
from ...model.autograd import gradients
from ...model.batching import packer_for
from ...model.network import Network

Function = Callable[[Tensor], Any]


class Autoencoder(Protocol):
    """Protocol of a codec: ``encode`` rows (N, \\*s) to codes (N, \\*c), and ``decode`` back."""

    def encode(self, x: Tensor) -> Any: ...

    def decode(self, z: Tensor) -> Any: ...


CodecLike = Autoencoder | Sequence[Function]
"""An encoder and a decoder: a pair (encode, decode), or an object with both as methods."""


def halves(codec: object) -> tuple[Function, Function]:
    """The encoder and the decoder of a codec.

    Raises:
        InputError: where there are none.
    """
    if isinstance(codec, tuple | list) and len(codec) == 2 and all(map(callable, codec)):
        return codec[0], codec[1]
    encode, decode = getattr(codec, "encode", None), getattr(codec, "decode", None)
    if callable(encode) and callable(decode):
        return encode, decode
    raise InputError(
        f"A codec is a pair (encode, decode) of functions or modules, or an object with both as methods, not {_kind(codec)}."
    )


class Borrowed:
    """A codec at work on inputs like ``x`` (B, \\*s).

    Modules are in eval mode and their parameters ask for no gradients during each call only:
    between calls, and after an error, they are as they were.
    """

    def __init__(self, codec: object, x: Tensor) -> None:
        self.encoder, self.decoder = halves(codec)
        self.like = x[0]
        self.code: torch.Size | None = None
        networks = [Network(function) for function in (self.encoder, self.decoder)]
        # Half and half may be methods of one module, which is then borrowed once.
        self.networks = list(
            {
                tuple(map(id, network.roots)): network for network in networks if network.roots
            }.values()
        )
        self.packer = packer_for(
            self.networks[-1].roots[0] if self.networks else codec, None, "codec"
        )

    # --- what paths ask -------------------------------------------------------------------------------------------

    def codes(self, rows: Tensor) -> Tensor:
        """E of rows (N, \\*s), flat (N, L)."""
        chunks: list[Tensor] = []

        def call(part: slice) -> None:
            with self._running(grad=False):
                codes = _code_of(
                    self.encoder(_as_parameters_dtype(rows[part].clone(), self.encoder))
                )
            chunks.append(self._flat(codes, part.stop - part.start))

        self.packer.run(len(rows), call, self.like, "encode")
        return torch.cat(chunks)

    def ends(self, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """E of starts (R, B, \\*s) and of ends (B, \\*s), one for every path (R·B, L); starts that
        all examples share are asked once."""
        references, batch = start.shape[:2]
        if batch > 1 and start.stride(1) == 0:
            begins = self.codes(start[:, 0]).repeat_interleave(batch, 0)
        else:
            begins = self.codes(start.flatten(0, 1))
        return begins, self.codes(end).repeat(references, 1)

    def rows(self, codes: Tensor) -> Tensor:
        """D of flat codes (N, L): rows (N, \\*s)."""
        rows = self.like.new_empty(len(codes), *self.like.shape)

        def call(part: slice) -> None:
            with self._running(grad=False):
                decoded = self._decoded(codes[part])
            rows[part] = decoded

        self.packer.run(len(codes), call, self.like, "decode")
        return rows

    def pulled(
        self, codes: Tensor, evaluate: Callable[[slice, Tensor], Evaluation]
    ) -> tuple[Tensor, Evaluation, Tensor]:
        """D of codes (N, L), what ``evaluate`` computes there, and its gradient pulled back to the
        codes: J_Dᵀ ∇F(D(z)) (N, L)."""
        rows = self.like.new_empty(len(codes), *self.like.shape)
        value, gradient, slope = (
            codes.new_empty(len(codes)),
            torch.empty_like(rows),
            torch.empty_like(codes),
        )

        def call(part: slice) -> None:
            with self._running(grad=True):
                leaf = codes[part].clone().requires_grad_()
                decoded = self._decoded(leaf)
                with gradients(False):
                    evaluation = evaluate(part, decoded.detach())
                pulled = _pull_back(decoded, leaf, evaluation.gradient)
            rows[part], slope[part] = decoded.detach(), pulled
            value[part], gradient[part] = evaluation.value, evaluation.gradient

        self.packer.run(len(codes), call, self.like, "pull")
        return rows, Evaluation(value, gradient), slope

    def stretch(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The energy E (N,) of the decoded polylines of codes (N, T, L), and its slope ∂E/∂z (N, T,
        L).

        E = T/2 Σ_i ‖D(z_{i+1}) − D(z_i)‖². The slope at an inner point is −T · J_Dᵀ(D(z_{i+1}) − 2
        D(z_i) + D(z_{i−1})). Pieces are taken in calls that fit; the points between two calls are
        decoded in both, so that no polyline is held decoded.
        """
        lines, points, _ = codes.shape
        flat = codes.flatten(0, 1)
        energy, slope = codes.new_zeros(lines), torch.zeros_like(flat)

        def call(part: slice) -> None:
            piece = torch.arange(part.start, part.stop, device=codes.device)
            line = piece // (points - 1)
            left = piece + line  # every line has a point more than pieces
            point, place = torch.unique(torch.cat([left, left + 1]), return_inverse=True)
            with self._running(grad=True):
                leaf = flat[point].clone().requires_grad_()
                decoded = self._decoded(leaf)
                step = decoded[place[len(piece) :]] - decoded[place[: len(piece)]]
                piece_energy = points / 2 * total(step.square(), 1)
                pulled = _pull_back(piece_energy, leaf, torch.ones_like(piece_energy))
            energy.index_add_(0, line, piece_energy.detach())
            slope.index_add_(0, point, pulled)

        self.packer.run(lines * (points - 1), call, self.like, "stretch")
        return energy, slope.reshape(codes.shape)

    # --- one call -------------------------------------------------------------------------------------------------

    @contextmanager
    def _running(self, *, grad: bool) -> Iterator[None]:
        with ExitStack() as stack:
            for network in self.networks:
                stack.enter_context(network.ready())
            stack.enter_context(gradients(grad))
            yield

    def _flat(self, codes: Tensor, rows: int) -> Tensor:
        if codes.ndim == 0 or len(codes) != rows:
            raise ModelError(
                f"The encoder gave codes of shape {describe(codes.shape)} for {rows} rows; it gives one code per row."
            )
        if not codes.is_floating_point():
            raise ModelError(
                f"The encoder gave {str(codes.dtype).removeprefix('torch.')} codes; a path needs real numbers. Take them before they "
                "are quantised."
            )
        if self.code not in (None, codes.shape[1:]):
            raise ModelError(
                f"The encoder gave codes of shape {describe(codes.shape[1:])} after codes of shape {describe(self.code or ())}."
            )
        self.code = codes.shape[1:]
        _check_finite(codes, "encoder")
        return codes.detach().to(self.like).reshape(rows, -1)

    def _decoded(self, codes: Tensor) -> Tensor:
        assert self.code is not None
        # A copy: the decoder may begin with a layer that works in place.
        decoded = _rows_of(
            self.decoder(_as_parameters_dtype(codes.reshape(-1, *self.code).clone(), self.decoder))
        )
        expected = (len(codes), *self.like.shape)
        if decoded.shape != expected:
            raise ShapeError(
                f"The decoder gave {describe(decoded.shape)} for codes of {describe(expected)} inputs: what is decoded must have the shape "
                f"that was encoded, {describe(self.like.shape)} each. Resize or pad the inputs to a size that the codec keeps, or crop "
                "inside the decoder."
            )
        _check_finite(decoded, "decoder")
        return decoded.to(self.like)


def _pull_back(output: Tensor, leaf: Tensor, gradient: Tensor) -> Tensor:
    """Jᵀ · gradient, J the derivative of what was made of ``leaf``."""
    slope = (
        torch.autograd.grad(output, leaf, gradient, allow_unused=True)[0]
        if output.requires_grad
        else None
    )
    if slope is None:
        raise DetachedModel(
            "No gradient leads from what was decoded to its code: the decoder leaves torch, detaches, or runs under no_grad."
        )
    _check_finite(slope, "decoder's derivative")
    return slope


def _code_of(output: object) -> Tensor:
    """The code in what an encoder returns: a tensor, the mode of a distribution, ``latents``, or
    the first of several."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list) and output:
        return _code_of(output[0])
    for name in ("latent_dist", "latents"):
        inner = getattr(output, name, None)
        if inner is not None:
            return _code_of(inner)
    for name in ("mode", "mean"):  # of a distribution
        inner = getattr(output, name, None)
        inner = inner() if callable(inner) else inner
        if isinstance(inner, Tensor):
            return inner
    raise ModelError(
        f"The encoder returned {_kind(output)}; a tensor, a tuple that begins with one, or an object with latent_dist or latents is "
        "understood. Wrap it: (lambda x: …, decode)."
    )


def _rows_of(output: object) -> Tensor:
    """The rows in what a decoder returns: a tensor, its ``sample``, or the first of several."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list) and output:
        return _rows_of(output[0])
    sample = getattr(output, "sample", None)
    if isinstance(sample, Tensor):
        return sample
    raise ModelError(
        f"The decoder returned {_kind(output)}; a tensor, a tuple that begins with one, or an object with the tensor sample is "
        "understood. Wrap it: (encode, lambda z: …)."
    )


def _as_parameters_dtype(rows: Tensor, function: Function) -> Tensor:
    """Rows in the type of a module's parameters, where there are any; a codec may be in half
    precision."""
    module = getattr(function, "__self__", function)
    if isinstance(module, nn.Module):
        for parameter in module.parameters():
            if parameter.is_floating_point():
                return rows.to(parameter.dtype)
    return rows


def _check_finite(numbers: Tensor, who: str) -> None:
    # A sum is finite only if every term is; only the rare infinite sum is looked at term by term.
    if not bool(torch.isfinite(numbers.detach().sum())) and not bool(torch.isfinite(numbers).all()):
        raise NonFiniteGradient(
            f"The {who} gave NaN or infinity: check that it takes the inputs in the units they come in."
        )


def _kind(value: object) -> str:
    return f"a {type(value).__name__}" + (
        f" of {len(value)}" if isinstance(value, tuple | list) else ""
    )
