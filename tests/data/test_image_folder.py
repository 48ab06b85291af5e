"""Images in one folder a class: which files, which parts, and what is said when they do not fit."""

import io
import itertools
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lightning_prune.data.decoding import decode
from lightning_prune.data.image_folder import image_folder
from lightning_prune.data.streamed_images import IMAGENET_MEAN, IMAGENET_STD, StreamedImages
from lightning_prune.data.transforms import CentreCrop, RandomResizedCrop, to_pixels
from lightning_prune.errors import InputError


def picture(seed: int, size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def write(root: Path, parts: dict[str, int]) -> Path:
    """Write two classes, `ant` and `cat`, with so many images each, of different sizes."""
    for (part, count), (number, name) in itertools.product(parts.items(), enumerate(("cat", "ant"))):
        (root / part / name).mkdir(parents=True)
        for index in range(count):
            picture(index + 100 * number, (9 + index, 9 + number)).save(root / part / name / f"{index}.png")
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write(tmp_path, {"train": 10, "test": 2})


def folder(path: Path, **options: Any) -> StreamedImages:
    return image_folder(path, **{"image_size": 8, "num_workers": 0, **options})


def names(part: Any) -> list[str]:
    return [part.name(sample) for sample in range(len(part.labels))]


def test_classes_are_numbered_by_name_and_validation_is_held_out_of_train(tree: Path) -> None:
    data = folder(tree, validation=0.2, batch_size=2)
    assert (data.num_classes, data.in_channels, data.mean, data.std) == (2, 3, IMAGENET_MEAN, IMAGENET_STD)
    assert data.train.labels.bincount().tolist() == [8, 8]
    assert data.val.labels.bincount().tolist() == [2, 2]
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert sorted(names(data.train) + names(data.val)) == sorted(str(file) for file in tree.glob("train/*/*"))
    assert [("ant" in name) for name in names(data.train)] == [label == 0 for label in data.train.labels.tolist()]


@pytest.mark.parametrize(
    ("parts", "sizes", "line"),
    [
        ({"train": 10, "val": 3, "test": 2}, (20, 6, 4), None),
        ({"train": 10, "test": 2}, (16, 4, 4), None),
        ({"train": 10, "val": 3}, (20, 6, 6), "its figures are those of the validation, which chooses checkpoints"),
        ({"train": 10}, (13, 3, 4), "20% of those for training are held out for it"),
    ],
)
def test_parts_that_are_not_there_are_made_and_the_log_says_so(
    tmp_path: Path, parts: dict[str, int], sizes: tuple[int, ...], line: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data = folder(write(tmp_path, parts), validation=0.2)
    train, val, test = (
        {part.name(sample) for sample in range(len(part.labels))} for part in (data.train, data.val, data.test)
    )
    assert tuple(map(len, (train, val, test))) == sizes
    assert not train & (val | test)
    assert (val == test) == ("val" in parts and "test" not in parts)
    assert [record.message for record in caplog.records if "test" in record.message] == (
        [] if line is None else [f"data: there are no images for the test: {line}"]
    )


def test_what_is_held_out_for_the_test_does_not_depend_on_the_seed(tmp_path: Path) -> None:
    one, other = (folder(write(tmp_path, {"train": 10}) if seed == 0 else tmp_path, seed=seed) for seed in range(2))
    assert names(one.test) == names(other.test)
    assert names(one.val) != names(other.val)


def test_images_are_found_in_folders_of_folders_and_other_files_are_not(tree: Path) -> None:
    deep = tree / "test" / "ant" / "red" / "small"
    deep.mkdir(parents=True)
    picture(3).save(deep / "x.JPG", "JPEG")
    picture(4).save(tree / "test" / "ant" / "y.webp")
    (tree / "test" / "ant" / "notes.txt").write_text("no image")
    (tree / "test" / "ant" / "._x.jpg").write_text("what other systems leave")
    (tree / "test" / ".cache").mkdir()
    data = folder(tree)
    found = [Path(data.test.name(sample)).relative_to(tree / "test" / "ant") for sample in range(4)]
    assert sorted(map(str, found)) == ["0.png", "1.png", "red/small/x.JPG", "y.webp"]
    assert data.test.labels.tolist() == [0, 0, 0, 0, 1, 1]


def test_classes_may_be_links(tree: Path) -> None:
    (tree / "elsewhere").mkdir()
    (tree / "train" / "cat").rename(tree / "elsewhere" / "cat")
    (tree / "train" / "cat").symlink_to(tree / "elsewhere" / "cat")
    assert len(folder(tree, validation=0.2).train.labels) == 16


def test_transforms_may_be_ones_own(tree: Path) -> None:
    def red(image: Image.Image) -> Tensor:
        return to_pixels(image)[:1, :4, :4]

    data = folder(tree, train_transform=red, eval_transform=red, mean=[0.5], std=[0.25])
    assert data.in_channels == 1
    (batch, *_) = data.train_dataloader()
    assert batch.pixels.shape[1:] == (1, 4, 4)
    expected = to_pixels(Image.open(data.train.name(0)))[:1, :4, :4].float() / 255
    torch.testing.assert_close(data.example_input(1)[0], (expected - 0.5) / 0.25)


# Transforms


def test_the_centre_is_that_of_the_resized_image() -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(wide)
    assert np.array_equal(CentreCrop(8, fraction=1.0)(image).permute(1, 2, 0).numpy(), wide[:, 8:16])
    large = picture(0, (240, 160))
    resized = large.resize((120, 80), Image.Resampling.BILINEAR).crop((25, 5, 95, 75))
    difference = CentreCrop(70)(large).permute(1, 2, 0).numpy().astype(int) - np.array(resized)
    assert abs(difference).max() <= 1  # it is rounded once, and not after each of two steps


def test_random_crops_lie_in_the_image_and_have_the_shapes_that_are_allowed() -> None:
    crop = RandomResizedCrop(8, scale=(0.25, 0.75), ratio=(0.5, 2.0))
    boxes = torch.tensor([crop._draw_box(60, 40) for _ in range(2000)]).double()
    left, top, right, bottom = boxes.unbind(1)
    assert left.min() == top.min() == 0
    assert (right.max(), bottom.max()) == (60, 40)
    area, ratio = (right - left) * (bottom - top) / 2400, (right - left) / (bottom - top)
    assert 0.24 < area.min() < 0.26
    assert 0.70 < area.max() < 0.77
    assert 0.48 < ratio.min() < 0.55
    assert 1.8 < ratio.max() < 2.1


def test_a_crop_is_the_image_itself_where_all_of_it_is_taken_and_mirrored_as_often_as_said() -> None:
    image = picture(0, (8, 8))
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    assert torch.equal(RandomResizedCrop(8, **whole, flip=0.0)(image), to_pixels(image))
    assert torch.equal(RandomResizedCrop(8, **whole, flip=1.0)(image), to_pixels(image).flip(2))
    often = sum(torch.equal(RandomResizedCrop(8, **whole)(image), to_pixels(image)) for _ in range(400))
    assert 150 < often < 250


def test_an_image_that_no_crop_fits_is_cut_to_the_nearest_shape() -> None:
    assert RandomResizedCrop(8)._draw_box(1000, 3) == (498, 0, 502, 3)
    assert RandomResizedCrop(8)._draw_box(3, 1000) == (0, 498, 3, 502)


# Modes


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_images_of_every_mode_become_rgb(mode: str, tmp_path: Path) -> None:
    gray = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    if mode == "I;16":
        image = Image.fromarray(gray.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(gray) if mode == "P" else Image.fromarray(gray).convert("RGB")
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, {"CMYK": "TIFF", "YCbCr": "TIFF"}.get(mode, "PNG"))
    file.seek(0)
    decoded = decode(file, "it")
    assert decoded.mode == "RGB"
    expected = np.array(image.convert("L")) if mode == "1" else gray
    assert abs(np.array(decoded).astype(int) - expected[..., None]).max() <= 1


# Refusals


def refuses(message: str, load: Callable[[], Any]) -> None:
    with pytest.raises(InputError) as info:
        load()
    assert re.fullmatch(message, str(info.value)), str(info.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, r"data\.image_size: expected a whole number in 1\.\.16384, got 0"),
        ({"validation": 1.0}, r"data\.validation: expected a fraction in \(0, 1\), got 1\.0"),
        ({"validation": 0.01}, r"data\.validation: expected 1 to 19 of the 20 images held out, got 0"),
        ({"batch_size": -3}, r"data\.batch_size: expected a whole number in 1\.\.\d+, got -3"),
        ({"views": 0}, r"data\.views: expected a whole number in 1\.\.65536, got 0"),
        ({"num_workers": "many"}, r"data\.num_workers: expected a whole number in 0\.\.1024, got 'many'"),
    ],
)
def test_numbers_out_of_range_are_refused(tree: Path, options: dict[str, Any], message: str) -> None:
    refuses(message, lambda: folder(tree, **options))


def test_the_folder_or_file_that_cannot_be_used_is_named(tree: Path) -> None:
    refuses(
        "data.path: expected a folder with train/<class>/ and val/<class>/ or test/<class>/, got /nope, which does not "
        "exist",
        lambda: image_folder("/nope"),
    )
    damaged = tree / "test" / "cat" / "0.png"
    damaged.write_bytes(b"text")
    refuses(
        f"data.path: expected an image that Pillow can decode, got damaged data in {damaged}",
        lambda: list(folder(tree).test_dataloader()),
    )
    for file in (tree / "test" / "cat").iterdir():
        file.unlink()
    refuses(r"data.path: expected images \(.png, .*\) in .*/test/cat, got none", lambda: folder(tree))
    (tree / "test" / "cat").rmdir()
    refuses(
        "data.path: expected the same classes in .*/test as in train, got cat in one of them only",
        lambda: folder(tree),
    )
    (tree / "train").rename(tree / "elsewhere")
    refuses(
        "data.path: expected a folder with one folder a class, got .*/train, which does not exist",
        lambda: folder(tree),
    )
    (tree / "train").mkdir()
    refuses("data.path: expected one folder a class in .*/train, got none", lambda: folder(tree))
