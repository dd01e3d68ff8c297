"""Everything Integrand raises or warns about, drawn as a tree.

    IntegrandError
    ├── InputError (ValueError)          what was handed in cannot be explained
    │   ├── ShapeError                   shapes that do not fit together
    │   ├── IntegerInput (TypeError)     integers have no gradient
    │   ├── NonFiniteInput               NaN or infinity in the input
    │   ├── TargetError                  the target does not fit the model's output
    │   ├── BaselineError                the baseline does not fit the input
    │   ├── MissingData                  a suite's problem finds no examples of its kind
    │   └── ImageError                   a picture that cannot be read
    ├── ModelError (RuntimeError)        the model cannot be explained as it is
    │   ├── DetachedModel                no gradient leads from the output to the input
    │   ├── NoGradient                   this field jumps and has no gradient; ask for its exact share
    │   ├── NoHessian                    this field has no second derivatives
    │   ├── NonFiniteGradient            NaN or infinity appeared inside the model
    │   └── ModelTooLarge                one row alone does not fit into memory
    ├── UnknownName (LookupError)        no such method, layer, baseline …; names the nearest
    ├── NoShare (TypeError)              this field has no exact share; use a quadrature
    └── MissingExtra (ImportError)       an optional package is not installed

    IntegrandWarning (UserWarning)
    ├── TrainingModeWarning              the model was in training mode
    ├── IncompleteWarning                the map misses more than a tenth of the change
    ├── DependentRowsWarning             what the model says of a row depends on the rows beside it
    ├── StochasticModelWarning           the model says something else when it is asked again
    ├── KinkWarning                      second derivatives do not see the kinks of the model
    ├── FitnessWarning                   fitness could not tell the baselines apart
    ├── OneOutputWarning                 "predicted" of a model with one output per row
    ├── LabelWarning                     an int was taken for the place of a class that is labelled otherwise
    ├── MixedColumnsWarning              columns of a pipeline that come from several of the frame
    ├── SupportWarning                   support regressors have not learnt what they should say
    ├── OneTokenWarning                  a corrupt text that differs in one token ranks none
    ├── SmallerCallsWarning              memory ran out: calls have fewer rows than batch_size says
    └── OptimizeWarning                  optimize=True can do nothing for this model

Each message says what was wrong and what to do about it.
"""

from __future__ import annotations

import contextlib
import difflib
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path


class IntegrandError(Exception):
    """The root of every error that Integrand raises on purpose."""


class InputError(IntegrandError, ValueError):
    """What was handed in cannot be explained."""


class ShapeError(InputError):
    """Shapes that do not fit together."""


class IntegerInput(InputError, TypeError):
    """Integers have no gradient."""


class NonFiniteInput(InputError):
    """NaN or infinity in the input."""


class TargetError(InputError):
    """The target does not fit the model's output."""


class BaselineError(InputError):
    """The baseline does not fit the input."""


class MissingData(InputError):
    """A problem of a suite finds no examples of its kind where it was told to look."""


class ImageError(InputError):
    """A picture that cannot be read."""


class ModelError(IntegrandError, RuntimeError):
    """The model cannot be explained as it is."""


class DetachedModel(ModelError):
    """No gradient leads from the output to the input."""


class NoGradient(ModelError):
    """This field jumps and has no gradient; ask for its exact share."""


class NoHessian(ModelError):
    """This field has no second derivatives."""


class NonFiniteGradient(ModelError):
    """NaN or infinity appeared inside the model."""


class ModelTooLarge(ModelError):
    """One row alone does not fit into memory."""


class UnknownName(IntegrandError, LookupError):
    """No such method, layer, baseline …; the message names the nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str | None = None) -> None:
        known = [k for k in known if k]
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
        if hint is not None:
            pass
        elif near:
            hint = "Did you mean " + ", ".join(repr(n) for n in near) + "?"
        else:
            shown = ", ".join(repr(k) for k in known[:12]) or "none"
            hint = f"Known: {shown}{', …' if len(known) > 12 else ''}."
        super().__init__(f"There is no {kind} named {name!r}. {hint}")
        self.near = near


class NoShare(IntegrandError, TypeError):
    """This field has no exact share; use a quadrature."""


class MissingExtra(IntegrandError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, why: str) -> None:
        super().__init__(
            f"{why} needs the package {package!r}: install it with pip install 'integrand[{extra}]'."
        )


class IntegrandWarning(UserWarning):
    """The root of every warning that Integrand gives."""


class TrainingModeWarning(IntegrandWarning):
    """The model was in training mode."""


class IncompleteWarning(IntegrandWarning):
    """The map misses more than a tenth of the change it should add up to."""


class DependentRowsWarning(IntegrandWarning):
    """What the model says of a row depends on the rows beside it."""


class StochasticModelWarning(IntegrandWarning):
    """The model says something else when it is asked again."""


class KinkWarning(IntegrandWarning):
    """Second derivatives do not see the kinks of the model."""


class FitnessWarning(IntegrandWarning):
    """Fitness could not tell the baselines apart."""


class OneOutputWarning(IntegrandWarning):
    """ "predicted" of a model with one output per row was taken for the sign of a logit."""


class LabelWarning(IntegrandWarning):
    """An int was taken for the place of a class, and classes are labelled with other numbers."""


class MixedColumnsWarning(IntegrandWarning):
    """Columns of a pipeline come from several columns of the frame, and stay as they are."""


class SupportWarning(IntegrandWarning):
    """Support regressors have not learnt what they should say."""


class OneTokenWarning(IntegrandWarning):
    """A corrupt text that differs in one token gives that token everything, by construction."""


class SmallerCallsWarning(IntegrandWarning):
    """Memory ran out: model calls have fewer rows than ``batch_size`` says."""


class OptimizeWarning(IntegrandWarning):
    """``optimize=True`` can do nothing for this model."""


def warn(message: str, category: type[IntegrandWarning]) -> None:
    """Warn, pointing at the line outside Integrand that led here.

    Args:
        message: what was wrong, and what to do about it.
        category: one of the tree above.
    """
    inside = (str(Path(__file__).parent), contextlib.__file__)
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
