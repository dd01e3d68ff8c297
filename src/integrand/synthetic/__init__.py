"""Synthetic tables drawn from known distributions, whose conditional Shapley values are known
(XAI-Bench).

    problem = ig.metrics.xai_bench.gaussian("nonlinear_additive", rho=0.5)
    x, y = problem.data(100)
    truth = problem.shapley(x)                                       conditional Shapley values, exact

terms          functions of one feature whose mean under a normal distribution is known        Additive, the field made of them
distributions  Gaussian, Mixture, Multinomial, and their conditionals given some features
expectation    E[F(X) | X_S = x_S]: closed forms, or seeded draws with their standard error;
               conditional Shapley values
problem        a distribution and a function of its draws

The benchmark's metrics are ``metrics/conditional.py``; users find both as ``ig.metrics.xai_bench``.

The stock code (abacusai/xai-bench, f0431a7) estimates every expectation from 100 to 20,000 draws;
here those of additive functions are exact. Its errors, each named where it is put right: the
piecewise constant target (``terms.Steps``), standardised targets (``Problem``), mixtures
(``Mixture``).

Source: Liu, Khandagale, White, Neiswanger, "Synthetic benchmarks for scientific research in
explainable machine learning", NeurIPS Datasets and Benchmarks 2021.
"""

from .distributions import Distribution as Distribution
from .distributions import Mixture as Mixture
from .distributions import Multinomial as Multinomial
from .distributions import MultivariateNormal as MultivariateNormal
from .expectation import Expected as Expected
from .expectation import Shapley as Shapley
from .expectation import expected as expected
from .expectation import shapley as shapley
from .problem import SyntheticProblem as SyntheticProblem
from .problem import gaussian as gaussian
from .problem import mixture as mixture
from .problem import multinomial as multinomial
from .terms import Additive as Additive
from .terms import Term as Term
