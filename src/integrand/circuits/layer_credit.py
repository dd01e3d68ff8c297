"""Between which layers an answer appears: what every layer writes into the stream that is read at the end.

    r = s_input + Σ_l ( Σ_h s_head(l, h) + s_mlp(l) )                          the finished stream, biases left out
    credit(u) = ∫₀¹ ∂F/∂r (r(α)) · ds_u/dα dα                                  Σ_u credit(u) = F(clean) − F(corrupt)
    lens(l) = F of the stream behind layer l, read as if it were finished       Σ_l (lens(l) − lens(l − 1)) = F − lens(input)

The path goes straight in the input, from corrupt to clean, and its corners are taken to the finished
stream; between two corners all sources move straight, so that their shares of each piece add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.formatting import number, percent
from ..core.frames import frame_of
from ..core.options import real, whole
from ..errors import DetachedModel
from ..integration.cost import Cost
from ..model.autograd import gradients, slopes
from ..rules.quadrature import GaussLegendre
from ..text.models import ModelLike, TokenizerLike
from .api import job_of
from .architectures import Architecture
from .graph import CircuitGraph
from .pairs import Metric, Prompts
from .scoring import Contrast, check_finite
from .stream import INPUT, Hooks, StreamRecording, Written, present, recorded


@dataclass(frozen=True, eq=False, repr=False)
class LayerCredit:
    """What every node writes of F(clean) − F(corrupt) into the finished stream, for P pairs.

    Attributes:
        graph: the nodes by name.
        scores: (P, S) of ``graph.sources``, in units of F; they add up to the change.
        lens_clean: (P, L + 1) F of the clean prompts, read off the stream before the first layer
            and behind each: the last is F itself.
        lens_corrupt: (P, L + 1) the same of the corrupt ones.
        metric: F, to readers.
        cost: of it.
    """

    graph: CircuitGraph
    scores: Tensor
    lens_clean: Tensor
    lens_corrupt: Tensor
    metric: str
    cost: Cost

    @property
    def change(self) -> Tensor:
        """(P,) F(clean) − F(corrupt)."""
        return self.lens_clean[:, -1] - self.lens_corrupt[:, -1]

    @property
    def residual(self) -> Tensor:
        """(P,) what the credits miss of the change: the error of the integral, and no more."""
        return self.change - self.scores.sum(1)

    @property
    def gap(self) -> Tensor:
        """(P,) |residual| / |change|; NaN where nothing changes."""
        return self.residual.abs() / self.change.abs()

    @property
    def layers(self) -> Tensor:
        """(P, L + 1) credit of the input, and of each layer: the sum over its heads and its MLP."""
        by_layer = self.scores[:, 1:].reshape(len(self.scores), self.graph.layers, -1).sum(-1)
        return torch.cat([self.scores[:, :1], by_layer], 1)

    @property
    def heads(self) -> Tensor:
        """(P, L, H) credit of every head."""
        return self.scores[:, 1:].reshape(len(self.scores), self.graph.layers, -1)[..., :-1]

    @property
    def mlps(self) -> Tensor:
        """(P, L) credit of every MLP."""
        return self.scores[:, 1:].reshape(len(self.scores), self.graph.layers, -1)[..., -1]

    @property
    def cumulative(self) -> Tensor:
        """(P, L + 1) what the input and the layers up to each have written of the change."""
        return self.layers.cumsum(1)

    def appeared(self, share: float = 0.5) -> list[int | None]:
        """For each pair the layer from which on at least ``share`` of the change has been written;
        −1 for the input, None where that never is."""
        enough = self.cumulative / self.change[:, None] >= real("share", share)
        stays = enough.flip(1).cumprod(1).flip(1).bool()
        return [int(row.nonzero()[0]) - 1 if bool(row.any()) else None for row in stays]

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a line for each pair and layer, the input first as layer −1.

        Raises:
            MissingExtra: without pandas.
        """
        pairs, steps = self.layers.shape
        nothing = torch.zeros(pairs, 1, dtype=self.scores.dtype)
        columns = {
            "credit": self.layers,
            "heads": torch.cat([nothing, self.heads.sum(-1)], 1),
            "mlp": torch.cat([nothing, self.mlps], 1),
            "cumulative": self.cumulative,
            "lens_clean": self.lens_clean,
            "lens_corrupt": self.lens_corrupt,
        }
        return frame_of(
            {
                "pair": [pair for pair in range(pairs) for _ in range(steps)],
                "layer": [layer for _ in range(pairs) for layer in range(-1, steps - 1)],
                **{name: column.flatten().tolist() for name, column in columns.items()},
            }
        )

    def __repr__(self) -> str:
        return (
            f"<LayerCredit of {self.graph.layers} layers and {len(self.scores)} pairs, F = {self.metric}: change "
            f"{number(float(self.change.mean()), signed=True)}, worst gap {percent(float(self.gap.max()))}>"
        )


