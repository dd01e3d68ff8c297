"""How much a call of a language model keeps, and whether its blocks have to run again for it to fit.

bytes(T) = a T + b T²     measured on the first tokens of the longest text, forward only
checkpoints               where a call's bytes are more than the budget of ``model/batching``
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.options import check_choice
from ..errors import InputError
from ..model.batching import BatchSizer, memory_budget
from ..model.borrowed import borrowed
from ..model.checkpointing import KeptBytes, kept_at, kept_bytes
from .batch_questions import Questions
from .layout import Row
from .models import SEQ2SEQ, LanguageModel

Checkpoint = bool | str
"""True, False, or "auto": where a call would not fit otherwise."""

_LEAST_ROWS = 2  # of a call: a chord has two ends


@dataclass(frozen=True)
class LongestText:
    """The text that a call keeps most of.

    Attributes:
        ids: (1, T) of its tokens and what is read behind them.
        decoder: (1, L) what the decoder reads, of encoder-decoders.
        asked: how many of its tokens are asked about.
    """

    ids: Tensor
    decoder: Tensor | None = None
    asked: int = 1

    @classmethod
    def of(cls, rows: Sequence[Row], questions: Questions, model: LanguageModel) -> LongestText:
        """The one of most tokens, with the longest of what it is asked."""
        tails: list[tuple[int, ...]] = [()] * len(rows)
        asked = [1] * len(rows)
        for number, question in enumerate(questions.questions):
            tails[number] = max((entry.tail for entry in question.passes), key=len)
            asked[number] = max(len(entry.tokens) for entry in question.passes)
        decodes = model.kind == SEQ2SEQ
        lengths = [
            row.places[-1] + 1 + (0 if decodes else len(tail))
            for row, tail in zip(rows, tails, strict=True)
        ]
        most = lengths.index(max(lengths))
        tokens, tail = rows[most].tokens, tails[most]
        if decodes:
            start = model.setting("decoder_start_token_id", 0)
            decoder = torch.tensor([tail or (start,)], device=model.device)
            return cls(torch.tensor([tokens], device=model.device), decoder, asked[most])
        ids = torch.tensor([(*tokens, *tail)], device=model.device)
        return cls(ids, None, asked[most])

    def __len__(self) -> int:
        return self.ids.shape[1]

    def kept(self, model: LanguageModel) -> KeptBytes:
        """What a forward pass of it keeps, as measured on its first tokens."""

        def measure(length: int) -> KeptBytes:
            some = self.ids[:, :length]
            asked = torch.arange(max(0, length - self.asked), length, device=some.device)
            arguments = {
                "attention_mask": torch.ones_like(some),
                "decoder_input_ids": self.decoder,
                "use_cache": False,
                "logits_to_keep": asked,
            }
            vectors = model.vectors(some).requires_grad_()
            return kept_bytes(
                model.module, model.blocks, lambda: model.run(vectors, some, arguments)
            )

        before, model.checkpoint = model.checkpoint, False
        try:
            with borrowed(model.module):
                return kept_at(len(self), measure)
        finally:
            model.checkpoint = before


def uses_checkpoints(
    checkpoint: Checkpoint,
    model: LanguageModel,
    rows: Sequence[Row],
    questions: Questions,
    batch_size: int | None = None,
) -> bool:
    """Whether the blocks of a model run again on the way back.

    Raises:
        InputError: for what is no such choice, and where blocks shall that the model does not say
            it has.
    """
    check_choice("checkpoint", checkpoint, (True, False, "auto"))
    if checkpoint is True and not model.blocks:
        raise InputError(
            f"{model.name} has no blocks that could be run again: they are modules of one class in an nn.ModuleList. Leave checkpoint= out."
        )
    if checkpoint != "auto" or not model.blocks:
        return checkpoint is True
    budget = memory_budget(model.device)
    text = LongestText.of(rows, questions, model)
    count = max(_LEAST_ROWS, rows_of_call(model, text, batch_size))
    if budget is None or count * _at_most(model, len(text)) < budget:
        return False
    return count * text.kept(model).plain > budget


def rows_of_call(model: LanguageModel, text: LongestText, batch_size: int | None) -> int:
    """How many rows a call of texts as long begins with."""
    vectors = model.vectors(text.ids[0, :1]).expand(len(text), -1)
    return BatchSizer(batch_size).size(vectors, "gradient")


def _at_most(model: LanguageModel, length: int) -> float:
    """More bytes than a forward pass of a text keeps, from the shapes of weights alone: so short
    texts and small models need not be measured."""
    widths = sum(sum(weight.shape) for weight in model.module.parameters() if weight.ndim == 2)
    heads = model.setting("num_attention_heads")
    heads = heads if isinstance(heads, int) else _HEADS
    return _BYTES * (length * widths + len(model.blocks) * heads * length**2)


_BYTES = 32  # eight copies in float32 of all that goes into matrices, comes out of them, and of attention
_HEADS = 64  # where a configuration does not say
