"""Texts: what the words of a prompt, a sentence or a chat contributed to what a model says of it.

ig.text.explain(model, tokenizer, "The capital of France is", target=" Paris")
"""

from .baselines import Corrupt, Sampled
from .context import ContextDependence, context_dependence, without_sources
from .cost import CostEstimate
from .explain import estimate_cost, explain, explain_ids
from .hops import Hops, explain_hops
from .result import Scored, TextAttribution
from .targets import Continuation, MaskedToken, NextToken, Span, TokenLabel

__all__ = [
    "ContextDependence",
    "Continuation",
    "Corrupt",
    "CostEstimate",
    "Hops",
    "MaskedToken",
    "NextToken",
    "Sampled",
    "Scored",
    "Span",
    "TextAttribution",
    "TokenLabel",
    "context_dependence",
    "estimate_cost",
    "explain",
    "explain_hops",
    "explain_ids",
    "without_sources",
]
