"""Estimators that were not fitted, refused in one sentence whatever their library raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..core.optional import is_instance
from ..errors import ModelError


@contextmanager
def fitted(estimator: object) -> Iterator[None]:
    """While this lasts, an estimator is asked for what it knows only once it was fitted.

    Raises:
        ModelError: where it, or a step of it, was not.
    """
    try:
        yield
    except Exception as error:
        if not is_instance(error, "sklearn.exceptions", "NotFittedError"):
            raise
        raise ModelError(
            f"This {type(estimator).__name__} was not fitted, so that there is nothing to explain yet: call its fit(X, y) first."
        ) from error


def check_fitted(estimator: object) -> None:
    """Check that an estimator of scikit-learn was fitted.

    Raises:
        ModelError: where it was not.
    """
    from sklearn.utils.validation import check_is_fitted

    with fitted(estimator):
        check_is_fitted(estimator)
