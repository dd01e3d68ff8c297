"""A forward pass of a decoder, with what was written into its residual stream and who read it.

Hooks only listen, and hand one tensor on in place of another: the model is otherwise its own.
Norms, projections and output projections act on each token by itself, so that whatever is needed of
single heads is computed afterwards, from what is recorded of whole layers, a few tokens at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, NonFiniteGradient
from .architectures import Decoder, DecoderBlock, bias_of, is_plain, matrix_of

INPUT, ATTENTION, MLP = "input", "attention", "mlp"

Branch = tuple[str, int]
"""What writes into the stream: ("input", 0), ("attention", layer), ("mlp", layer)."""


@dataclass(eq=False)
class StreamRecording:
    """What one forward pass of N rows of T tokens had in the stream, one entry for each layer.

    Attributes:
        start: (N, T, D) the stream before the first block.
        attention_stream: (N, T, D) what queries, keys and values read.
        projected: (N, T, out) the output of each projection.
        mixed: (N, T, H·d) the heads, before the output projection.
        raw: (N, T, D) what the output projection makes of them.
        attention: (N, T, D) what is added to the stream.
        mlp_stream: (N, T, D) what the MLP reads.
        mlp_input: (N, T, D) the same behind its norm.
        mlp: (N, T, D) what is added to the stream.
        final: (N, T, D) the finished stream.
    """

    start: Tensor | None = None
    attention_stream: list[Tensor] = field(default_factory=list)
    projected: list[list[Tensor]] = field(default_factory=list)
    mixed: list[Tensor] = field(default_factory=list)
    raw: list[Tensor] = field(default_factory=list)
    attention: list[Tensor] = field(default_factory=list)
    mlp_stream: list[Tensor] = field(default_factory=list)
    mlp_input: list[Tensor] = field(default_factory=list)
    mlp: list[Tensor] = field(default_factory=list)
    final: Tensor | None = None

    def branch(self, branch: Branch) -> Tensor:
        """What a branch added to the stream."""
        kind, layer = branch
        if kind == INPUT:
            return present(self.start)
        return self.attention[layer] if kind == ATTENTION else self.mlp[layer]


def present(tensor: Tensor | None) -> Tensor:
    """What a pass has recorded.

    Raises:
        ModelError: where it did not come by.
    """
    if tensor is None:
        raise ModelError(
            "A module that the Architecture names did not run: name those that do when the model reads a text."
        )
    return tensor


# --- hooks ------------------------------------------------------------------------------------------------------------


class Hooks:
    """Hooks on modules that are there for the time of one pass. While one of them acts, the others
    look away: it may run modules itself."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.acting = False

    def _act(self, act: Callable[[Tensor], Tensor | None], tensor: Tensor) -> Tensor | None:
        self.acting = True
        try:
            return act(tensor)
        finally:
            self.acting = False

    def before(self, module: nn.Module, act: Callable[[Tensor], Tensor | None]) -> None:
        """Let ``act`` see the tensor that a module is given, and put another in its place."""

        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            if self.acting:
                return None
            if args and isinstance(args[0], Tensor):
                replaced = self._act(act, args[0])
                return None if replaced is None else ((replaced, *args[1:]), kwargs)
            name = next((key for key in kwargs if isinstance(kwargs[key], Tensor)), None)
            if name is None:
                raise ModelError(f"A {type(module).__name__} of the Architecture reads no tensor.")
            replaced = self._act(act, kwargs[name])
            return None if replaced is None else (args, {**kwargs, name: replaced})

        self.stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def after(self, module: nn.Module, act: Callable[[Tensor], Tensor | None]) -> None:
        """The same with the tensor that it returns."""

        def hook(module: nn.Module, args: object, output: object) -> Tensor | None:
            if self.acting:
                return None
            if not isinstance(output, Tensor):
                raise ModelError(
                    f"A {type(module).__name__} of the Architecture returns a {type(output).__name__}, and no tensor: name the module inside "
                    "it that does."
                )
            return self._act(act, output)

        self.stack.callback(module.register_forward_hook(hook).remove)


@contextmanager
def recorded(
    decoder: Decoder, branch: Branch | None = None, replacement: Tensor | None = None
) -> Iterator[StreamRecording]:
    """While this lasts a forward pass is recorded; with ``branch``, ``replacement`` (N, T, D) is
    what that adds to the stream."""
    record, hooks = StreamRecording(), Hooks()

    def given(which: Branch, tensor: Tensor) -> Tensor:
        return tensor if branch != which or replacement is None else replacement.to(tensor)

    def begins(stream: Tensor) -> Tensor:
        record.start = given((INPUT, 0), stream)
        return record.start

    with hooks.stack:
        hooks.before(decoder.blocks[0].module, begins)
        for layer, block in enumerate(decoder.blocks):
            _record_attention(hooks, record, block, layer, given)
            _record_mlp(hooks, record, block, layer, given)

        def ends(stream: Tensor) -> Tensor:
            record.final = stream.view_as(stream)  # whose gradient is that of this reader alone
            return record.final

        hooks.before(decoder.final_norm, ends)
        yield record


