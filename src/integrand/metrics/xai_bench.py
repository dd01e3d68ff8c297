"""XAI-Bench: its problems, tables drawn from known distributions, and its metrics, by the
benchmark's own names.

problem = ig.metrics.xai_bench.gaussian("nonlinear_additive", rho=0.5)
x, y = problem.data(100)
by = ig.metrics.xai_bench.Faithfulness(problem)
ig.metrics.judge(problem.field, x, attribution, by)              or a model trained on problem.data, with target=
"""

from ..synthetic import Additive as Additive
from ..synthetic import Distribution as Distribution
from ..synthetic import Expected as Expected
from ..synthetic import Mixture as Mixture
from ..synthetic import Multinomial as Multinomial
from ..synthetic import MultivariateNormal as Gaussian
from ..synthetic import Shapley as Shapley
from ..synthetic import SyntheticProblem as Problem
from ..synthetic import Term as Term
from ..synthetic import expected as expected
from ..synthetic import gaussian as gaussian
from ..synthetic import mixture as mixture
from ..synthetic import multinomial as multinomial
from ..synthetic import shapley as shapley
from .conditional import ConditionalInfidelity as Infidelity
from .conditional import ConditionalMonotonicity as Monotonicity
from .conditional import Faithfulness as Faithfulness
from .conditional import ShapleyCorrelation as ShapleyCorrelation
from .conditional import ShapleyError as ShapleyError

__all__ = [
    "Additive",
    "Distribution",
    "Expected",
    "Faithfulness",
    "Gaussian",
    "Infidelity",
    "Mixture",
    "Monotonicity",
    "Multinomial",
    "Problem",
    "Shapley",
    "ShapleyCorrelation",
    "ShapleyError",
    "Term",
    "expected",
    "gaussian",
    "mixture",
    "multinomial",
    "shapley",
]
