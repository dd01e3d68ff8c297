import tempfile
from pathlib import Path

import numpy as np

import integrand as ig

folder = Path(tempfile.mkdtemp())
np.save(folder / "inputs.npy", np.random.default_rng(0).normal(size=(200, 6)).astype("float32"))
(folder / "my.py").write_text(
    "import torch\n"
    "def load():\n"
    "    torch.manual_seed(0)\n"
    "    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))\n"
)
(folder / "run.toml").write_text("""
[model]
import = "my.py:load"

[data]
kind = "npy"
path = "inputs.npy"

[method]
method = "integrated(baseline=0.0, rule=GaussLegendre(8))"
target = "predicted"
seed = 0

[store]
rows_per_shard = 64
""")

results = ig.run.run(folder / "run.toml", folder / "out", engine=ig.run.Local(workers=1))
print(results.status)
print(results.values.shape, results.maps([3, 5]))
print(results.table.slice(0, 3).to_pandas().to_string())
