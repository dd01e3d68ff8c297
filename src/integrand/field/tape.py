"""What a model did before it reached a layer, noted so that it need not be done again.

    conv1 ──▶ relu ──▶ block1 ──▶ block2( conv ──▶ [site] ──▶ …
    noted     noted    noted      └ open   noted

A *call* is one run of a module's ``forward``. Noted are the outputs of calls that are over before the site runs, the outermost
ones only; a call that is still open then (what contains the site) is run again each time, with the noted ones handed out in it.
The model is any Python: only ``forward`` of its modules is replaced, for the time of one pass (``forwards``). What is noted is
what ``forward`` returned; hooks of the user run afterwards, once, when it is noted and when it is handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from ..errors import ModelError
from ..shapes import describe
from .modes import is_reentrant, slopes
from .network import Network, Site
from .turns import turn, undone

Forward = Callable[..., Any]

_OWN = object()  # the module has no forward of its own, only its class's
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


@contextmanager
def forwards(replaced: Sequence[tuple[nn.Module, Forward]]) -> Iterator[None]:
    """While this lasts modules run these instead of their own ``forward``; afterwards they are as they were."""
    before = [(module, vars(module).get("forward", _OWN)) for module, _ in replaced]

    def put_back() -> None:
        for module, own in reversed(before):
            if own is _OWN:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = own

    with turn(), undone(put_back):
        for module, forward in replaced:
            vars(module)["forward"] = forward
        yield


@dataclass(eq=False)
class Call:
    """One run of a module: what it returned, taken apart; ``leaves`` is None while it is open, and for what cannot be noted."""

    name: str
    module: nn.Module
    leaves: list[Any] | None = None
    spec: TreeSpec | None = None


@dataclass(eq=False)
class Probe:
    """Copies of what was noted that autograd can tell apart: by leaf, what the model was handed, and its version then."""

    leaves: list[Tensor] = field(default_factory=list)
    handed: list[Tensor] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    where: dict[tuple[int, int], int] = field(default_factory=dict)
    """(call, leaf) → number of the copy."""

    def copies(self, call: int, leaves: list[Any]) -> list[Any]:
        """What the model is handed in place of the outputs of a call; calls inside it are forgotten."""
        self.where = {key: number for key, number in self.where.items() if key[0] < call}
        handed = list(leaves)
        for place, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                self.where[call, place] = len(self.leaves)
                handed[place] = self.copy(leaf)
        return handed

    def copy(self, tensor: Tensor) -> Tensor:
        leaf = tensor.detach().clone()
        if leaf.is_floating_point() or leaf.is_complex():
            leaf.requires_grad_()
        self.leaves.append(leaf)
        self.handed.append(leaf.clone())
        self.versions.append(self.handed[-1]._version)
        return self.handed[-1]

    def written(self, number: int) -> bool:
        """Whether the model worked in place on what it was handed."""
        return self.handed[number]._version != self.versions[number]

    def reaching(self, outputs: Any) -> list[bool]:
        """Which leaves the outputs depend on, by autograd; integers always count as needed."""
        roots, readable = tensors_of(outputs)
        roots = [root for root in roots if root.requires_grad]
        floating = [leaf for leaf in self.leaves if leaf.requires_grad]
        if not readable or not roots or not floating:
            return [True] * len(self.leaves)
        try:
            found = slopes(roots, floating, keep=True)
        except RuntimeError as error:
            if not is_reentrant(error):
                raise
            found = slopes(roots, floating, everywhere=True)
        needed = {id(leaf): slope is not None for leaf, slope in zip(floating, found, strict=True)}
        return [needed.get(id(leaf), True) for leaf in self.leaves]


class Tape:
    """The calls before a site in one forward pass, what was at the site, and what the model returned.

    probe    hand out copies that autograd can follow
    wanted   (number of the call, module) → whether its output is kept, and whether as a copy; everything is kept unless given
    """

    def __init__(
        self,
        site: Site,
        probe: Probe | None = None,
        wanted: Callable[[int, nn.Module], tuple[bool, bool]] | None = None,
    ) -> None:
        self.site = site
        self.probe = probe
        self.wanted = wanted
        self.calls: list[Call] = []
        self.passed = False
        self.seen: Any = None
        self.place = 0  # of the tensor among what the site returned, or was given
        self.outputs: Any = None
        self.heaviest = 0  # numbers in the largest output behind the site

    def run(self, network: Network, z: Tensor, index: Tensor) -> Tape:
        """One forward pass. Errors: ``ModelError`` where the site is no place to explain at."""
        replaced = [(module, self._listening(name, module)) for name, module in network.layers().items()]
        with forwards(replaced):
            self.outputs = network._call(z, index)
        if not self.passed:
            raise ModelError(
                f"Layer {self.site.name!r} did not run in the forward pass, so nothing can be explained there: name a layer that "
                "does. (Layers inside compiled or scripted modules are not seen.)"
            )
        _check_seen(self.seen, len(z), self.site)
        return self

    # ----------------------------------------------------------------------------------------------------------------

    def _listening(self, name: str, module: nn.Module) -> Forward:
        own = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if module is self.site.module:
                return self._at_site(own, args, kwargs)
            if self.passed:
                return self._weighed(own(*args, **kwargs))
            number = len(self.calls)
            self.calls.append(Call(name, module))
            made = own(*args, **kwargs)
            return made if self.passed else self._noted(number, made)

        return forward

    def _noted(self, number: int, made: Any) -> Any:
        """A call that is over before the site; what was called inside it needs no note of its own."""
        leaves, spec = tree_flatten(made)
        if not all(isinstance(leaf, (Tensor, *_PLAIN)) for leaf in leaves):
            return made  # cannot be handed out again: stays open, and is run again
        return self._close(number, leaves, spec)

    def _close(self, number: int, leaves: list[Any], spec: TreeSpec) -> Any:
        del self.calls[number + 1 :]
        call = self.calls[number]
        call.spec = spec
        kept, copied = self.wanted(number, call.module) if self.wanted else (True, False)
        call.leaves = [_copied(leaf) if copied else leaf for leaf in leaves] if kept else []
        if self.probe is not None:
            leaves = self.probe.copies(number, leaves)
        return tree_unflatten(leaves, spec)

    def _at_site(self, own: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.passed:
            raise ModelError(
                f"Layer {self.site.name!r} runs several times in one forward pass, so it is not one place: name a layer that runs "
                "once, or give this use of it a module of its own, such as nn.Identity()."
            )
        if self.site.side == "input":
            self.passed = True
            leaves, spec = tree_flatten((args, kwargs))
            self._see(leaves)
            if self.probe is not None and isinstance(self.seen, Tensor):
                leaves[self.place] = self.probe.copy(self.seen)
                args, kwargs = tree_unflatten(leaves, spec)
            return own(*args, **kwargs)
        number = len(self.calls)
        self.calls.append(Call(self.site.name, self.site.module))
        leaves, spec = tree_flatten(own(*args, **kwargs))
        self.passed = True
        strange = [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, (Tensor, *_PLAIN))]
        if strange:
            raise ModelError(
                f"Layer {self.site.name!r} returns a {strange[0]}, which cannot be handed out again: explain a layer inside it, or "
                "the input of the layer behind it (side='input')."
            )
        self._see(leaves)
        return self._close(number, leaves, spec)

    def _see(self, leaves: list[Any]) -> None:
        self.place = next((place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)), 0)
        self.seen = _copied(leaves[self.place]) if leaves else None

    def _weighed(self, made: Any) -> Any:
        if isinstance(made, Tensor):
            self.heaviest = max(self.heaviest, made.numel())
        return made


def tensors_of(value: Any) -> tuple[list[Tensor], bool]:
    """Every tensor in some outputs, and whether all of the outputs could be read."""
    leaves, _ = tree_flatten(value)
    found: list[Tensor] = []
    readable = True
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif not isinstance(leaf, _PLAIN):
            inside, well = tensors_of(dict(vars(leaf))) if hasattr(leaf, "__dict__") else ([], False)
            found += inside
            readable &= well
    return found, readable


def _copied(value: Any) -> Any:
    """A copy: a layer further on may work in place."""
    return value.detach().clone() if isinstance(value, Tensor) else value


def _check_seen(seen: Any, rows: int, site: Site) -> None:
    if not isinstance(seen, Tensor) or seen.ndim == 0 or len(seen) != rows or not seen.is_floating_point():
        got = (
            f"{seen.dtype} {describe(seen.shape)}".removeprefix("torch.")
            if isinstance(seen, Tensor)
            else type(seen).__name__
        )
        raise ModelError(
            f"Explaining a layer needs a tensor of floating-point numbers with one entry per row ({rows}), but {site} is {got}. "
            "Choose another layer, or its other side (side='input' or side='output')."
        )
