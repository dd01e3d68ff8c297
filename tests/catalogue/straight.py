"""Straight lines: integrated, expected, generalized, weighted."""

from __future__ import annotations

import integrand as ig

FINE = ig.rules.GaussLegendre(12)

BUILD = {
    "integrated": lambda p: ig.methods.integrated(ig.baselines.Given(p.references[:1]), FINE),
    "generalized": lambda p: ig.methods.generalized(ig.baselines.Given(p.references[:1]), FINE),
    "baseline_shapley": lambda p: ig.methods.baseline_shapley(
        ig.baselines.Given(p.references[:1]), 3
    ),
    "expected": lambda p: ig.methods.expected(ig.baselines.Given(p.references), rule=FINE),
    "weighted": lambda p: ig.methods.weighted(
        ig.baselines.Given(p.references), rule=FINE, fill=0.0
    ),
}

COSTS = {
    "baseline_shapley": [lambda p: ig.methods.baseline_shapley(0.25, 2)],
    "generalized": [],
}  # those of the rule of its smooth parts: tests/trees/test_mixtures.py

AXIOMATIC = {
    "integrated": lambda field, x, refs: (
        ig.methods.integrated(ig.baselines.Given(refs[:1]), FINE)(field, x).values
    ),
    "generalized": lambda field, x, refs: (
        ig.methods.generalized(ig.baselines.Given(refs[:1]), FINE)(field, x).values
    ),
    "baseline_shapley": lambda field, x, refs: (
        ig.methods.baseline_shapley(ig.baselines.Given(refs[:1]), None)(field, x).values
    ),
    "expected": lambda field, x, refs: (
        ig.methods.expected(ig.baselines.Given(refs), rule=FINE)(field, x).values
    ),
    "weighted": lambda field, x, refs: (
        ig.methods.weighted(ig.baselines.Given(refs), rule=FINE, fill=0.0)(field, x).values
    ),
}
