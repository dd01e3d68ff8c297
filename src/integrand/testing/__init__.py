"""A conformance kit for parts of your own: paths, rules, fields, baselines, weightings, targets,
metrics, methods.

    import integrand as ig

    def test_my_path():
        ig.testing.check_path(MyPath(steps=5))

Each check calls the part on small problems in float64 and raises ``AssertionError`` with what was
promised, what came instead, and where. What a promise is stands in the docstring of the check; a
part that keeps them works with every other part. The library's own parts pass the same checks.
Nothing here needs a test framework.

As in a method, parts are called with the model ready and autograd off: fields turn it on where they
need it, and so must a part that differentiates something itself (``torch.enable_grad()``).
"""

from __future__ import annotations

from .baselines import check_baseline as check_baseline
from .fields import check_field as check_field
from .methods import check_method as check_method
from .metrics import check_metric as check_metric
from .paths import check_path as check_path
from .problem import smooth as smooth
from .problem import tanh_network as tanh_network
from .problem import waves as waves
from .rules import check_rule as check_rule
from .targets import check_target as check_target
from .weightings import check_weighting as check_weighting

__all__ = [
    "check_baseline",
    "check_field",
    "check_method",
    "check_metric",
    "check_path",
    "check_rule",
    "check_target",
    "check_weighting",
    "smooth",
    "tanh_network",
    "waves",
]
