import tempfile

import torch
from torch.utils.data import DataLoader, TensorDataset

import integrand as ig

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
loader = DataLoader(TensorDataset(torch.randn(200, 6)), batch_size=64)
out = tempfile.mkdtemp()

ig.explain_batches(model, loader, target="predicted", out=out)
folder = ig.load(out)  # reads nothing yet
print(folder)
print(folder[2].residual.abs().max())  # one batch, from its file
print(ig.concat(folder).values.shape)  # all of them, where they fit into memory

ig.explain_batches(model, loader, target="predicted", out=out, resume=True)  # computes nothing
