"""Paths that choose which coordinates move: guided, salient."""

from __future__ import annotations

import integrand as ig

FINE = ig.rules.GaussLegendre(6)

BUILD = {
    "guided": lambda p: ig.methods.guided(ig.baselines.Given(p.references[:1]), 6, rule=FINE),
    "samp": lambda p: ig.methods.samp(ig.baselines.Given(p.references[:1]), 6, 0.1, rule=FINE),
}

AXIOMATIC = {
    "guided": lambda field, x, refs: (
        ig.methods.guided(ig.baselines.Given(refs[:1]), 6, stray=0.3, rule=FINE)(field, x).values
    ),
    "samp": lambda field, x, refs: (
        ig.methods.samp(ig.baselines.Given(refs[:1]), 6, 0.1, rule=FINE)(field, x).values
    ),
}
