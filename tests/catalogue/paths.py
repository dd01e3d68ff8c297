"""Every path of ``ig.paths``: how to build it for each known problem, where it begins, and what it refuses.

    PATHS     name: ``Way``; several of one class where they go different ways
    REFUSALS  what is refused, of which problems, with how many references, and why: everything else has to run
    LONG      name of a class: (n) -> the path with n of what it counts its length in, for pictures of any size

tests/test_matrix.py puts every path to every rule, kind of baselines and problem; a class of ``ig.paths`` that is in neither list, or a
refusal that is not in the table, fails there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import integrand as ig
from tests.catalogue import words
from tests.catalogue.attacks import WIDE, decision
from tests.catalogue.coarse_to_fine import pictures
from tests.catalogue.geometric_paths import points
from tests.catalogue.latent import codec
from tests.problems import Problem, wave

NO_PATHS = {
    "PathLike",
    "as_path",
    "Path", "corners", "Autoencoder", "neighbour_graph", "NeighbourGraph",  # protocols, and functions
    "Basis", "DCT", "Haar", "Pyramid", "SVD", "Split",  # parts of Spectral
    "Fixed", "Implicit", "Relative", "Shrinking", "StepRule",  # parts of walks
}  # fmt: skip
"""What else is in ``ig.paths``."""


@dataclass(frozen=True)
class Way:
    """A path for a problem, and whether it chooses where it begins."""

    build: Callable[[Problem], Any]
    own_start: bool = False


def _blur(p: Problem) -> Any:
    return ig.paths.Blur(1.5, 3, axes=None if pictures(p) else (-1,))


def _descent(step: Any) -> Callable[[Problem], Any]:
    return lambda p: ig.paths.Descent(p.representation, 3, 0.05, WIDE, step=step)


PATHS: dict[str, Way] = {
    "straight": Way(lambda p: ig.paths.Straight(3)),
    "scheduled": Way(lambda p: ig.paths.Scheduled((0.0, 0.2, 0.7, 1.0))),
    "respaced": Way(lambda p: ig.paths.NonUniform(3, 4)),
    "relaxed": Way(lambda p: ig.paths.ElasticBand(3, 0.4, 2)),
    "geodesic": Way(lambda p: ig.paths.Geodesic(points(p), 3, 2)),
    "neighbours": Way(
        lambda p: ig.paths.Geodesic(points(p), 2, distance="euclidean", graph="official")
    ),
    "descent": Way(_descent(ig.paths.Shrinking()), own_start=True),
    "descent, fixed steps": Way(_descent(ig.paths.Fixed()), own_start=True),
    "descent, implicit steps": Way(_descent(ig.paths.Implicit(2)), own_start=True),
    "adversarial": Way(
        lambda p: ig.paths.Adversarial(decision(p) or "away", 3, 0.2, WIDE), own_start=True
    ),
    "adversarial, rivals": Way(
        lambda p: ig.paths.Adversarial("likeliest", 3, 0.2, WIDE), own_start=True
    ),
    "discretized": Way(lambda p: ig.paths.Discretized(words.of(p), 10, 3)),
    "guided": Way(lambda p: ig.paths.Guided(4, stray=0.3)),
    "samp": Way(lambda p: ig.paths.SAMP(4, 0.3)),
    "between": Way(lambda p: ig.paths.Composed(ig.paths.Guided(4, stray=1.0), 1)),
    "backwards": Way(lambda p: ig.paths.Reversed(ig.paths.SAMP(4, 0.3, "lowest"))),
    "blur": Way(_blur, own_start=True),
    "blur, of pictures": Way(lambda p: ig.paths.Blur(1.5, 3, "zero", "sqrt"), own_start=True),
    "spectral": Way(lambda p: ig.paths.Spectral(4)),
    "spectral, cosines": Way(lambda p: ig.paths.Spectral(4, 0.3, ig.paths.DCT(), "cosine")),
    "spectral, wavelets": Way(lambda p: ig.paths.Spectral(4, 0.3, ig.paths.Haar(2), "sigmoid")),
    "spectral, pyramid": Way(lambda p: ig.paths.Spectral(4, 0.9, ig.paths.Pyramid(2))),
    "latent": Way(lambda p: ig.paths.Latent(codec(p.packed()), 2, 2)),
    "latent guided": Way(
        lambda p: ig.paths.LatentGuided(codec(p.packed()), 4, 0.3, slerp=False, ends=2)
    ),
    "latent geodesic": Way(
        lambda p: ig.paths.LatentGeodesic(codec(p.packed()), 3, iterations=2, ends=2)
    ),
}

COMBINED = {
    f"{wrapper}: {name}": Way(lambda p, wrap=wrap, inner=way.build: wrap(inner(p)))  # type: ignore[misc]
    for wrapper, wrap in {
        "between": lambda path: ig.paths.Composed(path, 1),
        "backwards": ig.paths.Reversed,
    }.items()
    for name, way in PATHS.items()
}
"""Every path inside those that are made of another one."""

OWN_START = tuple(name for name, way in PATHS.items() if way.own_start)


@dataclass(frozen=True)
class Refusal:
    """Problems and numbers of references (None: any) that paths refuse, what they say, and why that is right."""

    paths: tuple[str, ...]
    problems: Callable[[Problem], bool]
    references: int | None
    says: str
    why: str


_CHOOSES = Refusal(
    tuple(f"{wrapper}: {name}" for wrapper in ("between", "backwards") for name in OWN_START),
    lambda p: True,
    None,
    r"(Composed walks from anchor to anchor|Reversed walks from the input to the reference), but \w+ chooses where it begins",
    "what begins where it likes does not come by an anchor, nor end at the input when it is walked from there",
)

REFUSALS = (
    Refusal(
        ("spectral", "spectral, cosines", "spectral, wavelets", "spectral, pyramid"),
        lambda p: not pictures(p),
        None,
        r"A spectral path needs images of shape .* reshape the input",
        "a table has no axes along which values could be taken apart by how coarse they are",
    ),
    Refusal(
        ("blur, of pictures",),
        lambda p: not pictures(p),
        None,
        r"A blur needs axes along which neighbours belong together.* Name them: axes=",
        "which axes of a table may be blurred into one another is not for the library to say",
    ),
    Refusal(
        ("adversarial, rivals",),
        lambda p: decision(p) is not None,
        None,
        r"looks for another class: for a model without classes give a decision function",
        "a model with one output has no rival class",
    ),
    Refusal(
        ("adversarial, rivals",),
        lambda p: decision(p) is None,
        3,
        r"3 rival classes were asked for, but the model has only 2 beside the predicted one",
        "every reference has a rival of its own, and three classes hold two",
    ),
)


WRAPPER_REFUSALS = (
    _CHOOSES,
    Refusal(
        ("between: latent guided",),
        lambda p: True,
        None,
        r"A guided latent path has at least 3 points, both ends included, not 2",
        "four points are too few for two stretches of three",
    ),
    Refusal(
        ("between: discretized", "backwards: discretized"),
        lambda p: True,
        None,
        r"different words are not in the table.* explain the words' own vectors",
        "what lies on a straight line, and a reference, are not words from which a way over words could begin",
    ),
)


def refusal(name: str, p: Problem, references: int) -> Refusal | None:
    """Why a path refuses a problem with so many references; None where it has to run."""
    wrapped = name in COMBINED
    # A wrapper walks every pair by itself, and refuses what the path inside does before it can see where that begins.
    table = [(one, name.rpartition(": ")[2], 1 if wrapped else references) for one in REFUSALS]
    table += [(one, name, references) for one in WRAPPER_REFUSALS]
    found = [
        one
        for one, who, many in table
        if who in one.paths and one.problems(p) and one.references in (None, many)
    ]
    if wrapped:
        return found[0] if found else None
    assert len(found) < 2, f"two reasons for one refusal of {name} and {p.name}"
    return found[0] if found else None


def _codec(size: int) -> Any:
    """A codec of few parameters for pictures of any size: a code of the means of quarters, decoded with a bend."""

    def encode(x: torch.Tensor) -> torch.Tensor:
        return (
            x.unfold(2, size // 2, size // 2)
            .unfold(3, size // 2, size // 2)
            .mean((4, 5))
            .flatten(1)
        )

    def decode(z: torch.Tensor) -> torch.Tensor:
        quarters = z.unflatten(1, (3, 2, 2))
        return torch.tanh(quarters.repeat_interleave(size // 2, 2).repeat_interleave(size // 2, 3))

    return encode, decode


def flat(z: torch.Tensor) -> torch.Tensor:
    """A representation of eight numbers."""
    return z.flatten(1)[:, :8]


def _data(size: int) -> torch.Tensor:
    return wave(12, 3, size, size, phase=2).float()


def _words(size: int) -> torch.Tensor:
    """The rows of the picture that tests/test_memory.py explains, and others."""
    x = wave(1, 3, size, size, phase=0.3).float()
    return words.table(x, torch.full_like(x, 0.1), 400)


LONG: dict[str, Callable[[int, int], Any]] = {
    "Straight": lambda n, size: ig.paths.Straight(n),
    "Scheduled": lambda n, size: ig.paths.Scheduled(tuple(i / n for i in range(n + 1))),
    "NonUniform": lambda n, size: ig.paths.NonUniform(n, n),
    "Geodesic": lambda n, size: ig.paths.Geodesic(_data(size), 2, n // 4),
    "Descent": lambda n, size: ig.paths.Descent(flat, n, 1.0, WIDE),
    "Adversarial": lambda n, size: ig.paths.Adversarial(lambda out: out + 1e9, n, 0.01, WIDE),
    "Discretized": lambda n, size: ig.paths.Discretized(_words(size), 4, n),
    "Guided": lambda n, size: ig.paths.Guided(n, 0.5),
    "SAMP": lambda n, size: ig.paths.SAMP(n, 0.5),
    "Composed": lambda n, size: ig.paths.Composed(ig.paths.Guided(n, 0.5), n // 2),
    "Reversed": lambda n, size: ig.paths.Reversed(ig.paths.Guided(n, 0.5)),
    "Blur": lambda n, size: ig.paths.Blur(9.0, n),
    "Spectral": lambda n, size: ig.paths.Spectral(n),
    "Latent": lambda n, size: ig.paths.Latent(_codec(size), n, n),
    "LatentGuided": lambda n, size: ig.paths.LatentGuided(_codec(size), n, ends=n),
    "LatentGeodesic": lambda n, size: ig.paths.LatentGeodesic(
        _codec(size), n, iterations=2, ends=n
    ),
}
"""``ElasticBand`` is not here: all its corners move together, which its docstring says, and tests/test_matrix.py."""
