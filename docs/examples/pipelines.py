import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import integrand as ig

rng = np.random.default_rng(0)
frame = pd.DataFrame(
    {
        "age": rng.normal(40, 10, 300),
        "fare": rng.gamma(2, 10, 300),
        "city": rng.choice(["Bonn", "Köln", "Trier"], 300),
    }
)
frame.loc[::9, "age"] = np.nan
score = frame["fare"] + 9 * (frame["city"] == "Köln") + (frame["age"].fillna(40) - 40)
survived = score + rng.normal(0, 5, 300) > 20

numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
prepare = make_column_transformer((numbers, ["age", "fare"]), (OneHotEncoder(), ["city"]))
pipeline = Pipeline([("prepare", prepare), ("model", GradientBoostingClassifier(random_state=0))])
pipeline.fit(frame, survived)

result = ig.explain(pipeline, frame[:50], target="predicted", baseline=frame.iloc[[100]])
print(result.to_pandas("long").head(6))  # city = Köln beside its contribution
print(result.importance())

expected = ig.explain(
    pipeline,
    frame[:50],
    target=1,
    method="expected",
    baseline=frame[100:150],
)
print(expected.to_pandas().head(3))

columns = ["age", "fare"]
model = MLPRegressor(hidden_layer_sizes=(8,), max_iter=50, tol=1.0, random_state=0)
steps = [("fill", SimpleImputer()), ("scale", StandardScaler()), ("model", model)]
network = Pipeline(steps).fit(frame[columns], survived)
early = ig.explain(
    network, frame[columns][:5], baseline=frame[columns].mean(), attribute_after="fill"
)
print(early.to_pandas())
