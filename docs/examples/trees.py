import numpy as np
import torch
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor

import integrand as ig

draws = np.random.default_rng(0)
X = draws.normal(size=(300, 4))
y = X[:, 0] * X[:, 1] + X[:, 2]

forest = RandomForestRegressor(30, random_state=0).fit(X, y)
result = ig.explain(
    forest, X[:5], method="generalized", baseline=torch.from_numpy(np.median(X, axis=0))
)
print(result.values.shape, float(result.residual.abs().max()) < 1e-10, float(result.error.max()))

boosted = GradientBoostingClassifier(n_estimators=30, random_state=0).fit(X, y > 0)
margin = ig.explain(boosted, X[:5], target=1, method="generalized")
probability = ig.explain(boosted, X[:5], target=ig.targets.Probability(1), method="generalized")
print(margin.output, probability.output)  # log-odds, and what they are as a probability

references = torch.from_numpy(X[50:58])
several = ig.explain(boosted, X[:3], target="predicted", method="weighted", baseline=references)
print(several.weights.shape)  # (8, 3): how much each reference counts, for each example

torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
parts = [ig.TorchField(network.double(), ig.targets.Output()), ig.fields.TreeField(forest)]
mean = ig.methods.generalized()(ig.fields.Sum(parts, [0.5, 0.5]), torch.from_numpy(X[:5]))
stacked = ig.fields.Compose(lambda v: (v[:, 0] - 2 * v[:, 1]).sigmoid(), *parts)
calibrated = ig.methods.generalized()(stacked, torch.from_numpy(X[:2]))
print(mean.error, calibrated.residual)

embedding = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh()).double()
places = embedding(torch.from_numpy(X)).detach().numpy()
small = RandomForestRegressor(5, max_depth=3, random_state=0).fit(places, y)
behind = ig.fields.EmbeddedTrees(ig.fields.TreeField(small), embedding)
print(ig.methods.generalized()(behind, torch.from_numpy(X[:2])).values)
