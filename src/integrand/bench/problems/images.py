"""Photographs, and a classifier of them.

The data are a folder of pictures, a folder of folders of them (one for each class, as torchvision's
ImageFolder), or a CSV file whose first column names the files. What is explained is the predicted
class, so labels are not needed.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ...baselines import (
    Blurred,
    Constant,
    Corners,
    Mean,
    OtherClass,
    Relevant,
    Uniform,
    black,
    grey,
    white,
)
from ...errors import InputError
from ...images import load_model, pictures
from ..training import predicted
from .base import Examples, Problem, ProblemOptions, problem, shuffled

_POOL = 48
"""Photographs to choose references from."""


@problem("photographs")
def photographs(setting: ProblemOptions, model: str = "efficientnet-lite0") -> Problem:
    """Photographs from a folder, and an ImageNet classifier (a name, or "file.py:function").

    Words: ``one`` (black), ``several`` (black, white, grey, two noises, a photograph of another
    class), ``photo``, ``references(n)`` (photographs of the classes ranked second to fourth),
    ``others(n)`` (of any other class), and ``low``, ``high``: the numbers the model takes for black
    and white.
    """
    data = setting.needed("'photographs'", "a folder of pictures, or a CSV file that names them")
    files = files_of(data)
    if len(files) < 3:
        raise InputError(
            f"{data} holds {len(files)} pictures: references need some of other classes, so at least three."
        )
    order = [files[i] for i in shuffled(len(files), setting.seed)]
    eye = load_model(model)
    pool = eye.prepare(
        *order[-_POOL:]
    )  # from the end: a run of few examples is judged on others than it starts from
    classes = predicted(eye.module, pool, rows=8)
    photo = OtherClass(pool, 1, setting.seed, label="photograph", classes=classes)
    low, high = eye.normalisation.range(pool[0])

    def load(numbers: Sequence[int]) -> Examples:
        return Examples(eye.prepare(*(order[i] for i in numbers)))

    return Problem(
        f"photographs, {eye.name}",
        eye.module,
        tuple(_id(file, data) for file in order),
        load,
        normalisation=eye.normalisation,
        words={
            "one": black(),
            "photo": photo,
            "pool": pool,
            "several": [black(), white(), grey(), Uniform(), Uniform(seed=1), photo],
            "references": lambda count=2: Relevant(pool, count, seed=setting.seed, classes=classes),
            "others": lambda count=2: OtherClass(pool, count, setting.seed, classes=classes),
            "low": float(low.min()),
            "high": float(high.max()),
            "blurred": Blurred(),
            "corners": Corners(),
            "grey": grey(),
            "mean": Mean(),
            "zero": Constant(0.0),
        },
        facts={"pictures": len(order), "model": eye.name, "side": eye.size},
        optimize=True,
    )


def files_of(data: Path) -> list[Path]:
    """The pictures in a folder, in its subfolders, or named by the first column of a CSV file;
    sorted.

    Raises:
        InputError: for a list with a picture that is missing.
    """
    if data.is_file() and data.suffix.lower() == ".csv":
        with data.open(newline="") as file:
            named = [data.parent / row[0] for row in csv.reader(file) if row]
        files = [path for path in named if path.is_file()]
        if len(named) - len(files) > 1:  # one line may be the heading
            missing = next(path for path in named[1:] if not path.is_file())
            raise InputError(f"{data} names {missing.name!r}, which is not beside it.")
        return files
    folders = (
        [data, *sorted(path for path in data.iterdir() if path.is_dir())] if data.is_dir() else []
    )
    return [Path(picture) for folder in folders for picture in _inside(folder)]


def _inside(folder: Path) -> list[str]:
    try:
        return pictures(folder)
    except InputError:  # no picture in this one
        return []


def _id(file: Path, data: Path) -> str:
    root = data if data.is_dir() else data.parent
    return str(file.relative_to(root).with_suffix(""))
