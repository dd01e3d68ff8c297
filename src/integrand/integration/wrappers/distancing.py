"""Gradient artificial distancing (GAD): keep the attributions that persist as two classes are
pushed apart.

    f_t ≈ f + τ_t u on class A, f − τ_t u on class B         support regressors: copies of the
                                                             model, trained to say so
    A(x) = A_f(x) ⊙ [feature among the first q of |A_f(x)| and of every |A_{f_t}(x)|]

The paper's code and details are not public: everything that a reader could not know from its
abstract is our reconstruction, and is named in ``ArtificialDistancing``.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.declared import Adopted
from ...core.features import Features, feature_map, feature_scores
from ...core.random import generator
from ...core.shapes import describe, flattened, plain
from ...core.values import part
from ...errors import InputError, ModelError, SupportWarning, warn
from ...fields import Field, innermost
from ...model.autograd import gradients
from ...model.network import Network
from ...targets import output_tensor
from ..assemble import Watch, rearranged
from ..attribution import Attribution, Explainer, ExplainerLike, Wrapper, as_explainer
from ..cost import Cost
from .base import Runs, check_wrappable, nan_like, one_call, warned_once

_FEWEST = 5  # examples of each class: fewer cannot be both learnt from and held out


@dataclass(frozen=True, eq=False)
class Supports:
    """Support regressors, and how well they learnt what they were to say.

    Attributes:
        models: T copies of the model, in eval mode.
        fit: R² of each on examples that it was not trained on, along the direction in which classes
            were pushed apart.
        rows: how many rows they were trained on together, each one forward and one backward pass.
    """

    models: tuple[nn.Module, ...]
    fit: tuple[float, ...]
    rows: int

    def __len__(self) -> int:
        return len(self.models)


@part
class ArtificialDistancing(Wrapper):
    """Gradient artificial distancing (GAD, experimental): keep what persists as two classes are
    pushed apart.

        goal_t(x) = f(x) ± τ_t u,   u = (e_A − e_B)/√2,   τ_t = distances_t × the gap between the classes' means along u
        f_t = copy of f, min Σ ‖f_t(x) − goal_t(x)‖² over the data
        A = A_f ⊙ [feature among the first ``keep`` of Σ|A_f| and of every Σ|A_{f_t}|]

    The user's model is copied and not touched. ``notes["fit"]`` (T, 1, B) is each support's R²;
    ``notes["kept"]`` (1, 1, B) the fraction of features that is left. Zeros are features that did
    not persist; what they would have had is in ``residual``.

    Args:
        method: any method.
        data: examples of both classes: a tensor (N, \\*s), a dataset, or a DataLoader, of examples
            or of (example, label) pairs; all of it is held in memory.
        classes: (A, B), the two outputs that are compared; examples of other classes are left out.
        labels: (N,) the examples' classes, where the data brings none; else the model's own guess
            among the two.
        distances: τ_t in units of the gap; one support regressor for each.
        epochs: of training each copy by Adam on the squared error of all outputs, over minibatches;
            the copies are in eval mode, so norms keep their statistics and nothing is dropped.
        rate: the learning rate.
        batch: rows of a minibatch.
        held: the fraction of each class that is held out, to see whether a support has learnt
            (``fit``).
        fit: an R² on what was held out below this is warned of (``SupportWarning``).
        keep: the fraction of features that counts as important.
        features: what a feature is: "auto" is pixels for images, else tokens or columns.
        seed: of the split and of the minibatches; nothing global is touched.
        supports: support regressors that are trained already (``trained``); without them every call
            trains its own.

    Raises:
        InputError: for data that does not fit, fewer than five examples of either class, or
            training models with arguments for each example, which the data would need too.
        ModelError: for functions, which have no parameters to train.

    Cost:
        (1 + T) × the method's, which ``cost`` counts, and T × epochs × (1 − held) × N training rows
        of one forward and one backward pass, to parameters too, which it does not
        (``Supports.rows`` says how many); ``seconds`` holds the time of both. Train once for many
        calls: ``method.trained(field)``.

    References:
        Mazini Rodrigues, Boutry, Najman, "Transforming gradient-based techniques into interpretable
        methods", arXiv 2401.14434. Theirs, as far as the abstract says: pairs of classes, shifted
        activations of the last layer, support regressors from images to them, and a fusion of maps
        of which only persistent regions remain. Ours: the shift along u in units of the classes'
        gap, its sizes, all parameters trained by Adam, the fusion by the intersection of the
        highest ``keep`` of |A|, and every default. No number of the paper could be checked.

    Example:
        >>> import torch, integrand as ig
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
        ... )
        >>> data, labels = torch.randn(40, 4), torch.arange(40) % 2
        >>> method = ig.ArtificialDistancing(ig.methods.integrated(), data, (0, 1), labels, keep=0.5)
        >>> method
        ArtificialDistancing(Method(), tensor<40x4>, (0, 1), tensor<40>, keep=0.5)
    """

    method: Adopted[ExplainerLike, Explainer] = Adopted(as_explainer)
    data: Any  # type: ignore[misc]  # mypy takes the descriptor before it for a default
    classes: tuple[int, int]  # type: ignore[misc]
    labels: Tensor | None = None
    distances: tuple[float, ...] = (0.5, 1.0, 1.5)
    epochs: int = 20
    rate: float = 1e-3
    batch: int = 16
    held: float = 0.2
    fit: float = 0.8
    keep: float = 0.25
    features: Features = "auto"
    seed: int = 0
    supports: Supports | None = None

    complete: ClassVar[bool] = False
    """What does not persist is zero."""
    at_layers: ClassVar[bool] = False
    """Copies are trained on inputs, and what is at a layer is another thing in each of them."""

    def __post_init__(self) -> None:
        check_wrappable(self.method, "ArtificialDistancing", layers=False)
        if len(self.classes) != 2 or self.classes[0] == self.classes[1]:
            raise InputError(f"classes are two different outputs (A, B), not {self.classes}.")
        if not self.distances or min(self.distances) <= 0:
            raise InputError(f"distances are one or more positive numbers, not {self.distances}.")
        if self.epochs < 1 or self.batch < 1 or self.rate <= 0:
            raise InputError(
                f"epochs and batch are 1 or more and rate is positive, not {self.epochs}, {self.batch} and {self.rate}."
            )
        if not 0 < self.held < 1:
            raise InputError(
                f"held is the fraction of the data that is held out, between 0 and 1, not {self.held}."
            )
        if not 0 < self.keep <= 1:
            raise InputError(
                f"keep is the fraction of features that counts as important, between 0 and 1, not {self.keep}."
            )

    @one_call
    def __call__(self, field: Field, x: Tensor, *, watch: Watch | None = None) -> Attribution:
        groups = feature_map(self.features, x)
        began = time.perf_counter()
        supports = self.supports or self._train(field)
        runs = Runs(watch, 1 + len(supports))
        runs.add(Cost(seconds=time.perf_counter() - began))
        with warned_once(), gradients(False):
            attribution = runs(self.method, field, x)
            persistent = self._important_features(attribution.values, groups)
            for model in supports.models:
                persistent &= self._important_features(
                    runs(self.method, field.with_model(model), x).values, groups
                )
            where = flattened(groups.expand(attribution.values.shape), 1)
            mask = persistent.gather(1, where).reshape(attribution.values.shape)
        batch = len(attribution)
        fit = torch.tensor(supports.fit, dtype=attribution.values.dtype, device=x.device)
        return rearranged(
            attribution,
            torch.where(mask, attribution.values, 0),
            error=nan_like(attribution.error),
            notes={
                **attribution.notes,
                "fit": fit[:, None, None].expand(-1, 1, batch).contiguous(),
                "kept": persistent.to(attribution.values.dtype).mean(1)[None, None],
            },
            cost=runs.cost,
            method=self,
        )

    def trained(self, field: Field) -> ArtificialDistancing:
        """The same, with support regressors trained for the model of this field; warns where they
        fit poorly."""
        return dataclasses.replace(self, supports=self._train(field))

    def _important_features(self, values: Tensor, groups: Tensor) -> Tensor:
        """Which features (B, n) are among the first ``keep`` by |values|; ties go to the first."""
        scores = feature_scores(values.abs()[None], groups)[0]
        count = max(1, round(self.keep * scores.shape[1]))
        first = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, first, True)

    # --- training -------------------------------------------------------------------------------------------------

    def _train(self, field: Field) -> Supports:
        _check_trainable(field)
        with field.ready(), gradients(False):
            training_set = self._training_set(field)
            models, fit, rows = [], [], 0
            for number, distance in enumerate(self.distances):
                model = _copy_of(_network(field).model)
                rows += self._fit_support(field.with_model(model), training_set, distance, number)
                models.append(model)
                fit.append(self._r_squared(field.with_model(model), training_set, distance))
        poor = [
            f"{r_squared:.2f} at distance {distance:g}"
            for r_squared, distance in zip(fit, self.distances, strict=True)
            if not r_squared >= self.fit
        ]
        if poor:
            warn(
                f"{len(poor)} of {len(fit)} support regressors have not learnt to push the classes apart: R² on held-out examples is "
                f"{', '.join(poor)}. Give more data, more epochs=, or another rate=; what does not persist may be their fault.",
                SupportWarning,
            )
        return Supports(tuple(models), tuple(fit), rows)

    def _training_set(self, field: Field) -> _TrainingSet:
        examples, labels = _load_examples(self.data, self.labels)
        place = next((p for p in _module(field).parameters()), None)
        examples = (
            examples.to(device=place.device, dtype=place.dtype) if place is not None else examples
        )
        outputs = field.outputs(examples, pool=True)
        if outputs.ndim != 2 or not all(0 <= label < outputs.shape[1] for label in self.classes):
            raise InputError(
                f"classes={self.classes} are two outputs of a model with a class axis; this one returns {describe(outputs.shape[1:])}."
            )
        first, second = self.classes
        if labels is None:
            labels = torch.where(outputs[:, first] >= outputs[:, second], first, second)
        labels = labels.to(outputs.device)
        selected = (labels == first) | (labels == second)
        examples, outputs, labels = examples[selected], outputs[selected], labels[selected]
        side = torch.where(labels == first, 1.0, -1.0).to(outputs)
        counts = int((side > 0).sum()), int((side < 0).sum())
        if min(counts) < _FEWEST:
            raise InputError(
                f"The data holds {counts[0]} examples of class {first} and {counts[1]} of class {second}: give at least {_FEWEST} of "
                "each, to learn from and to hold out."
            )
        direction = torch.zeros(outputs.shape[1]).to(outputs)
        direction[first], direction[second] = 0.5**0.5, -(0.5**0.5)
        along = outputs @ direction
        gap = (along[side > 0].mean() - along[side < 0].mean()).abs()
        if not bool(gap > 0):
            raise InputError(
                f"The model says the same of classes {first} and {second}: there is no gap to widen."
            )
        learnt, held_out = self._split(side)
        return _TrainingSet(examples, outputs, side, direction, float(gap), learnt, held_out)

    def _split(self, side: Tensor) -> tuple[Tensor, Tensor]:
        """Which examples are learnt from, and which are held out: the same fraction of both
        classes."""
        learnt, held_out = [], []
        for number, in_class in enumerate((side > 0, side < 0)):
            members = in_class.nonzero()[:, 0]
            order = torch.randperm(len(members), generator=generator(self.seed, 0, number)).to(
                members.device
            )
            out = min(max(1, round(self.held * len(members))), len(members) - 1)
            held_out.append(members[order[:out]])
            learnt.append(members[order[out:]])
        return torch.cat(learnt), torch.cat(held_out)

    def _fit_support(
        self, field: Field, training_set: _TrainingSet, distance: float, number: int
    ) -> int:
        """Train a copy to say what it should; how many rows that took."""
        module = _module(field)
        parameters = [p.requires_grad_() for p in module.parameters() if p.is_floating_point()]
        if not parameters:
            raise ModelError(
                "The model has no parameters, so that no support regressor can be trained."
            )
        optimiser = torch.optim.Adam(parameters, lr=self.rate)
        goal, rows = training_set.goal(distance), 0
        with gradients(True):
            for epoch in range(self.epochs):
                order = torch.randperm(
                    len(training_set.learnt), generator=generator(self.seed, 1, number, epoch)
                )
                for batch in torch.split(order, self.batch):
                    members = training_set.learnt[batch.to(training_set.learnt.device)]
                    outputs = output_tensor(
                        field.plainly(training_set.examples[members].clone(), None)
                    )
                    loss = (outputs - goal[members].to(outputs)).square().mean()
                    optimiser.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
                    rows += len(members)
        for parameter in parameters:
            parameter.grad = None
            parameter.requires_grad_(False)
        return rows

    def _r_squared(self, field: Field, training_set: _TrainingSet, distance: float) -> float:
        """R² along the direction of the shift, on what was held out."""
        predicted = (
            field.outputs(training_set.examples[training_set.held_out], pool=True)
            @ training_set.direction
        )
        wanted = (training_set.goal(distance) @ training_set.direction)[training_set.held_out]
        spread = (wanted - wanted.mean()).square().sum()
        return float(
            1
            - (predicted - wanted).square().sum() / spread.clamp_min(torch.finfo(wanted.dtype).tiny)
        )


@dataclass(frozen=True, eq=False)
class _TrainingSet:
    """Examples (N, \\*s), what the model says of them (N, C), which side they are on (N,), and the
    way (C,) and gap between sides."""

    examples: Tensor
    outputs: Tensor
    side: Tensor
    direction: Tensor
    gap: float
    learnt: Tensor
    held_out: Tensor

    def goal(self, distance: float) -> Tensor:
        """What a support regressor should say (N, C)."""
        return self.outputs + distance * self.gap * self.side[:, None] * self.direction


def _check_trainable(field: Field) -> None:
    """Whether there is a model of one input to copy, and to run on other data."""
    network = _network(field)
    if not field.pooled:
        raise InputError(
            "ArtificialDistancing runs the model on data of its own, and some of its extra arguments are for each example. Train "
            "beforehand with ones that hold for all of the data, supports=method.trained(field).supports, or wrap the model in a module "
            "that makes them from the input."
        )
    if network.layout is not None and not network.layout.single:
        raise InputError("ArtificialDistancing takes models with one input.")
    _module(field)


def _network(field: Field) -> Network:
    if field.network is None:
        raise InputError(
            f"ArtificialDistancing trains copies of a torch model, which a {type(innermost(field)).__name__} is not."
        )
    return field.network


def _module(field: Field) -> nn.Module:
    module = _network(field).module
    if module is None:
        raise ModelError(
            "ArtificialDistancing trains copies of the model, and a function has no parameters: give the nn.Module."
        )
    return module


def _copy_of(model: Callable[..., Any]) -> Any:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise ModelError(
            f"ArtificialDistancing trains copies of the model, and this one cannot be copied: {error}"
        ) from error


def _load_examples(data: Any, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """All examples (N, \\*s), and their labels (N,) where there are any."""
    if isinstance(data, Tensor):
        examples, data_labels = plain(data), None
    else:
        examples, data_labels = _from_items(data)
    if not len(examples):
        raise InputError("The data to train support regressors on is empty.")
    example_labels = data_labels if labels is None else torch.as_tensor(labels)
    if example_labels is not None and example_labels.shape != (len(examples),):
        raise InputError(
            f"There are {len(examples)} examples and labels of shape {describe(example_labels.shape)}: give one for each."
        )
    if not examples.is_floating_point():
        raise InputError(f"The data holds {examples.dtype}: convert it with .float().")
    return examples, example_labels


def _from_items(data: Any) -> tuple[Tensor, Tensor | None]:
    """Examples and labels of a dataset, one by one, or of a loader, batch by batch."""
    batches = isinstance(data, torch.utils.data.DataLoader)
    items: Iterable[Any] = data if batches else (data[i] for i in range(len(data)))
    examples: list[Tensor] = []
    labels: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):  # a loader draws from the global generator as it starts
        for item in items:
            pair = isinstance(item, tuple | list)
            example = torch.as_tensor(item[0] if pair else item)
            examples.append(example if batches else example[None])
            if pair and len(item) > 1:
                label = torch.as_tensor(item[1])
                labels.append(label if batches else label[None])
    if not examples:
        raise InputError("The data to train support regressors on is empty.")
    return plain(torch.cat(examples)), torch.cat(labels) if len(labels) == len(examples) else None
