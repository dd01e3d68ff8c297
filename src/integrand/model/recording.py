"""Recording of a forward pass up to a layer, so that this part need not be run again.

    conv1 ──▶ relu ──▶ block1 ──▶ block2( conv ──▶ [site] ──▶ …
    noted     noted    noted      └ open   noted

A *call* is one run of a module's ``forward``. Noted are the outputs of calls that are over before
the site runs, the outermost ones only; a call that is still open then (what contains the site) is
run again each time, with the noted ones handed out in it. The model is any Python: only ``forward``
of its modules is replaced, for the time of one pass (``forwards``). What is noted is what
``forward`` returned; hooks of the user run afterwards, once, when it is noted and when it is handed
out.

Several sites, or a site that runs several times, are several *spots*. Calls are noted up to the
first of them; everything behind it runs each time, and what it makes at the later spots gives way
to what is explained there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from ..core.shapes import describe
from ..errors import ModelError
from .autograd import is_reentrant, slopes
from .network import Network, Site
from .turns import turn, undone

Forward = Callable[..., Any]

_OWN = object()  # the module has no forward of its own, only its class's
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


@contextmanager
def forwards(replaced: Sequence[tuple[nn.Module, Forward]]) -> Iterator[None]:
    """While this lasts modules run these instead of their own ``forward``; afterwards they are as
    they were."""
    before = [(module, vars(module).get("forward", _OWN)) for module, _ in replaced]

    def put_back() -> None:
        for module, original in reversed(before):
            if original is _OWN:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = original

    with turn(), undone(put_back):
        for module, forward in replaced:
            vars(module)["forward"] = forward
        yield


@dataclass(eq=False)
class ModuleCall:
    """One run of a module: what it returned, taken apart; ``leaves`` is None while it is open, and
    for what cannot be noted."""

    name: str
    module: nn.Module
    leaves: list[Any] | None = None
    spec: TreeSpec | None = None


@dataclass(eq=False)
class DependencyProbe:
    """Copies of what was noted that autograd can tell apart: by leaf, what the model was handed,
    and its version then."""

    leaves: list[Tensor] = field(default_factory=list)
    handed: list[Tensor] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    where: dict[tuple[int, int], int] = field(default_factory=dict)
    """(call, leaf) → number of the copy."""

    def copies(self, call: int, leaves: list[Any]) -> list[Any]:
        """What the model is handed in place of the outputs of a call; calls inside it are
        forgotten."""
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

    def reaching(self, outputs: object) -> list[bool]:
        """Which leaves the outputs depend on, by autograd; integers always count as needed."""
        roots, readable = tensors_of(outputs)
        roots = [root for root in roots if root.requires_grad]
        floating = [leaf for leaf in self.leaves if leaf.requires_grad]
        if not readable or not roots or not floating:
            return [True] * len(self.leaves)
        try:
            gradients = slopes(roots, floating, keep=True)
        except RuntimeError as error:
            if not is_reentrant(error):
                raise
            gradients = slopes(roots, floating, everywhere=True)
        needed = {
            id(leaf): slope is not None for leaf, slope in zip(floating, gradients, strict=True)
        }
        return [needed.get(id(leaf), True) for leaf in self.leaves]


@dataclass(eq=False)
class Spot:
    """One run of a layer in which something is explained, met in a forward pass.

    number   of the site among those that are explained;  run: of its layer
    call     its call, where it began before the first spot; else how many runs of the layer had
             begun since then (``later``)
    leaves   what was there, taken apart; floating-point tensors as copies, since a layer further on
             may work in place
    choice   which leaves can be explained
    """

    number: int
    site: Site
    run: int
    call: ModuleCall | None
    later: int
    leaves: list[Any]
    choice: list[int]


class Recording:
    """The calls before the first of some sites in one forward pass, what was at the sites, and what
    the model returned.

    probe    hand out copies that autograd can follow
    wanted   (number of the call, module) → whether its output is kept, and whether as a copy;
             everything is kept unless given
    watched  sites that targets read, whose activations are kept beside the outputs
    """

    def __init__(
        self,
        sites: Sequence[Site],
        probe: DependencyProbe | None = None,
        wanted: Callable[[int, nn.Module], tuple[bool, bool]] | None = None,
        watched: Sequence[Site] = (),
    ) -> None:
        self.sites = tuple(sites)
        self.watched = tuple(watched)
        self.activations: list[Tensor] = []
        self.probe = probe
        self.wanted = wanted
        self.calls: list[ModuleCall] = []
        self.spots: list[Spot] = []
        self.passed = False  # the first spot
        self.outputs: Any = None
        self.heaviest = 0  # numbers in the largest output behind the first spot
        self._runs: Counter[nn.Module] = Counter()
        self._later: Counter[nn.Module] = Counter()
        self._rows = 0

    def run(self, network: Network, z: Tensor, index: Tensor) -> Recording:
        """One forward pass.

        Raises:
            ModelError: where a site is no place to explain at.
        """
        self._rows = len(z)
        with forwards(
            [(module, self._listening(name, module)) for name, module in network.layers().items()]
        ):
            self.outputs, self.activations = network.run_plainly(z, index, self.watched)
        for number, site in enumerate(self.sites):
            if all(spot.number != number for spot in self.spots):
                raise ModelError(self._why_not_met(site, network))
        return self

    def _why_not_met(self, site: Site, network: Network) -> str:
        times = self._runs[site.module]
        if site.run is not None and times:
            return f"Layer {site.name!r} runs {times} times in one forward pass, so there is no run {site.run}: the first is run 0."
        if network.is_adopted(site.module):
            return (
                f"The given {type(site.module).__name__} is not a layer of this model, and it did not run in the forward pass. "
                f"Name one of its layers{_example(network)}."
            )
        return (
            f"Layer {site.name!r} did not run in the forward pass, so nothing can be explained there: name a layer that "
            "does. (Layers inside compiled or scripted modules are not seen.)"
        )

    # ----------------------------------------------------------------------------------------------------------------

    def _listening(self, name: str, module: nn.Module) -> Forward:
        original = module.forward
        sites = [(number, site) for number, site in enumerate(self.sites) if site.module is module]

        def forward(*args: Any, **kwargs: Any) -> Any:
            run = self._runs[module]
            self._runs[module] += 1
            entries = [(number, site) for number, site in sites if site.run in (None, run)]
            entering = [entry for entry in entries if entry[1].side == "input"]
            if entering and not self.passed:
                self.passed = True
            number, later = len(self.calls), self._later[module]
            if self.passed:
                call = None
                self._later[module] += 1
            else:
                call = ModuleCall(name, module)
                self.calls.append(call)
            if entering:
                args, kwargs = self._before_forward(entering, run, later, args, kwargs)
            outputs = original(*args, **kwargs)
            if len(entries) > len(entering):
                outputs = self._after_forward(
                    [entry for entry in entries if entry not in entering],
                    run,
                    number,
                    call,
                    later,
                    outputs,
                )
            elif not self.passed:
                return self._close_if_plain(number, outputs)
            return self._record_size(outputs) if call is None else outputs

        return forward

    def _close_if_plain(self, number: int, outputs: object) -> Any:
        """A call that is over before the first spot; what was called inside it needs no note of its
        own."""
        leaves, spec = tree_flatten(outputs)
        if not all(isinstance(leaf, (Tensor, *_PLAIN)) for leaf in leaves):
            return outputs  # cannot be handed out again: stays open, and is run again
        return self._close(number, leaves, spec)

    def _close(self, number: int, leaves: list[Any], spec: TreeSpec) -> Any:
        del self.calls[number + 1 :]
        call = self.calls[number]
        call.spec = spec
        wanted, copied = self.wanted(number, call.module) if self.wanted else (True, False)
        call.leaves = [_copied(leaf) if copied else leaf for leaf in leaves] if wanted else []
        if self.probe is not None:
            leaves = self.probe.copies(number, leaves)
        return tree_unflatten(leaves, spec)

    def _before_forward(
        self,
        entries: Sequence[tuple[int, Site]],
        run: int,
        later: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        positional = len(tree_leaves(args))
        for number, site in entries:
            tensors = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
            choice = [place for place in self._choice(site, leaves, tensors) if place < positional]
            self._add_spot(
                number,
                site,
                run,
                None,
                later,
                leaves,
                choice or self._choice(site, leaves, tensors),
            )
        return tree_unflatten(self._cut(leaves, entries, run), spec)

    def _after_forward(
        self,
        entries: Sequence[tuple[int, Site]],
        run: int,
        number: int,
        call: ModuleCall | None,
        later: int,
        outputs: object,
    ) -> Any:
        leaves, spec = tree_flatten(outputs)
        first, self.passed = not self.passed, True
        strange = [
            type(leaf).__name__ for leaf in leaves if not isinstance(leaf, (Tensor, *_PLAIN))
        ]
        tensors = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        if strange and (first or not tensors):
            raise ModelError(
                f"Layer {entries[0][1].name!r} returns a {strange[0]}, which cannot be handed out again: explain a layer inside it, or "
                "the input of the layer behind it (side='input')."
            )
        for site_number, site in entries:
            self._add_spot(
                site_number, site, run, call, later, leaves, self._choice(site, leaves, tensors)
            )
        return (
            self._close(number, leaves, spec)
            if first
            else tree_unflatten(self._cut(leaves, entries, run), spec)
        )

    def _add_spot(
        self,
        number: int,
        site: Site,
        run: int,
        call: ModuleCall | None,
        later: int,
        leaves: Sequence[Any],
        choice: list[int],
    ) -> None:
        values = [_copied(leaf) if place in choice else leaf for place, leaf in enumerate(leaves)]
        self.spots.append(Spot(number, site, run, call, later, values, choice))

    def _choice(self, site: Site, leaves: Sequence[Any], tensors: Sequence[int]) -> list[int]:
        """The leaves that a site means: one tensor that is named, or every one of floating-point
        numbers."""
        if site.tensor is not None and site.tensor >= len(tensors):
            many = (
                "no tensors" if not tensors else f"{len(tensors)} tensor{'s' * (len(tensors) > 1)}"
            )
            raise ModelError(f"There is no {site}: it is {many}, counted from 0.")
        named = tensors if site.tensor is None else [tensors[site.tensor]]
        choice = [
            place for place in named if leaves[place].is_floating_point() and leaves[place].ndim
        ]
        if not choice:
            raise no_place(
                site, self._rows, leaves[named[0]] if named else leaves[0] if leaves else None
            )
        return choice

    def _cut(self, leaves: list[Any], entries: Sequence[tuple[int, Site]], run: int) -> list[Any]:
        """With a probe, copies in place of what is explained: what comes before shall not be seen
        through it."""
        if self.probe is None:
            return leaves
        numbers = [number for number, _ in entries]
        cut = {
            place
            for spot in self.spots
            if spot.number in numbers and spot.run == run
            for place in spot.choice
        }
        return [
            self.probe.copy(leaf) if place in cut else leaf for place, leaf in enumerate(leaves)
        ]

    def _record_size(self, outputs: object) -> Any:
        if isinstance(outputs, Tensor):
            self.heaviest = max(self.heaviest, outputs.numel())
        return outputs


def _example(network: Network) -> str:
    named = [
        name for name, module in network.layers().items() if name and not network.is_adopted(module)
    ]
    return f", such as {named[-1]!r}" if named else ""


def tensors_of(value: object) -> tuple[list[Tensor], bool]:
    """Every tensor in some outputs, and whether all of the outputs could be read."""
    leaves, _ = tree_flatten(value)
    tensors: list[Tensor] = []
    readable = True
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
        elif not isinstance(leaf, _PLAIN):
            inside, well = (
                tensors_of(dict(vars(leaf))) if hasattr(leaf, "__dict__") else ([], False)
            )
            tensors += inside
            readable &= well
    return tensors, readable


def _copied(value: object) -> Any:
    """A copy: a layer further on may work in place."""
    return value.detach().clone() if isinstance(value, Tensor) else value


def no_place(site: Site, rows: int, value: object) -> ModelError:
    """What to say of a site at which nothing can be explained."""
    description = (
        f"{value.dtype} {describe(value.shape)}".removeprefix("torch.")
        if isinstance(value, Tensor)
        else type(value).__name__
    )
    return ModelError(
        f"Explaining a layer needs a tensor of floating-point numbers with one entry per row ({rows}), but {site} is {description}. "
        "Choose another layer, or its other side (side='input' or side='output')."
    )
