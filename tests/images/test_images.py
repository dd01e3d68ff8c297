"""Pictures: every mode upright in RGB, squares where they belong, and errors that name the file and the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from integrand.errors import ImageError, InputError, MissingExtra, UnknownName
from integrand.images import files as images
from integrand.images import pictures, prepare, read, samples, title

Image = pytest.importorskip("PIL.Image")

RAMP = np.linspace(0, 255, 12).astype(np.uint8).reshape(3, 4)  # three rows, four columns


def saved(folder: Path, name: str, picture: object, **options: object) -> Path:
    path = folder / name
    picture.save(path, **options)
    return path


def first_channel(path: Path) -> np.ndarray:
    picture = read(path)
    assert picture.mode == "RGB"
    return np.asarray(picture)[:, :, 0]


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("grey.png", Image.fromarray(RAMP)),
        ("rgb.png", Image.fromarray(np.stack([RAMP] * 3, 2))),
        ("alpha.png", Image.fromarray(RAMP).convert("LA")),
        ("palette.gif", Image.fromarray(RAMP)),
        ("sixteen.png", Image.fromarray(RAMP.astype(np.uint16) * 257)),
        ("sixteen.tif", Image.fromarray(RAMP.astype(np.uint16) * 257)),
        ("integers.tif", Image.fromarray(RAMP.astype(np.int32) * 257)),
        ("bytes_as_integers.tif", Image.fromarray(RAMP.astype(np.int32))),
        ("floats.tif", Image.fromarray(RAMP.astype(np.float32) / 255)),
        ("bytes_as_floats.tif", Image.fromarray(RAMP.astype(np.float32))),
    ],
)
def test_every_mode_shows_the_same_picture(tmp_path: Path, name: str, picture: object) -> None:
    assert np.array_equal(first_channel(saved(tmp_path, name, picture)), RAMP)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = saved(tmp_path, "print.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    assert np.asarray(read(path))[4, 4].tolist() == pytest.approx([255, 0, 0], abs=3)


def test_transparent_pictures_lie_over_white(tmp_path: Path) -> None:
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    assert read(saved(tmp_path, "half.png", half)).getpixel((0, 0)) == (255, 127, 127)
    clear = Image.fromarray(RAMP).convert("P")
    path = saved(tmp_path, "clear.png", clear, transparency=int(RAMP[0, 1]))
    assert first_channel(path)[0, 1] == 255
    assert first_channel(path)[0, 2] == RAMP[0, 2]


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned a quarter to the right
    path = saved(tmp_path, "phone.png", Image.fromarray(RAMP), exif=turned)
    assert np.array_equal(first_channel(path), np.rot90(RAMP, -1))


def test_a_picture_too_large_for_pillow_to_trust_is_read_without_a_warning(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read(saved(tmp_path, "large.png", Image.fromarray(RAMP))).size == (4, 3)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.png", b"", "the file is empty"),
        ("notes.png", b"not a picture at all", "in no picture format that Pillow knows"),
        ("cut.png", None, "truncated"),
    ],
)
def test_a_damaged_picture_is_named_with_the_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    if content is None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        content = path.read_bytes()[:4000]
    path.write_bytes(content)
    with pytest.raises(ImageError, match=f"{name}.* cannot be read as a picture: .*{reason}"):
        read(path)


def test_what_is_no_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r"nowhere\.png' cannot be read as a picture: there is no such file\."
    ):
        read(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="it is a folder"):
        read(tmp_path)


def test_numbers_without_a_scale_are_refused(tmp_path: Path) -> None:
    odd = Image.fromarray(RAMP.astype(np.float32) * 1e6)
    with pytest.raises(ImageError, match=r"from 0 to 2\.55e\+08, which is no usual scale"):
        read(saved(tmp_path, "odd.tif", odd))


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="it measures 0 x 3 pixels"):
        images._rgb(Image.new("RGB", (0, 3)))


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_folder_is_its_pictures_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.webp", ".hidden.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    assert [Path(p).name for p in pictures(tmp_path)] == ["a.JPG", "b.png", "c.webp"]
    assert pictures("anything/else.png") == ["anything/else.png"]
    with pytest.raises(ImageError, match="holds no pictures"):
        pictures(tmp_path / "folder.png")


def test_samples_lie_in_the_package_and_others_are_unknown() -> None:
    pytest.importorskip("skimage")
    assert {"astronaut", "chelsea", "coffee", "rocket"} <= set(samples())
    assert all(path.is_file() for path in samples().values())
    assert read("sample:chelsea").size == (451, 300)
    assert pictures("sample:chelsea") == ["sample:chelsea"]
    with pytest.raises(
        UnknownName, match=r"sample photograph named 'chelsae'. Did you mean 'chelsea'"
    ):
        pictures("sample:chelsae")


def test_without_scikit_image_samples_say_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"'scikit-image'.*integrand\[demo\]"):
        read("sample:chelsea")


def test_titles_are_names_without_endings() -> None:
    assert title("sample:coffee") == "coffee"
    assert title("some/folder/my.cat.jpeg") == "my.cat"


# --- tensors ----------------------------------------------------------------------------------------------------------


def test_the_middle_is_kept() -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (255, 0, 0)
    made = prepare(Image.fromarray(wide), 10, crop=0.5)
    assert made.shape == (3, 10, 10)
    assert made.dtype == torch.float32
    assert torch.equal(made[0], torch.ones(10, 10))
    assert not made[1:].any()


def test_resizing_is_that_of_the_short_side_and_a_centre_crop() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    whole = Image.fromarray(noise).resize((48, 32), Image.Resampling.BICUBIC)
    cropped = np.asarray(whole.crop((10, 2, 38, 30)))  # 28 = 32 · 0.875
    made = prepare(Image.fromarray(noise), 28, crop=0.875).permute(1, 2, 0).numpy() * 255
    assert np.abs(made - cropped).max() <= 1  # Pillow works in fixed point


def test_a_strip_is_not_blown_up() -> None:
    assert prepare(Image.new("RGB", (1, 20000), "white"), 8).min() == 1


@pytest.mark.parametrize(("size", "crop"), [(0, 1.0), (8, 0.0), (8, 1.5)])
def test_impossible_squares_are_refused(size: int, crop: float) -> None:
    with pytest.raises(InputError, match="at least one pixel wide and crop is in"):
        prepare(Image.new("RGB", (4, 4)), size, crop=crop)
