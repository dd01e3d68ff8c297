"""Figures and pages of attributions. Computes nothing: everything shown is in the attribution, or a
sum of it."""

from .figures import plot as plot
from .html import Case as Case
from .html import fragment as fragment
from .html import page as page
from .method_grid import sheet as sheet

__all__ = ["Case", "fragment", "page", "plot", "sheet"]
