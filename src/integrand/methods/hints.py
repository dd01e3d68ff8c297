"""What people type who come from a paper or from another library, and what it is called here, if it
is here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_ALIASES = {
    "ig": "integrated",
    "eg": "expected",
    "wg": "weighted",
    "agi": "adversarial",
    "idgi": "idgi",
    "idg": "decision",
    "samp": "samp",
    "smoothgrad": "smoothgrad",
    "xrai": "xrai",
    "gad": "artificial_distancing",
    "leftig": "left",
    "greedypig": "greedy_pig",
    "pig": "greedy_pig",
    "integratedgradients": "integrated",
    "expectedgradients": "expected",
    "gradientshap": "expected",
    "weightedgradients": "weighted",
    "bshap": "baseline_shapley",
    "shapley": "baseline_shapley",
    "shapleyvaluesampling": "baseline_shapley",
}
"""Acronyms and titles that mean one method; those that mean two (GIG, BIG, SIG, EIG) are left to
the reader."""

RENAMED = {
    "important": "idgi",
    "salient": "samp",
    "regions": "xrai",
    "smooth": "smoothgrad",
    "distanced": "artificial_distancing",
    "greedy": "greedy_pig",
}
"""Names that methods went by before; they are found, with a warning."""

_ELSEWHERE = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "guidedgradcam": "Guided Grad-CAM",
    "lime": "LIME",
    "shap": "SHAP's sampling of coalitions",
    "kernelshap": "Kernel SHAP",
    "deeplift": "DeepLIFT",
    "deepliftshap": "DeepLIFT SHAP",
    "lrp": "layer-wise relevance propagation",
    "occlusion": "occlusion",
    "featureablation": "feature ablation",
    "rise": "RISE",
    "tcav": "TCAV",
}


def formal(name: str) -> str:
    """The published name that a name or an alias stands for.

    >>> formal("WG"), formal("ig2"), formal("SmoothGrad")
    ('weighted', 'ig2', 'smoothgrad')
    """
    return _ALIASES.get(_bare(name), RENAMED.get(name, name))


def about_method(name: str) -> str | None:
    """A hint for a name that no method has; None where there is none to give."""
    bare = _bare(name)
    if bare in _ALIASES:
        return f"It goes by {_ALIASES[bare]!r}."
    if bare in _ELSEWHERE:
        return (
            f"{_ELSEWHERE[bare][0].upper()}{_ELSEWHERE[bare][1:]} is not in this library, which integrates gradients along paths; "
            "'integrand methods' lists what is."
        )
    return None


def about_option(name: str, value: object, accepted: Mapping[str, Any]) -> str | None:
    """A hint for an option that a published method does not have; None where there is none to
    give."""
    number = value if isinstance(value, int) else 50
    if name in ("n_steps", "n_points", "num_steps", "nodes", "steps"):
        if "steps" in accepted:
            return f"Say steps={number}."
        return (
            f"Say rule=ig.rules.GaussLegendre({number}), or tol= and as many as it takes."
            if "rule" in accepted
            else None
        )
    if name in ("n_samples", "nsamples", "num_samples", "samples"):
        return f"Say draws={number}." if "draws" in accepted else None
    if name in ("n_iter", "npermutations", "n_permutations") and "permutations" in accepted:
        return f"Say permutations={number}."
    if name in ("baselines", "references"):
        return "Say baseline=, which every method that starts somewhere takes."
    if name == "max_gradients" and "rule" in accepted:
        return f"Say rule=ig.rules.Adaptive(0.05, max_gradients={value!r}), with the tolerance you want, in place of tol=."
    return _ELSEWHERE_OPTIONS.get(name)


_ELSEWHERE_OPTIONS = {
    "internal_batch_size": "Say batch_size=, or leave it out: it is found while working.",
    "additional_forward_args": "Say extra=, a tuple or a dict.",
    "feature_names": "Say names= when the result is drawn: result.plot(names=[...]).",
    "return_convergence_delta": "It is always there: result.residual, and result.gap relative to the change.",
    "attribute_to_layer_input": "Say side='input' with method='layer'.",
}


def _bare(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()
