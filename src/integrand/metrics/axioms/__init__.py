"""The axioms of attribution as checks: which of them a method satisfies, and by how much it
violates the others.

probes.py     functions on which methods that violate an axiom show it
checks.py     the axioms, each a function (adapter) -> size of the violation
own_model.py  axioms that can be checked on a model of one's own
adapter.py    methods, paths and plain functions behind one interface
report.py     the verdict on each, and ``axioms``, the public function
"""

from .report import Axioms as Axioms
from .report import AxiomVerdict as AxiomVerdict
from .report import axioms as axioms