Given = Callable[[Branch, Tensor], Tensor]


def _record_attention(
    hooks: Hooks, record: StreamRecording, block: DecoderBlock, layer: int, given: Given
) -> None:
    def reads(stream: Tensor) -> None:
        record.attention_stream.append(stream)
        record.projected.append([])

    hooks.before(
        block.projections[0] if block.attention_norm is None else block.attention_norm, reads
    )
    for projection in block.projections:
        hooks.after(projection, lambda output: record.projected[layer].append(output))
    hooks.before(block.attention_output, record.mixed.append)
    hooks.after(block.attention_output, record.raw.append)

    def adds(output: Tensor) -> Tensor:
        record.attention.append(given((ATTENTION, layer), output))
        return record.attention[layer]

    hooks.after(block.attention_added, adds)


def _record_mlp(
    hooks: Hooks, record: StreamRecording, block: DecoderBlock, layer: int, given: Given
) -> None:
    if block.mlp_norm is not None and block.mlp_norm is not block.attention_norm:
        hooks.before(block.mlp_norm, record.mlp_stream.append)

    def reads(normed: Tensor) -> Tensor:
        if block.mlp_norm is None:
            record.mlp_stream.append(normed)
        elif block.mlp_norm is block.attention_norm:
            record.mlp_stream.append(record.attention_stream[layer])
        record.mlp_input.append(normed.view_as(normed))
        return record.mlp_input[layer]

    hooks.before(block.mlp, reads)

    def adds(output: Tensor) -> Tensor:
        record.mlp.append(given((MLP, layer), output))
        return record.mlp[layer]

    hooks.after(block.mlp_added, adds)


def check_stream(decoder: Decoder, record: StreamRecording) -> None:
    """Check that the stream is the sum of what is said to be written into it.

    Raises:
        ModelError: that says where it is not.
        NonFiniteGradient: where what is read is not finite.
    """
    layers = len(decoder.blocks)
    lists = (record.attention_stream, record.raw, record.attention, record.mlp_stream, record.mlp)
    if any(len(entries) != layers for entries in lists):
        raise ModelError(
            f"Not every module that the Architecture names runs once in a forward pass of {decoder.model.name}: name those that do."
        )
    if record.mixed[0].shape[-1] % decoder.heads:
        raise ModelError(
            f"{decoder.heads} heads do not fill the {record.mixed[0].shape[-1]} inputs of the output projection of {decoder.model.name}: say "
            "heads= in its Architecture."
        )
    stream = present(record.start)
    size = stream.abs()
    for layer in range(layers):
        added, further = record.attention[layer], record.mlp[layer]
        _check(decoder, stream, record.attention_stream[layer], size, f"attention of block {layer}")
        size = size + added.abs()
        read = stream if decoder.parallel else stream + added
        _check(decoder, read, record.mlp_stream[layer], size, f"MLP of block {layer}")
        stream, size = stream + added + further, size + further.abs()
    _check(decoder, stream, present(record.final), size, "final norm")


def _check(decoder: Decoder, summed: Tensor, read: Tensor, size: Tensor, where: str) -> None:
    """Check a sum of terms, each as large as ``size`` at most, but for the rounding of all of
    them."""
    _check_finite(decoder, read, where)
    allowed = 2 * len(decoder.blocks) * torch.finfo(read.dtype).eps * size
    if summed.shape == read.shape and bool(((summed - read).abs() <= allowed).all()):
        return
    raise ModelError(
        f"What the {where} of {decoder.model.name} reads is not the sum of what its Architecture says was written before: describe what is "
        "added to the stream (attention_added=, mlp_added=), and whether blocks are parallel."
    )


def _check_finite(decoder: Decoder, read: Tensor, where: str) -> None:
    if not bool(read.isfinite().all()):
        raise NonFiniteGradient(
            f"What the {where} of {decoder.model.name} reads is not finite: look for NaN and infinity in its weights, or run it in another "
            "type, for float16 ends at 65,504."
        )


def check_readers(matrices: Matrices, record: StreamRecording) -> None:
    """Check that layers make of the stream what is computed of it for single heads: that nothing but
    its norm stands between the stream and a reader, and that projections are linear.

    Raises:
        ModelError: that says where something else is computed, by a hook or by the layer itself.
    """
    decoder = matrices.decoder
    for layer, block in enumerate(decoder.blocks):
        stream = record.attention_stream[layer]
        normed = stream if block.attention_norm is None else block.attention_norm(stream)
        for module, output in zip(block.projections, record.projected[layer], strict=True):
            made = matrices.apply(module, normed)
            _compare(decoder, made, output, f"a projection of block {layer}")
            matrices.release(module)  # of use to edges alone
        mixed, raw = record.mixed[layer], record.raw[layer]
        added = matrices.apply(block.attention_output, mixed)
        if block.normed_heads:
            added = added * _gain(block, raw)
        _compare(decoder, added, record.attention[layer], f"the output projection of block {layer}")
        stream = record.mlp_stream[layer]
        normed = stream if block.mlp_norm is None else block.mlp_norm(stream)
        _compare(decoder, normed, record.mlp_input[layer], f"the norm of the MLP of block {layer}")