def layer_credit(
    model: ModelLike,
    clean: Prompts,
    corrupt: Prompts,
    *,
    metric: Metric,
    tokenizer: TokenizerLike | None = None,
    segments: int = 4,
    steps: int = 6,
    architecture: Architecture | None = None,
    batch_size: int = 8,
) -> LayerCredit:
    """What the input, every head and every MLP write of F(clean) − F(corrupt) into the stream that
    is read at the end, layer by layer along one path.

        credit(u) = Σ_k (s_u(α_{k+1}) − s_u(α_k)) · ∫₀¹ ∂F/∂r (r(α_k) + t (r(α_{k+1}) − r(α_k))) dt

    α_k are the corners of a path that goes straight from the corrupt input to the clean one. Credits
    of all nodes add up to F(clean) − F(corrupt), but for the error of the integral. They are direct:
    what a layer does for later layers is credited to these, and ``ig.circuits.edges`` says who
    listens to whom. Beside them is the lens: F read off the stream behind each layer, as if it were
    finished; its differences from layer to layer add up as well.

    Args:
        model: as in ``ig.circuits.edges``.
        clean: see there.
        corrupt: see there.
        metric: see there.
        tokenizer: see there.
        segments: pieces of the path; 1 goes straight from the one finished stream to the other.
        steps: nodes of a Gauss–Legendre rule on each piece.
        architecture: as in ``ig.circuits.edges``.
        batch_size: see there.

    Returns:
        ``LayerCredit``: credits by node and by layer for each pair, with what they miss.

    Raises:
        IntegrandError: one of the tree in ``integrand.errors``.

    Cost:
        for each pair ``segments`` + 1 + 2 L forward passes and ``segments`` × ``steps`` gradients
        of what is behind the last layer (and as many forward passes).

    References:
        The lens: nostalgebraist, "interpreting GPT: the logit lens", 2020. Credit by writers of the
        stream: Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021, integrated
        here through the final norm, where they take its scale as given.

    Example:
        >>> import transformers, integrand as ig
        >>> config = transformers.GPT2Config(
        ...     vocab_size=9, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        ... )
        >>> model = transformers.GPT2LMHeadModel(config).eval()
        >>> credit = ig.circuits.layer_credit(
        ...     model, [1, 2, 3], [1, 5, 3], metric=lambda logits: logits[:, -1, 4]
        ... )
        >>> credit.layers.shape
        torch.Size([1, 3])
    """
    job = job_of(model, clean, corrupt, metric, tokenizer, architecture, batch_size)
    pieces, nodes = whole("segments", segments, least=1), whole("steps", steps, least=1)
    count, layers = job.pairs.count, job.graph.layers

    def both(contrast: Contrast) -> tuple[Tensor, Tensor]:
        return _credits(contrast, pieces, nodes, job.batch_size), _lens(contrast)

    with job.running():
        scores = torch.zeros(count, len(job.graph.sources), dtype=torch.float64)
        lens = torch.zeros(2, count, layers + 1, dtype=torch.float64)
        for contrast, (credit, read_off) in job.each(both):
            numbers = contrast.group.numbers
            scores[numbers] = credit
            lens[:, numbers, :-1] = read_off
            lens[:, numbers, -1] = contrast.values
        check_finite(scores, "Credits", job.decoder)
        return LayerCredit(job.graph, scores, lens[0], lens[1], job.pairs.metric, job.cost())


