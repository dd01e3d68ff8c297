"""The model that a field explains: vectors of tokens in, outputs or answers out.

    vectors (N, T, D) ──▶ in the order that is read, continuation appended ──▶ the model ──▶ its outputs, laid back
                                                                                        └──▶ answers (N, Q)

An answer is what the model says of one token at one position. Positions without a question cost
nothing where the model can leave them out, and so does padding that no row of a call needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, TargetError
from ..targets import output_tensor
from .models import SEQ2SEQ, LanguageModel

Arranged = Mapping[str, Any]
"""What ``layout.sequences`` made for some rows, and what is asked of them."""


class OutputReader(nn.Module):
    """A model of texts as a function of the vectors of their tokens.

    Args:
        model: of texts.
        score: what an answer is, "log-probability", "logit" or "probability"; None for the model's
            own outputs.
    """

    def __init__(self, model: LanguageModel, score: str | None) -> None:
        super().__init__()
        self.module = model.module
        self.language_model = model
        self.score = score

    def forward(self, vectors: Tensor, passes: Sequence[Arranged]) -> Any:
        if self.score is None:
            (arranged,) = passes
            return _laid_back(self._outputs(vectors, arranged), arranged, self.language_model)
        answers = self._answers(vectors, passes[0])
        if len(passes) > 1:  # log-odds of two continuations
            other = self._answers(vectors, passes[1]).sum(1, keepdim=True)
            answers = answers.sum(1, keepdim=True) - other
        return answers.to(vectors.device)  # of a model on several devices, from its last

    def _outputs(self, vectors: Tensor, arranged: Arranged, **more: Any) -> Any:
        ids, mask = arranged["ids"], arranged["mask"]
        if "moves" in arranged:  # whatever a method does to them, other tokens stay
            fixed = arranged["vectors"].to(vectors)
            vectors = torch.where(arranged["moves"][..., None], vectors, fixed)
        if "source" in arranged:
            if "tail" in arranged:
                vectors = torch.cat([vectors, arranged["tail"].to(vectors)], 1)
            source = arranged["source"][..., None].expand(-1, -1, vectors.shape[-1])
            vectors = vectors.gather(1, source)
        steps = torch.arange(1, mask.shape[1] + 1, device=mask.device)
        longest = int((mask * steps).amax())  # what is behind is padding in all of these rows
        arguments = {
            "attention_mask": mask[:, :longest],
            "token_type_ids": arranged["types"][:, :longest] if "types" in arranged else None,
            "decoder_input_ids": arranged.get("decoder"),
            "use_cache": False,
            **more,
        }
        return self.language_model.run(vectors[:, :longest], ids[:, :longest], arguments)

    def _answers(self, vectors: Tensor, arranged: Arranged) -> Tensor:
        """What the model says (N, Q) of the tokens that are asked about."""
        tokens, counts = arranged["tokens"], arranged["counts"]
        logits = self.logits(vectors, arranged)
        against = arranged.get("against")
        if against is not None:
            against = against.to(logits.device)
        answers = self._scored(logits, tokens.to(logits.device), against)
        counted: Tensor = answers * counts.to(answers)
        return counted

    def logits(self, vectors: Tensor, arranged: Arranged) -> Tensor:
        """The logits (N, Q, V) where something is asked about, in float32 at least."""
        positions = arranged["positions"]
        read = torch.unique(positions)
        outputs = self._outputs(vectors, arranged, logits_to_keep=read)
        logits = output_tensor(outputs)
        if logits.ndim != 3:
            raise TargetError(
                f"{self.language_model.name} has outputs of {logits.ndim} axes, and not one for each token and word: this target is one of "
                "language models."
            )
        kept = "logits_to_keep" in self.language_model.parameters and logits.shape[1] == len(read)
        if kept:
            positions = torch.searchsorted(read, positions)
        place = positions[..., None].expand(-1, -1, logits.shape[-1]).to(logits.device)
        logits = logits.gather(1, place)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def _scored(self, logits: Tensor, tokens: Tensor, against: Tensor | None) -> Tensor:
        if int(tokens.amax()) >= logits.shape[-1]:
            raise TargetError(
                f"Token {int(tokens.amax())} is not among the {logits.shape[-1]} that {self.language_model.name} chooses from."
            )
        if against is not None:
            return _picked(logits, tokens) - _picked(logits, against)
        if self.score == "logit":
            return _picked(logits, tokens)
        scores = _picked(logits.log_softmax(-1), tokens)
        return scores.exp() if self.score == "probability" else scores


def _picked(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.gather(-1, tokens[..., None])[..., 0]


def _laid_back(outputs: Any, arranged: Arranged, model: LanguageModel) -> Any:
    """Outputs that have an entry for each token, at the slots where these were given; of padding
    zeros."""
    back = arranged.get("back")
    if back is None or model.kind == SEQ2SEQ:
        return outputs
    if isinstance(outputs, Tensor):
        return _at_slots(outputs, back, arranged)
    if isinstance(outputs, Mapping):
        laid = {
            name: _at_slots(entry, back, arranged) if isinstance(entry, Tensor) else entry
            for name, entry in outputs.items()
        }
        try:
            return type(outputs)(**laid)
        except TypeError as error:
            raise ModelError(
                f"{model.name} returns a {type(outputs).__name__}, whose entries cannot be brought into the order of the padded ids: pad on "
                "the right."
            ) from error
    return outputs


def _at_slots(tensor: Tensor, back: Tensor, arranged: Arranged) -> Tensor:
    read = int(back.amax()) + 1
    if tensor.ndim < 3 or not read <= tensor.shape[1] <= arranged["ids"].shape[1]:
        return tensor
    index = back.clamp_min(0).reshape(*back.shape, *(1,) * (tensor.ndim - 2))
    laid = tensor.gather(1, index.expand(-1, -1, *tensor.shape[2:]))
    return laid * (back >= 0).reshape(index.shape).to(laid)
