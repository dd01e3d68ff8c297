import torch

import integrand as ig

torch.manual_seed(0)
nn = torch.nn
model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))
x = torch.randn(8, 4)

layer = ig.explain(model, x, target=2, method="layer", site="1", baseline=x.mean(0))
flow = ig.explain(model, x, target=2, method="conductance", site="1", baseline=x.mean(0), steps=20)
print(layer.values.shape, flow.values.shape)  # (8, 16): a number for every unit of the layer
print(
    f"{float((layer.values - flow.values).abs().max()):.2g}"
)  # two ways through the layer's space

first, margin = ig.explain_targets(
    model, x, targets=[0, ig.targets.Margin(1, 2)], baseline=x.mean(0)
)
print(first.values.shape, margin.target)

both = ig.explain(model, x, target=2, method="layer", site=["1", "3"], baseline=x.mean(0))
print(
    [tuple(values.shape) for values in both.values]
)  # a map for each, which add up to the change together

lstm, head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)
series = torch.randn(8, 6, 4)


def last_state(z):
    return head(lstm(z)[1][0][-1])


state = ig.explain(
    last_state, series, target=2, method="layer", site=ig.fields.Site(lstm, tensor=1)
)
print(state.values.shape)  # of (y, (h, c)) the second, h

words, judge = nn.Embedding(50, 4), nn.Linear(4, 3)


def classify(ids):
    return judge(words(ids).tanh().mean(1))


ids = torch.randint(50, (2, 6))
tokens = ig.explain(
    classify, ids, target=0, method="layer", site=words, layer_baseline=words.weight.mean(0)
)
print(tokens.values.sum(-1).shape)  # a number for every token
