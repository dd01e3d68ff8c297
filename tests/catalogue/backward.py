"""Gradients of another kind: geometric. (pattern_guided needs a model's layers: tests/test_patterns.py.)"""

from __future__ import annotations

import integrand as ig

BUILD = {
    "geometric": lambda p: ig.methods.geometric(
        ig.baselines.Given(p.references[:1]), 4, 3, 0.01, signed=False
    ),
}

AXIOMATIC = {
    "geometric": lambda field, x, refs: (
        ig.methods.geometric(ig.baselines.Given(refs[:1]), 4, 3, 0.01)(field, x).values
    ),
}
