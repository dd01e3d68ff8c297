"""Auxiliary inputs of methods (autoencoder, patterns, points, site …), made from other photographs
at first use.

    codec            an autoencoder of patches, fitted to the photographs
    patterns         of the model's layers, over the photographs
    points           the photographs
    data, classes    the photographs and their mirror images; the class that is explained, and the
                     one that parts them most evenly
    site             the last layer at which a place is still a place

Each comes with a remark that says what it is, for whoever shows the map. A real autoencoder or a
real data set is better: in Python every one of these is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, ModelError
from ..fields import Patterns, TorchField
from ..images.models import ImageModel
from ..model.autograd import gradients
from .patch_autoencoder import Patches

_PLACES = 12  # along a side: a layer whose maps are coarser than this shows no places
_EACH = 5  # photographs that two classes take at least, each

NAMES = ("codec", "patterns", "points", "data", "classes", "site")


@dataclass(eq=False)
class Supplies:
    """Things for methods, for one picture.

    model   what is explained;  x (1, C, H, W) the picture;  target  the class
    pool    (N, C, H, W) other photographs;  logits (N, classes) of them
    """

    model: ImageModel
    x: Tensor
    target: int
    pool: Tensor
    logits: Tensor
    remarks: dict[str, str] = field(default_factory=dict)
    """What was made, by what it is called here."""

    def of(self, name: str) -> Any:
        """What a method's argument ``name`` wants.

        Raises:
            InputError: for what cannot be made of these photographs.
        """
        return getattr(self, name)

    def made_for(self, names: tuple[str, ...]) -> str:
        """The remarks on these arguments."""
        return "; ".join(self.remarks[name] for name in names if name in self.remarks)

    @cached_property
    def codec(self) -> Patches:
        self._require_photographs(2, "an autoencoder")
        patches = Patches.fit(self.pool)
        codes, numbers = patches.get_buffer("basis").shape
        self.remarks["codec"] = (
            f"autoencoder of {patches.side} × {patches.side} patches ({numbers} numbers, {codes} codes) fitted to {len(self.pool)} photographs, "
            f"which redraws this one to within {100 * patches.error(self.x):.0f} %"
        )
        return patches

    @cached_property
    def patterns(self) -> Patterns:
        self._require_photographs(2, "patterns")
        self.remarks["patterns"] = f"patterns over all windows of {len(self.pool)} photographs"
        return Patterns.fit(self.model.module, self.pool, batch_size=4)

    @cached_property
    def points(self) -> Tensor:
        self._require_photographs(2, "points to walk over")
        self.remarks["points"] = f"over {len(self.pool)} photographs"
        return self.pool

    @cached_property
    def data(self) -> Tensor:
        self._require_photographs(_EACH, "data to learn from")
        return torch.cat([self.pool, self.pool.flip(-1)])

    @cached_property
    def classes(self) -> tuple[int, int]:
        logits = torch.cat([self.logits, self.model.logits(self.pool.flip(-1))])
        wins = (logits[:, [self.target]] >= logits).sum(0)
        fewest = torch.minimum(wins, len(logits) - wins)
        fewest[self.target] = -1
        rival = int(fewest.argmax())
        if int(fewest[rival]) < _EACH:
            raise InputError(
                f"No class parts the {len(logits)} photographs from {self.model.label(self.target)} so that there are at least {_EACH} "
                "on either side: give more with --references."
            )
        self.remarks["classes"] = (
            f"against {self.model.label(rival)}, which {int(len(logits) - wins[rival])} of {len(logits)} photographs and mirror images "
            "resemble more"
        )
        return self.target, rival

    @cached_property
    def site(self) -> str:
        for name, shape in reversed(self._layers()):
            try:
                layer_field = TorchField(self.model.module, self.target).behind(name)
                with layer_field.ready(), gradients(False):
                    layer_field.lift(self.x, torch.zeros(1, dtype=torch.long, device=self.x.device))
            except ModelError:
                continue
            self.remarks["site"] = (
                f"at {name}, {shape[0]} channels of {shape[1]} × {shape[2]} places"
            )
            return name
        raise ModelError(
            f"The model {self.model.name!r} has no layer with at least {_PLACES} × {_PLACES} places."
        )

    def _layers(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of layers whose maps have places, in the order in which they are
        done."""
        layers: list[tuple[str, tuple[int, ...]]] = []

        def watch(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: object, output: object) -> None:
                if (
                    isinstance(output, Tensor)
                    and output.ndim == 4
                    and min(output.shape[2:]) >= _PLACES
                ):
                    layers.append((name, tuple(output.shape[1:])))

            return hook

        named = self.model.module.named_modules()
        modules = [
            (name, module)
            for name, module in named
            if name and any(True for _ in module.parameters())
        ]
        hooks = [module.register_forward_hook(watch(name)) for name, module in modules]
        try:
            self.model.logits(self.x)
        finally:
            for hook in hooks:
                hook.remove()
        return layers

    def _require_photographs(self, least: int, product: str) -> None:
        if len(self.pool) < least:
            raise InputError(
                f"There are too few other photographs ({len(self.pool)}) to make {product} of: give more with --references."
            )
