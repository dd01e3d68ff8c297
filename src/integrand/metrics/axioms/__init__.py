"""The axioms of attribution as a tool: which of them a method keeps, with how much is missing where
it does not.

witnesses.py   functions on which methods that break an axiom show it
catalogue.py   the axioms, each a function (a way to explain) -> how far it is broken
asking.py      methods, paths and plain functions, asked in one way
report.py      what is said of each, and ``axioms``, the door
"""

from .report import Axioms as Axioms
from .report import AxiomVerdict as AxiomVerdict
from .report import axioms as axioms
