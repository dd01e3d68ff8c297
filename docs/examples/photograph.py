import integrand as ig
from integrand.images import load_model

net = load_model("efficientnet-lite0")
x = net.prepare("sample:coffee")

result = ig.explain(
    net.module,
    x,
    target="predicted",
    method="weighted",
    baseline=["black", "white", "grey", "blurred"],
    normalisation=net.normalisation,
)
for name, d, weight in zip(result.names, result.fitness[:, 0], result.weights[:, 0], strict=True):
    print(f"{name:10s} D = {int(d):6d} pixels   weight {float(weight):.2f}")
