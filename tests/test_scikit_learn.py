"""Linear models and perceptrons of scikit-learn: what the field says is what the library says, and maps are closed forms."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightgbm import LGBMClassifier
from sklearn import linear_model as lm
from sklearn.datasets import make_multilabel_classification
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC, LinearSVR
from xgboost import XGBClassifier

import integrand as ig
from integrand.errors import InputError, ModelError, TargetError
from integrand.fields import ScikitLearnField

DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(90, 4))
Y = X @ [1.0, -2.0, 0.0, 0.5] + 0.3 + 0.1 * DRAWS.normal(size=90)
TWO = (Y > 0).astype(int)
THREE = np.digitize(Y, [-1.0, 1.0])
ROWS, START = torch.from_numpy(X[:6]), torch.from_numpy(X[6:7])

REGRESSIONS = [
    *(lm.LinearRegression(), lm.Ridge(), lm.RidgeCV(), lm.Lasso(0.01), lm.ElasticNet(0.01)),
    *(lm.SGDRegressor(random_state=0), lm.HuberRegressor(), lm.BayesianRidge(), lm.LassoLars(0.01)),
    LinearSVR(random_state=0),
]
CLASSIFIERS = [
    *(lm.LogisticRegression(), lm.LogisticRegression(C=0.1)),
    *(lm.SGDClassifier(loss="log_loss", random_state=0), lm.SGDClassifier(random_state=0)),
    *(lm.RidgeClassifier(), lm.Perceptron(random_state=0), LinearSVC(random_state=0)),
    LinearDiscriminantAnalysis(),
]
PERCEPTRONS = ["identity", "logistic", "tanh", "relu"]


def fitted(model: Any, y: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some have not converged, which is no matter here
        return model.fit(X, y)


def explained(model: Any, **options: Any) -> ig.Attribution:
    return ig.explain(model, ROWS, baseline=START, **options)


@pytest.mark.parametrize("model", REGRESSIONS, ids=lambda model: type(model).__name__)
def test_linear_regressions(model: Any) -> None:
    fitted(model, Y)
    result = explained(model)
    np.testing.assert_allclose(result.output.numpy(), model.predict(X[:6]), atol=1e-10)
    np.testing.assert_allclose(
        result.values.numpy(), np.ravel(model.coef_) * (X[:6] - X[6]), atol=1e-10
    )
    exact = explained(model, rule=ig.rules.Exact())
    np.testing.assert_allclose(result.values.numpy(), exact.values.numpy(), atol=1e-12)
    ig.testing.check_field(ScikitLearnField(model), ROWS)


@pytest.mark.parametrize(
    "model", [lm.PoissonRegressor(), lm.TweedieRegressor(power=1.5), lm.GammaRegressor()]
)
def test_regressions_behind_a_logarithm_are_explained_in_it(model: Any) -> None:
    fitted(model, np.exp(Y))
    result = explained(model)
    np.testing.assert_allclose(result.output.numpy(), np.log(model.predict(X[:6])), atol=1e-10)
    np.testing.assert_allclose(result.values.numpy(), model.coef_ * (X[:6] - X[6]), atol=1e-10)


def test_regressions_of_several_numbers() -> None:
    model = fitted(lm.Ridge(), np.stack([Y, -Y, Y * 2], 1))
    with pytest.raises(TargetError, match="3 outputs"):
        explained(model)
    np.testing.assert_allclose(
        explained(model, target=2).values.numpy(), model.coef_[2] * (X[:6] - X[6]), atol=1e-10
    )


@pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda model: type(model).__name__)
def test_classifiers_of_two(model: Any) -> None:
    """(−m, m): the class that is predicted gets m or −m, whichever speaks for it."""
    fitted(model, TWO)
    result = explained(model, target="predicted")
    margin = model.decision_function(X[:6])
    side = np.where(model.predict(X[:6]) == 1, 1.0, -1.0)
    assert set(side) == {1.0, -1.0}
    np.testing.assert_allclose(result.output.numpy(), np.abs(margin), atol=1e-10)
    np.testing.assert_allclose(
        result.values.numpy(), side[:, None] * np.ravel(model.coef_) * (X[:6] - X[6]), atol=1e-9
    )
    assert result.target == ig.targets.Logit(torch.from_numpy(model.predict(X[:6])))


@pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda model: type(model).__name__)
def test_classifiers_of_three(model: Any) -> None:
    fitted(model, THREE)
    for c in range(3):
        result = explained(model, target=c)
        np.testing.assert_allclose(
            result.output.numpy(), model.decision_function(X[:6])[:, c], atol=1e-9
        )
        np.testing.assert_allclose(
            result.values.numpy(), model.coef_[c] * (X[:6] - X[6]), atol=1e-9
        )


@pytest.mark.parametrize("classes", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda model: type(model).__name__)
def test_probabilities_are_the_librarys(model: Any, classes: Any) -> None:
    """Softmax, logistic, or one against the rest: whichever this model means; none where it has none."""
    fitted(model, classes)
    field = ScikitLearnField(model, ig.targets.Probability(1))
    if hasattr(model, "predict_proba"):
        expected = model.predict_proba(X[:6])[:, 1]
        np.testing.assert_allclose(field.value(ROWS).numpy(), expected, atol=1e-8)
        ig.testing.check_field(field, ROWS)
    else:
        with pytest.raises(TargetError, match="no probabilities"):
            field.value(ROWS)


@pytest.mark.parametrize("activation", PERCEPTRONS)
@pytest.mark.parametrize("classes", [TWO, THREE, None], ids=["two", "three", "regression"])
def test_perceptrons(activation: str, classes: Any) -> None:
    options: dict[str, Any] = {"activation": activation, "max_iter": 40, "random_state": 0}
    if classes is None:
        model = fitted(MLPRegressor(hidden_layer_sizes=(7, 5), **options), Y)
        field, expected = ScikitLearnField(model), model.predict(X[:6])
    else:
        model = fitted(MLPClassifier((7, 5), **options), classes)
        field = ScikitLearnField(model, ig.targets.Probability(1))
        expected = model.predict_proba(X[:6])[:, 1]
    np.testing.assert_allclose(field.value(ROWS).numpy(), expected, atol=1e-8)
    ig.testing.check_field(field, ROWS, tolerance=1e-3)


def test_a_map_of_a_perceptron_by_a_dense_sum() -> None:
    """(x − b) ⊙ mean of ∇F at 20,000 midpoints, layer by layer from the weights."""
    model = fitted(MLPClassifier((6,), activation="tanh", max_iter=60, random_state=0), THREE)
    result = explained(model, target=2, tol=1e-5)
    w, v = (torch.from_numpy(weight) for weight in model.coefs_)
    a, c = (torch.from_numpy(bias) for bias in model.intercepts_)
    times = (torch.arange(20_000).double()[:, None] + 0.5) / 20_000
    for row, values in zip(ROWS, result.values, strict=True):
        z = START + times * (row - START)
        slope = (1 - (z @ w + a).tanh().square()) * v[:, 2] @ w.T
        torch.testing.assert_close(values, (row - START[0]) * slope.mean(0), rtol=1e-5, atol=1e-8)
    logits = (ROWS @ w + a).tanh() @ v + c
    torch.testing.assert_close(result.output, logits[:, 2])


def test_classes_that_do_not_exclude_one_another() -> None:
    inputs, labels = make_multilabel_classification(80, 4, n_classes=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((5,), max_iter=30, random_state=0).fit(inputs, labels)
    rows = torch.from_numpy(inputs[:5])
    field = ScikitLearnField(model, lambda out: out[:, 1].sigmoid())
    np.testing.assert_allclose(
        field.value(rows).numpy(), model.predict_proba(inputs[:5])[:, 1], atol=1e-9
    )
    with pytest.raises(TargetError, match="do not exclude"):
        ig.explain(model, rows, target=ig.targets.Probability(1))


def test_a_class_may_be_called_by_its_word() -> None:
    words = np.array(["no", "perhaps", "yes"])[THREE]
    model = fitted(lm.LogisticRegression(), words)
    torch.testing.assert_close(
        explained(model, target="yes").values, explained(model, target=2).values
    )
    with pytest.raises(TargetError, match="'no', 'perhaps', 'yes'"):
        explained(model, target="maybe")


def test_frames_are_read_in_the_order_of_the_training() -> None:
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = lm.LinearRegression().fit(frame, Y)
    result = ig.explain(model, frame[list("dbca")].iloc[:6], baseline=frame[list("cbad")].iloc[6])
    assert result.feature_names == tuple("abcd")
    np.testing.assert_allclose(result.values.numpy(), model.coef_ * (X[:6] - X[6]), atol=1e-10)
    with pytest.raises(InputError, match="lacks 'c'"):
        ig.explain(model, frame[["a", "b", "d"]])


def test_several_targets_and_weights_in_single_precision() -> None:
    model = MLPClassifier((5,), max_iter=20, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X.astype(np.float32), THREE)
    assert model.coefs_[0].dtype == np.float32
    targets = [0, ig.targets.Probability(2), ig.targets.Margin(0, 1)]
    several = ig.explain_targets(model, ROWS, targets=targets, baseline=START, tol=1e-4)
    for target, result in zip(targets, several, strict=True):
        alone = explained(model, target=target, tol=1e-4)
        torch.testing.assert_close(result.values, alone.values, rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(
        several[1].output.numpy(), model.predict_proba(X[:6])[:, 2], atol=1e-5
    )


@pytest.mark.parametrize("model", [SVC(), KNeighborsClassifier()])
def test_models_without_a_known_gradient_are_refused_in_words(model: Any) -> None:
    with pytest.raises(ModelError, match="trees, linear models and multilayer perceptrons"):
        ig.explain(fitted(model, TWO), ROWS, target=1)


def test_a_search_is_not_the_model_it_found() -> None:
    search = fitted(GridSearchCV(lm.LogisticRegression(), {"C": [0.1, 1.0]}), TWO)
    with pytest.raises(ModelError, match="best_estimator_"):
        ig.explain(search, ROWS, target=1)
    assert len(explained(search.best_estimator_, target=1)) == 6


@pytest.mark.parametrize(
    "model",
    [
        lm.LogisticRegression(),
        lm.Ridge(),
        MLPClassifier(),
        RandomForestClassifier(),
        make_pipeline(StandardScaler(), lm.LogisticRegression()),
        XGBClassifier(),
        LGBMClassifier(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_models_that_were_not_trained_say_so(model: Any) -> None:
    with pytest.raises(
        ModelError, match=rf"This {type(model).__name__} was not fitted.*fit\(X, y\)"
    ):
        ig.explain(model, ROWS, target=1)
    if isinstance(model, Pipeline):
        with pytest.raises(ModelError, match="was not fitted"):
            ig.fields.ScikitLearnField(model, 1)
        half = make_pipeline(StandardScaler(), fitted(lm.LogisticRegression(), TWO))
        with pytest.raises(ModelError, match="This Pipeline was not fitted"):
            ig.explain(half, ROWS, target=1)


def test_a_model_that_says_something_else_than_its_weights_is_refused() -> None:
    class Clipped(lm.LinearRegression):
        def predict(self, X: Any) -> Any:
            return super().predict(X).clip(0)

    with pytest.raises(ModelError, match="do not say what the model says"):
        ig.explain(fitted(Clipped(), Y), ROWS)


def test_options_of_torch_models_are_refused() -> None:
    with pytest.raises(InputError, match="LinearRegression takes none"):
        ig.explain(fitted(lm.LinearRegression(), Y), ROWS, batch_size=3)


@pytest.mark.parametrize("kind", ["linear", "forest", "lightgbm"])
def test_labels_that_are_other_numbers_than_places_are_warned_of(kind: str) -> None:
    """Classes 1 and 2: target=1 is the place of the class called 2, and says so; "2" is that class."""
    draws = np.random.default_rng(0).normal(size=(80, 3))
    labels = np.where(draws[:, 0] > 0, 2, 1)
    model: Any = {
        "linear": lambda: lm.LogisticRegression(),
        "forest": lambda: RandomForestClassifier(3, max_depth=3, random_state=0),
        "lightgbm": lambda: pytest.importorskip("lightgbm").LGBMClassifier(
            n_estimators=3, verbose=-1, n_jobs=1
        ),
    }[kind]()
    model.fit(draws, labels)
    with pytest.warns(ig.errors.LabelWarning, match="labelled '2'"):
        by_place = ig.explain(model, draws[:4], target=1)
    by_label = ig.explain(model, draws[:4], target="2")
    assert torch.equal(by_place.output, by_label.output)
    margin = by_label.output.numpy() > (0.5 if kind == "forest" else 0)
    np.testing.assert_array_equal(margin, model.predict(draws[:4]) == 2)
    with pytest.raises(ig.errors.TargetError, match="its classes are '1', '2'"):
        ig.explain(model, draws[:4], target="3")
