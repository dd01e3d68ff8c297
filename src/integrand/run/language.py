"""Texts that a model of Hugging Face reads: a map has a number for each token, word or sentence."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import InputError
from ..text.models import LanguageModel, ModelLike, TokenizerLike, language_model, tokenizer_of
from .recipe import DataSection
from .source import ReadRows, Source, digest_of, read_each
from .texts import Texts, check_length


class TextModel:
    """A model of Hugging Face and its tokenizer, for recipes that explain texts.

    Args:
        model: as ``ig.text.explain`` takes it: an object, or the local folder of one.
        tokenizer: the model's; None for that in the model's folder.

    Raises:
        InputError: for what is no model of texts, and without a tokenizer.

    Example:
        >>> from integrand.run import TextModel
        >>> TextModel("gpt2")
        Traceback (most recent call last):
            ...
        integrand.errors.InputError: There is no folder 'gpt2': ...
    """

    def __init__(self, model: ModelLike, tokenizer: TokenizerLike | None = None) -> None:
        self.language: LanguageModel = language_model(model)
        self.tokenizer = tokenizer_of(tokenizer, model)

    def tokens(self, text: str) -> int:
        """How many tokens a text has, special ones included."""
        return len(self.tokenizer(text)["input_ids"])


class LanguageRows(Source):
    """Texts as they are, and the words that follow each where the data have them. Texts of more
    characters or tokens than the recipe allows are said: none is cut.

    Rows that were read are lists of (text, words that follow it or None).
    """

    def __init__(
        self,
        texts: Texts,
        model: TextModel,
        section: DataSection,
        ids: Sequence[str] | None = None,
        continuations: Texts | None = None,
    ) -> None:
        self.texts, self.model, self.section = texts, model, section
        self.names, self.continuations = ids, continuations

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.section.max_tokens,)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def read(self, numbers: Sequence[int]) -> ReadRows:
        rows, kept, failed = read_each(
            numbers,
            self._row,
            fails_with=(Exception,),  # tokenizers raise what they like
        )
        return ReadRows(rows or None, kept, failed)

    def _row(self, number: int) -> tuple[str, str | None]:
        text = self._text(number)
        return text, None if self.continuations is None else self.continuations.text(number)

    def _text(self, number: int) -> str:
        text = self.texts.text(number)
        if not text.strip():
            raise InputError("The text is empty.")
        check_length(text, self.section.max_characters)
        tokens = self.model.tokens(text)
        if tokens > self.section.max_tokens:
            raise InputError(
                f"The text has {tokens} tokens, more than data.max_tokens = {self.section.max_tokens}."
            )
        return text

    def digest(self, numbers: Sequence[int]) -> str:
        columns = [self.texts] + ([] if self.continuations is None else [self.continuations])
        return digest_of([column.content(number) for number in numbers for column in columns])
