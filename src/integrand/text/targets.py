"""What is asked of a model of texts: the next token, a continuation, a span, the token at a mask.

These are questions as people ask them; ``questions`` finds in a text and a model what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

from ..core.options import check_choice
from ..core.values import part
from ..errors import TargetError

SCORES = ("log-probability", "logit", "probability")

Tokens = str | Sequence[int] | int
"""Words, or the ids of their tokens."""


@part
class NextToken:
    """The token that follows a prompt.

        F = log p(token | prompt),  or log p(token | prompt) − log p(against | prompt)

    Args:
        token: its text (" Paris": most tokenizers count the space) or its id; None for the one that
            is most probable.
        against: another token; F is then the log-odds of the two, which is the difference of their
            logits.
        score: "log-probability", "logit" or "probability" of the token, where it is by itself.

    Example:
        >>> import integrand as ig
        >>> ig.text.NextToken(" Paris", against=" Rome")
        NextToken(' Paris', ' Rome')
    """

    token: str | int | None = None
    against: str | int | None = None
    score: str = "log-probability"

    def __post_init__(self) -> None:
        check_choice("score", self.score, SCORES)
        if self.against is not None and self.score != "log-probability":
            raise TargetError(
                "The log-odds of two tokens are the difference of their logits: leave score= out."
            )


@part
class Continuation:
    """The words that follow a prompt, all of them together.

        F = Σ_t log p(y_t | prompt, y_<t),   less the same of ``against``, which may have another length

    The words themselves stay as they are: what is explained is the prompt.

    Args:
        text: the words, or token ids; None for what the model itself writes (greedily).
        against: other words; F is then the log-odds of the two continuations.

    Cost:
        one forward pass for all words, and another for those of ``against`` unless each is one
        token.

    Example:
        >>> import integrand as ig
        >>> ig.text.Continuation(" Paris, in France", against=" Rome")
        Continuation(' Paris, in France', ' Rome')
    """

    text: Tokens | None = None
    against: Tokens | None = None

    def __post_init__(self) -> None:
        for name in ("text", "against"):
            words = getattr(self, name)
            if isinstance(words, str) or words is None:
                tokens: Any = words
            else:
                tokens = _ids(words)
                object.__setattr__(self, name, tokens)
            if tokens is not None and not len(tokens):
                raise TargetError("A continuation has one token at least.")


def _ids(tokens: object) -> tuple[int, ...]:
    """Token ids, by themselves or in a row, as whole numbers."""
    entries: list[Any] = list(tokens) if isinstance(tokens, Iterable) else [tokens]
    if isinstance(tokens, bytes) or not all(
        isinstance(token, SupportsIndex) and not isinstance(token, bool) for token in entries
    ):
        raise TargetError(
            f"A continuation is words, or whole numbers of tokens, not {tokens!r:.60}."
        )
    try:
        return tuple(int(token.__index__()) for token in entries)
    except TypeError as error:  # tensors of fractions
        raise TargetError(
            f"A continuation is words, or whole numbers of tokens, not {tokens!r:.60}."
        ) from error


@part
class Span:
    """Words of the text itself, from what stands before them.

        F = Σ_{start ≤ t < stop} log p(x_t | x_<t)

    Tokens are counted from 0, without padding; negative numbers count from the end, as in slices.
    The span, and what follows it, stays as it is: what is explained is what stands before it.

    Example:
        >>> import integrand as ig
        >>> ig.text.Span(3, 9), ig.text.Span(-2)
        (Span(3, 9), Span(-2))
    """

    start: int
    stop: int | None = None


@part
class MaskedToken:
    """The token at a mask, of masked language models.

        F = log p(token | text),  or log p(token | text) − log p(against | text)

    Args:
        token: its text or its id; None for the one that is most probable.
        against: another token; F is then the log-odds of the two.
        position: which token of the text, counted from 0; the only mask unless given.
        score: as in ``NextToken``.

    Example:
        >>> import integrand as ig
        >>> ig.text.MaskedToken("paris")
        MaskedToken('paris')
    """

    token: str | int | None = None
    against: str | int | None = None
    position: int | None = None
    score: str = "log-probability"

    def __post_init__(self) -> None:
        check_choice("score", self.score, SCORES)


@part
class TokenLabel:
    """The label of one token, of token classifiers.

        F = z_label at the token

    Args:
        position: which token of the text, counted from 0.
        label: its name or number; None for the one that is predicted.

    Example:
        >>> import integrand as ig
        >>> ig.text.TokenLabel(3, "B-PER")
        TokenLabel(3, 'B-PER')
    """

    position: int
    label: str | int | None = None


TextTarget = NextToken | Continuation | Span | MaskedToken | TokenLabel
