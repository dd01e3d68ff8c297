"""Other ways to give credit: important, decision, path_weighted, path_sampled, left."""

from __future__ import annotations

import integrand as ig

FINE = ig.rules.GaussLegendre(12)

BUILD = {
    "idgi": lambda p: ig.methods.idgi(ig.baselines.Given(p.references[:1]), 12),
    "decision": lambda p: ig.methods.decision(ig.baselines.Given(p.references[:1]), 12, 8),
    "path_weighted": lambda p: ig.methods.path_weighted(
        ig.baselines.Given(p.references[:1]), steps=16
    ),
    "path_sampled": lambda p: ig.methods.path_sampled(
        ig.baselines.Given(p.references[:1]), steps=12
    ),
    "left": lambda p: ig.methods.left(
        ig.baselines.Given(p.references[:1]), above=None, pilot=8, rule=FINE
    ),
}

AXIOMATIC = {
    "idgi": lambda field, x, refs: (
        ig.methods.idgi(ig.baselines.Given(refs[:1]), 12)(field, x).values
    ),
    "decision": lambda field, x, refs: (
        ig.methods.decision(ig.baselines.Given(refs[:1]), 12, 8)(field, x).values
    ),
    "path_weighted": lambda field, x, refs: (
        ig.methods.path_weighted(ig.baselines.Given(refs[:1]), steps=16)(field, x).values
    ),
    "path_sampled": lambda field, x, refs: (
        ig.methods.path_sampled(ig.baselines.Given(refs[:1]), steps=12)(field, x).values
    ),
    "left": lambda field, x, refs: (
        ig.methods.left(ig.baselines.Given(refs[:1]), above=None, pilot=8, rule=FINE)(
            field, x
        ).values
    ),
}
