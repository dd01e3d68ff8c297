import numpy as np
import pandas as pd
import torch

import integrand as ig

rng, origin = np.random.default_rng(0), np.arange(200) % 3
frame = pd.DataFrame({"weight": rng.normal(size=200), "power": rng.normal(size=200)})
for i, name in enumerate(("europe", "japan", "usa")):
    frame[f"origin_{name}"] = origin == i
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))

result = ig.explain(model, frame, target=0, baseline=frame.mean())
by_origin = result.grouped({"origin": ["origin_europe", "origin_japan", "origin_usa"]})
print(by_origin.to_pandas().head())  # contributions, with the index of the frame
print(by_origin.to_pandas("examples").head())  # output, residual, gap, error of each row
print(by_origin.importance())  # mean |contribution| with 95 % intervals

one_row = by_origin.plot(kind="waterfall", examples=0)
all_rows = by_origin.plot(kind="beeswarm")
over_value = by_origin.plot(kind="dependence", feature="weight")

loader = torch.utils.data.DataLoader(torch.randn(1_000, 5), batch_size=256)
scorer = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
print(ig.explain(scorer, loader, target=0, feature_names=["a", "b", "c", "d", "e"]).importance())
