"""How rows of each kind are explained: numbers, pictures, and texts that a model of Hugging Face reads."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..core.options import check_choice
from ..errors import InputError
from ..explain import explain
from ..expressions.names import target as spelled_target
from ..expressions.names import text_target
from ..images.models import ImageModel
from ..integration.attribution import Attribution, ExplainerLike
from ..metrics import Metric, judge
from ..text import explain as explain_texts
from ..text.baselines import WORDS
from ..text.job import check_method
from ..text.keeping import KEEP
from ..text.models import CLASSIFIER, LanguageModel
from ..text.questions import label_number
from .language import TextModel
from .recipe import Recipe

_NOT_OF_TEXTS = "[method.metrics] judges maps of numbers and pictures, not of texts."


@dataclass(frozen=True)
class RowMaps:
    """Rows that were explained together.

    values  (n, \\*shape) their maps, of the shape that all rows have
    words   column of the table → what it says of each row
    """

    attribution: Attribution
    values: Tensor
    words: Mapping[str, list[list[str]]] = field(default_factory=dict)


class RowExplainer(ABC):
    """What explains the rows of a run.

    Args:
        recipe: says target and method.
        sized: whether the rows of a model call can be said.
    """

    words: tuple[str, ...] = ()
    """Columns of words that the table of rows has."""

    def __init__(self, recipe: Recipe, method: str | ExplainerLike, *, sized: bool) -> None:
        self.recipe, self.method = recipe, method
        self.target = self.target_of(recipe.method.target)
        self.options: dict[str, Any] = {}
        if recipe.method.tol is not None:
            self.options["tol"] = recipe.method.tol
        if sized:
            self.options["batch_size"] = recipe.method.batch

    @abstractmethod
    def target_of(self, target: str | int | None) -> Any:
        """What a recipe calls the target."""

    @abstractmethod
    def __call__(self, x: Any, seed: int) -> RowMaps:
        """Explain rows, as the source read them."""

    @abstractmethod
    def score(self, x: Any, attribution: Attribution, metric: Metric | str) -> Tensor:
        """What a metric says of each row's map (n,)."""


class NumberExplainer(RowExplainer):
    """Rows of numbers, and frames.

    Args:
        module: what is explained.
        dtype: rows are explained in it.
    """

    def __init__(
        self, module: Any, recipe: Recipe, method: str | ExplainerLike, dtype: torch.dtype, device: str, *, sized: bool
    ) -> None:  # fmt: skip
        super().__init__(recipe, method, sized=sized)
        self.module, self.dtype, self.device = module, dtype, device

    def target_of(self, target: str | int | None) -> Any:
        named = isinstance(target, str) and target != "predicted"
        return spelled_target(str(target)) if named else target

    def _numbers(self, x: Any) -> Any:
        return x.to(self.device, self.dtype) if isinstance(x, Tensor) else x

    def __call__(self, x: Any, seed: int) -> RowMaps:
        attribution = explain(
            self.module,
            self._numbers(x),
            target=self.target,
            method=self.method,
            seed=seed,
            **self.options,
        )
        if not isinstance(attribution.values, Tensor):
            raise InputError("A run stores maps of one input tensor; these are of several.")
        return RowMaps(attribution, attribution.values.detach())

    def score(self, x: Any, attribution: Attribution, metric: Metric | str) -> Tensor:
        return judge(self.module, self._numbers(x), attribution, metric, target=self.target)


class ImageExplainer(NumberExplainer):
    """Pictures, whose baselines in words need the model's normalisation."""

    def __init__(
        self,
        model: ImageModel,
        recipe: Recipe,
        method: str | ExplainerLike,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        super().__init__(model.module, recipe, method, dtype, device, sized=True)
        self.options["normalisation"] = model.normalisation


class TextExplainer(RowExplainer):
    """Texts, of which rows of (text as tokens, words that follow it or None) were read."""

    words = ("tokens",)

    def __init__(
        self, model: TextModel, recipe: Recipe, method: str | ExplainerLike, device: str
    ) -> None:
        super().__init__(recipe, method, sized=True)
        self._check_settings(model.language)
        if recipe.method.metrics:
            raise InputError(_NOT_OF_TEXTS)
        if self.target is not None and recipe.data.continuation is not None:
            raise InputError("data.continuation says what is explained, and so does method.target.")
        if device != "cpu":
            model.language.module.to(device)
        self.model = model

    def _check_settings(self, language: LanguageModel) -> None:
        """Check what the recipe says of texts, before any is read.

        Raises:
            IntegrandError: for what no text can be explained with.
        """
        check_method(self.method)
        given = self.recipe.text.baseline
        for word in (given,) if isinstance(given, str) else given:
            check_choice("text.baseline", word, (*WORDS, "sampled"))
        for word in (self.recipe.text.keep or "none").split("+"):
            check_choice("text.keep", word.strip(), KEEP)
        named = isinstance(self.target, str | int) and self.target != "predicted"
        if named and language.kind == CLASSIFIER:
            label_number(language, self.target)

    def target_of(self, target: str | int | None) -> Any:
        """A class, its name, words that follow, or a target as it prints."""
        if isinstance(target, str) and re.match(r"\w+\(", target):
            return text_target(target)
        return target

    def __call__(self, x: Any, seed: int) -> RowMaps:
        text = self.recipe.text
        follows = [words for _, words in x]
        given = self.recipe.data.continuation is not None
        result = explain_texts(
            self.model.language.module,
            self.model.tokenizer,
            [row for row, _ in x],
            target=follows if given else self.target,
            method=self.method,
            baseline=text.baseline if isinstance(text.baseline, str) else list(text.baseline),
            keep=text.keep,
            granularity=text.granularity,
            seed=seed,
            check_precision=False,  # a copy in float32 and six gradients a text, which no column keeps
            **self.options,
        )
        width = self.recipe.data.max_tokens
        maps = [torch.nn.functional.pad(s, (0, width - len(s))) for s in result.scores]
        return RowMaps(result.attribution, torch.stack(maps).detach(), {"tokens": result.tokens})

    def score(self, x: Any, attribution: Attribution, metric: Metric | str) -> Tensor:
        raise InputError(_NOT_OF_TEXTS)
