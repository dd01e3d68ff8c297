"""Texts that a model of Hugging Face reads: a map has a number for each token, word or sentence."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import InputError
from ..text.encoding import Encoded, check_tokenizer, encode
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
        InputError: for what is no model of texts, without a tokenizer, and for that of another
            model.

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
        check_tokenizer(self.tokenizer, self.language)

    def encoded(self, text: str) -> Encoded:
        """A text as tokens.

        Raises:
            InputError: for what the model does not read.
        """
        return encode(self.tokenizer, text, self.language)


class LanguageRows(Source):
    """Texts as they are, and the words that follow each where the data have them. Texts of more
    characters or tokens than the recipe allows are said: none is cut.

    Rows that were read are lists of (text as tokens, words that follow it or None).
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

    def _row(self, number: int) -> tuple[Encoded, str | None]:
        text = self.texts.text(number)
        if not text.strip():
            raise InputError("The text is empty.")
        check_length(text, self.section.max_characters)
        encoded = self.model.encoded(text)
        if len(encoded) > self.section.max_tokens:
            raise InputError(
                f"The text has {len(encoded)} tokens, more than data.max_tokens = {self.section.max_tokens}."
            )
        return encoded, self._following(number)

    def _following(self, number: int) -> str | None:
        if self.continuations is None:
            return None
        words = self.continuations.text(number)
        if not words:
            raise InputError(
                f"The words that follow the text ({self.section.continuation}) are empty."
            )
        check_length(words, self.section.max_characters)
        return words

    def digest(self, numbers: Sequence[int]) -> str:
        columns = [self.texts] + ([] if self.continuations is None else [self.continuations])
        return digest_of([column.content(number) for number in numbers for column in columns])
