"""SHAP's values: by permutations, for any model, and exactly, for trees.

Both are Shapley values of "features outside the coalition are those of a reference", averaged over
references (interventional); they add up to F(x) − mean F(reference).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...baselines import Baseline, ReferencesLike, as_baseline
from ...core.declared import Adopted
from ...core.optional import optional
from ...core.shapes import checked_references, describe
from ...core.values import part
from ...errors import InputError
from ...fields import Field
from .base import Peer

_NEEDS = "The peer SHAP"


@part
class PermutationSHAP(Peer):
    """SHAP's ``PermutationExplainer``: Shapley values of the columns of x (B, N), estimated.

    Args:
        references: what absent columns become, several for each example.
        permutations: passes through all columns, each forward and backward.
        seed: of the permutations.

    Cost:
        (2N + 1) · permutations · references rows without a gradient.
    """

    references: Adopted[ReferencesLike, Baseline] = Adopted(as_baseline)
    permutations: int = 10
    seed: int = 0

    complete: ClassVar[bool] = True
    label: ClassVar[str] = "SHAP, permutations"

    def _explained(self, field: Field, x: Tensor) -> tuple[Tensor, Tensor | None]:
        shap = optional("shap", extra="shap", needs=_NEEDS)
        _check_columns(x)
        references = checked_references(self.references(x, field), x, "The references")
        values, base = torch.zeros_like(x), x.new_zeros(len(x))
        for b in range(len(x)):

            def scalars(rows: NDArray[np.float64], b: int = b) -> NDArray[np.float64]:
                z = torch.from_numpy(np.asarray(rows, np.float64)).to(x)
                index = torch.full((len(z),), b, device=x.device)
                scalars: NDArray[np.float64] = (
                    field.rows(z, index, gradient=False).value.double().cpu().numpy()
                )
                return scalars

            background = references[:, b].double().cpu().numpy()
            masker = shap.maskers.Independent(background, max_samples=len(background))
            explainer = shap.explainers.Permutation(scalars, masker, seed=self.seed)
            explanation = explainer(
                x[b : b + 1].double().cpu().numpy(),
                max_evals=self.permutations * (2 * x.shape[1] + 1),
                silent=True,
            )
            values[b] = torch.from_numpy(explanation.values[0]).to(x)
            base[b] = float(explanation.base_values[0])
        return values, base


@part
class TreeSHAP(Peer):
    """SHAP's ``TreeExplainer`` of the class that is predicted: exact, of scikit-learn's trees.

    Args:
        model: the forest, or boosted trees.
        references: what absent columns become, the same for all examples.

    Cost:
        A walk through every tree for each pair of an example and a reference.
    """

    model: object
    references: Adopted[ReferencesLike, Baseline] = Adopted(as_baseline)
    seed: int = 0

    complete: ClassVar[bool] = True
    counted: ClassVar[bool] = False
    label: ClassVar[str] = "TreeSHAP"

    def _explained(self, field: Field, x: Tensor) -> tuple[Tensor, Tensor | None]:
        shap = optional("shap", extra="shap", needs=_NEEDS)
        _check_columns(x)
        references = checked_references(self.references(x, field), x, "The references")
        if not torch.equal(references, references[:, :1].expand_as(references)):
            raise InputError("TreeSHAP takes references that all examples share.")
        explainer = shap.TreeExplainer(
            self.model, references[:, 0].cpu().numpy(), feature_perturbation="interventional"
        )
        shap_values = np.asarray(explainer.shap_values(x.cpu().numpy(), check_additivity=False))
        expected = np.broadcast_to(explainer.expected_value, shap_values.shape[2:] or (1,))
        classes = field.outputs(x).argmax(1).cpu().numpy()
        rows = np.arange(len(x))
        if shap_values.ndim == 2:  # one margin, of class 1: that of class 0 is its opposite
            sign = np.where(classes == 1, 1.0, -1.0)
            values, base = sign[:, None] * shap_values, sign * expected[0]
        else:
            values, base = shap_values[rows, :, classes], expected[classes]
        return torch.from_numpy(values).to(x), torch.from_numpy(base).to(x)


def _check_columns(x: Tensor) -> None:
    if x.ndim != 2:
        raise InputError(f"SHAP explains rows of columns (B, N), not {describe(x.shape)}.")
