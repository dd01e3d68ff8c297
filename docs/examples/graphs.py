import torch

import integrand as ig

torch.manual_seed(0)


def gcn(x, edges, batch):
    """Each node's features meet those of its neighbours; a graph is the sum of its nodes."""
    sent = torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])
    nodes = (x[:, :1] * sent[:, 1:]).tanh()  # high where both are
    return x.new_zeros(int(batch.max()) + 1, 1).index_add(0, batch, nodes)


def graph(nodes, motif):
    """A ring; the features of the motif's nodes alone are large."""
    x = 0.05 * torch.rand(nodes, 2)
    x[motif] += 1.0
    ring = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])
    return ig.fields.Graph(x, torch.cat([ring, ring.flip(0)], 1))


graphs = [graph(8, [2, 3, 4]), graph(5, [0, 1])]
field = ig.fields.GraphField(gcn, graphs, target=0)
result = ig.explain(field, field.inputs)
for scores in field.apart(result.values):  # one map for each graph, as large as it is
    print(scores.sum(1).round(decimals=2).tolist())

nodes = torch.randn(1, 6, 3)
line = torch.stack([torch.arange(5), torch.arange(1, 6)])
near = torch.eye(6)
near[line[0], line[1]] = near[line[1], line[0]] = 1
weight = torch.randn(3, 2)


def node_scores(z):
    return (near @ torch.tanh(near @ z) @ weight)[:, 2]


steps = ig.explain(node_scores, nodes, target=1, method="graph", edges=line, node=2)
print(steps.values.sum(1))  # the published vector: a number for each feature
