"""Metrics: how good an explanation is, measured."""

from .axiomatic import Axioms as Axioms
from .axiomatic import Verdict as Verdict
from .axiomatic import axioms as axioms