def _credits(contrast: Contrast, pieces: int, nodes: int, batch_size: int) -> Tensor:
    """(P, S) credit of every source."""
    total = torch.zeros(len(contrast.group), len(contrast.graph.sources), dtype=torch.float64)
    before: StreamRecording | None = None
    for record in _corners(contrast, pieces):
        if before is not None:
            slope = _mean_slope(contrast, before, record, nodes, batch_size)
            total += _shares(contrast, before, record, slope).double().cpu()
        before = record
    return total


def _corners(contrast: Contrast, pieces: int) -> Iterator[StreamRecording]:
    """What was in the stream at the corners of the path, from corrupt to clean."""
    yield contrast.corrupt
    start, difference = present(contrast.corrupt.start), contrast.difference((INPUT, 0))
    for corner in range(1, pieces):
        points = start + corner / pieces * difference
        with recorded(contrast.decoder, (INPUT, 0), points) as record:
            contrast.group.value()
        contrast.count.forward(len(contrast.group))
        yield record
    yield contrast.clean


def _mean_slope(
    contrast: Contrast, before: StreamRecording, after: StreamRecording, nodes: int, batch_size: int
) -> Tensor:
    """(P, T, D) the mean gradient of F at the finished stream, between two corners."""
    start, end = present(before.final).detach(), present(after.final).detach()
    pairs = len(contrast.group)
    mean = torch.zeros_like(start)
    places, weights = GaussLegendre(nodes).table()
    rows = [(pair, node) for node in range(nodes) for pair in range(pairs)]
    for first in range(0, len(rows), batch_size):
        some = torch.tensor(rows[first : first + batch_size])
        times = torch.tensor(places, dtype=torch.float64)[some[:, 1]].to(start)[:, None, None]
        which = some[:, 0].to(start.device)
        points = (start[which] + times * (end - start)[which]).requires_grad_()
        with gradients(True):
            value = _read(contrast, some[:, 0], points)
            if not value.requires_grad:
                raise DetachedModel(
                    "No gradient leads from the metric to the finished stream: it has to be a differentiable function of the logits."
                )
            (slope,) = slopes([value.sum()], [points])
        contrast.count.backward(len(some))
        share = torch.tensor(weights, dtype=torch.float64)[some[:, 1]].to(start)[:, None, None]
        mean.index_add_(0, which, share * (torch.zeros_like(points) if slope is None else slope))
    return mean


def _read(contrast: Contrast, rows: Tensor, points: Tensor, *, corrupt: bool = False) -> Tensor:
    """F (N,) of rows whose finished stream is ``points`` (N, T, D)."""
    hooks = Hooks()
    with hooks.stack:
        hooks.before(contrast.decoder.final_norm, lambda stream: points.to(stream))
        return contrast.group.at(rows).value(corrupt=corrupt)


def _shares(
    contrast: Contrast, before: StreamRecording, after: StreamRecording, slope: Tensor
) -> Tensor:
    """(P, S) what each source wrote between two corners, times the mean gradient; token by token,
    so that no more than one token of all sources is held."""
    first, second = (Written(contrast.matrices, record) for record in (before, after))
    dtype = contrast.accumulator
    parts = []
    for token in range(contrast.group.tokens):
        at = slice(token, token + 1)
        if not bool(slope[:, at].any()):
            continue
        moved = (second.at(at) - first.at(at)).to(dtype)
        parts.append(torch.einsum("pstd,ptd->ps", moved, slope[:, at].to(moved)))
    if not parts:
        return slope.new_zeros(len(slope), len(contrast.graph.sources), dtype=dtype)
    return torch.stack(parts).sum(0)


def _lens(contrast: Contrast) -> Tensor:
    """(2, P, L) F of the clean and the corrupt prompts, read off the stream before each layer."""
    pairs = torch.arange(len(contrast.group))
    sides = []
    for corrupt, record in ((False, contrast.clean), (True, contrast.corrupt)):
        values: Sequence[Tensor] = [
            _read(contrast, pairs, stream, corrupt=corrupt).double().cpu()
            for stream in record.attention_stream
        ]
        for _ in values:
            contrast.count.forward(len(pairs))
        sides.append(torch.stack(list(values), 1))
    return torch.stack(sides)