def _compare(decoder: Decoder, computed: Tensor, seen: Tensor, where: str) -> None:
    """Check what was computed of a layer's input against what the model had, in relative L2."""
    half = seen.dtype in (torch.float16, torch.bfloat16)
    apart = (computed.float() - seen.float()).norm()
    if bool(apart <= (_HALF if half else _SINGLE) * seen.float().norm()):
        return
    raise ModelError(
        f"What comes out of {where} of {decoder.model.name} is not what its Architecture and its weights say: take off hooks of your own "
        "there, and put linear layers in the place of those that round or clip what goes into them."
    )


_SINGLE, _HALF = 1e-3, 2e-2
"""Rounding of a layer, of TF32 on GPUs and of half precision; other computations miss far more."""


# --- single heads, from what is recorded ------------------------------------------------------------------------------


@dataclass(eq=False)
class Matrices:
    """The matrices of a decoder's linear layers, as they are needed."""

    decoder: Decoder
    known: dict[nn.Module, Tensor] = field(default_factory=dict)
    biases: dict[nn.Module, Tensor] = field(default_factory=dict)

    def of(self, module: nn.Module, width: int, like: Tensor) -> Tensor:
        """The matrix (out, ``width``) of a linear layer."""
        if module not in self.known:
            self.known[module] = matrix_of(module, width, like)
        return self.known[module]

    def bias(self, module: nn.Module, width: int, like: Tensor) -> Tensor:
        """What a linear layer (out,) makes of nothing."""
        if module not in self.biases:
            self.biases[module] = bias_of(module, width, like)
        return self.biases[module]

    def release(self, module: nn.Module) -> None:
        """Forget a matrix that is a copy, and takes memory of its own."""
        if not is_plain(module):
            self.known.pop(module, None)

    def apply(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """What a linear layer makes of inputs, by its matrix and its bias."""
        width = inputs.shape[-1]
        matrix = self.of(module, width, inputs)
        return inputs.to(matrix) @ matrix.T + self.bias(module, width, inputs)

    def written(self, layer: int, mixed: Tensor, raw: Tensor) -> Tensor:
        """What each head (N, H, T, D) writes into the stream.

            s_h = W_h z_h,  behind an RMS norm  γ ⊙ (W_h z_h + b / H)  with the scale γ that the norm has here

        A bias b belongs to no head; behind a norm, which scales it from prompt to prompt in
        another way, every head has an equal share of it.
        """
        block = self.decoder.blocks[layer]
        matrix = self.of(block.attention_output, mixed.shape[-1], mixed)
        count = self.decoder.heads
        heads = mixed.reshape(*mixed.shape[:-1], count, -1)
        parts = torch.einsum(
            "nthd,ohd->nhto", heads, matrix.reshape(len(matrix), count, -1).to(heads)
        )
        if not block.normed_heads:
            return parts
        shared = self.bias(block.attention_output, mixed.shape[-1], mixed) / count
        return (parts + shared.to(parts)) * _gain(block, raw)[:, None]


def _gain(block: DecoderBlock, raw: Tensor) -> Tensor:
    """The scale that the RMS norm behind a block's heads has for their sum ``raw``.

    Such a norm knows of a vector only its mean square: it scales the vector of equal entries with
    the same mean square as it scales this one.
    """
    # In float32 at least: the square of 256 is too large for float16.
    wide = raw if raw.dtype == torch.float64 else raw.float()
    size = wide.square().mean(-1, keepdim=True).sqrt()
    least = max(torch.finfo(raw.dtype).tiny, torch.finfo(wide.dtype).tiny ** 0.5)
    size = size.clamp_min(least).to(raw.dtype)
    gain: Tensor = block.attention_added(size.expand_as(raw)) / size
    return gain


@dataclass(eq=False)
class Written:
    """What every source wrote into the stream in one pass, kept by layers.

    ``at`` makes the single sources of some tokens of it.
    """

    matrices: Matrices
    record: StreamRecording

    def at(self, tokens: slice) -> Tensor:
        """(N, S, t, D) what every source wrote at some tokens."""
        record = self.record
        start = present(record.start)
        parts = [start[:, None, tokens]]
        for layer in range(len(record.mlp)):
            heads = self.matrices.written(
                layer, record.mixed[layer][:, tokens], record.raw[layer][:, tokens]
            )
            parts += [heads, record.mlp[layer][:, None, tokens]]
        return torch.cat([part.to(start) for part in parts], 1)


def pulled_back(norm: nn.Module | None, stream: Tensor, gradient: Tensor) -> Tensor:
    """The gradient (J, …, D) at a stream (…, D), of J readers behind its norm with ``gradient`` (J,
    …, D) there."""
    if norm is None:
        return gradient
    with torch.enable_grad():
        points = stream.detach().expand_as(gradient).contiguous().requires_grad_()
        (slope,) = torch.autograd.grad(norm(points), points, gradient.to(points))
    return slope
