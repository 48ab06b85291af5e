"""Where images in memory come from: scikit-learn, parquet files; and what is said when they do not."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from pyarrow import parquet
from sklearn.datasets import load_digits
from torch import Tensor

from lightning_prune.data import hub
from lightning_prune.data.cifar import cifar10, cifar100
from lightning_prune.data.digits import digits
from lightning_prune.data.in_memory import InMemoryImages
from lightning_prune.errors import InputError


def rows_of(*pixels: Tensor) -> list[tuple[int, ...]]:
    return sorted(tuple(image.flatten().tolist()) for part in pixels for image in part)


def picture(seed: int, size: tuple[int, int] = (4, 4), kind: str = "PNG") -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


# Digits


def test_digits_are_the_1797_images_of_scikit_learn_split_by_class() -> None:
    data, source = digits(), load_digits()
    parts = data.train, data.val, data.test
    assert [len(part.labels) for part in parts] == [1257, 180, 360]
    assert (data.num_classes, data.in_channels, data.image_size) == (10, 1, 8)
    assert rows_of(*(part.pixels for part in parts)) == rows_of(torch.from_numpy(source.data * 15).int())
    for part in parts:
        shares = part.labels.bincount() / torch.from_numpy(source.target).bincount()
        assert (shares - len(part.labels) / 1797).abs().max() < 0.02


def test_digits_keep_their_labels() -> None:
    labels = {tuple(row): label for row, label in zip(load_digits().data.tolist(), load_digits().target, strict=True)}
    for pixels, target in zip(*digits().val, strict=True):
        assert labels[tuple((pixels.flatten() / 15).tolist())] == target


def test_digits_test_set_and_normalisation_do_not_depend_on_the_seed() -> None:
    one, other = digits(seed=0), digits(seed=1)
    assert torch.equal(one.test.pixels, other.test.pixels)
    assert (one.mean, one.std) == (other.mean, other.std)
    assert not torch.equal(one.val.pixels, other.val.pixels)
    rest = torch.cat((one.train.pixels, one.val.pixels)).double() / 255
    assert one.mean == pytest.approx([rest.mean().item()])
    assert one.std == pytest.approx([rest.std(correction=0).item()])


def test_all_sources_show_images_in_as_many_views_as_they_are_told(folder: Path) -> None:
    modules = [
        digits(views=9),
        cifar10(folder, validation=1, views=162),
        cifar100(folder, validation=1, views=3),
    ]
    assert [data.countable_views for data in modules] == [9, 162, 3]
    assert digits().countable_views is None


# CIFAR


def write_shard(
    file: Path,
    images: list[bytes | None],
    labels: list[int | None],
    image_column: str = "img",
    label_column: str = "label",
) -> None:
    struct = pa.array(
        [{"bytes": image, "path": None} for image in images], pa.struct({"bytes": "binary", "path": "string"})
    )
    parquet.write_table(pa.table({image_column: struct, label_column: pa.array(labels)}), file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve training images in two shards, four test images; labels count up from 0."""
    write_shard(tmp_path / "train-00001.parquet", [picture(seed) for seed in range(8, 12)], [8, 9, 0, 1])
    write_shard(tmp_path / "train-00000.parquet", [picture(seed) for seed in range(8)], list(range(8)))
    write_shard(tmp_path / "test.parquet", [picture(seed) for seed in range(50, 54)], [0, 1, 2, 3])
    return tmp_path


def decoded(seeds: range) -> list[Tensor]:
    return [torch.from_numpy(np.array(Image.open(io.BytesIO(picture(seed)))).transpose(2, 0, 1)) for seed in seeds]


def test_cifar10_reads_all_shards_and_holds_out_a_part_of_train(folder: Path) -> None:
    data = cifar10(folder, batch_size=3, validation=4, seed=0)
    assert (data.num_classes, data.in_channels, data.image_size, data.padding, data.flip) == (10, 3, 4, 4, True)
    labels = {tuple(image.flatten().tolist()): seed % 10 for seed, image in enumerate(decoded(range(12)))}
    assert rows_of(data.train.pixels, data.val.pixels) == sorted(labels)
    assert (len(data.train.labels), len(data.val.labels)) == (8, 4)
    for pixels, label in zip(*data.train, strict=True):
        assert labels[tuple(pixels.flatten().tolist())] == label
    assert torch.equal(data.test.pixels, torch.stack(decoded(range(50, 54))))
    assert data.test.labels.tolist() == [0, 1, 2, 3]


def test_shards_are_found_below_the_folder_and_under_the_column_name_image(folder: Path) -> None:
    nested = folder / "snapshot" / "plain_text"
    nested.mkdir(parents=True)
    for part in ("train", "test"):
        write_shard(nested / f"{part}-0.parquet", [picture(1), picture(2)], [1, 2], image_column="image")
    data = cifar10(folder / "snapshot", validation=1)
    assert torch.equal(data.test.pixels, torch.stack(decoded(range(1, 3))))


@pytest.mark.parametrize("column", ["fine_label", "label"])
def test_cifar100_reads_fine_labels(tmp_path: Path, column: str) -> None:
    for part in ("train", "test"):
        write_shard(tmp_path / f"{part}.parquet", [picture(1), picture(2)], [42, 99], label_column=column)
    data = cifar100(tmp_path, validation=1)
    assert data.num_classes == 100
    assert data.test.labels.tolist() == [42, 99]


def test_gray_and_jpeg_images_become_rgb(tmp_path: Path) -> None:
    gray = io.BytesIO()
    Image.new("L", (4, 4), 7).save(gray, "PNG")
    jpeg = picture(1, kind="JPEG")
    for part in ("train", "test"):
        write_shard(tmp_path / f"{part}.parquet", [gray.getvalue(), jpeg], [0, 1])
    pixels = cifar10(tmp_path, validation=1).test.pixels
    assert (pixels[0] == 7).all()
    assert np.array_equal(pixels[1].permute(1, 2, 0).numpy(), np.array(Image.open(io.BytesIO(jpeg))))


def test_without_a_path_the_hub_is_asked_for_the_parquet_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def snapshot(repository: str, *, repo_type: str, allow_patterns: str) -> str:
        asked.append((repository, repo_type, allow_patterns))
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert len(cifar10(validation=4).test.labels) == len(cifar100(validation=4).test.labels) == 4
    assert asked == [
        ("uoft-cs/cifar10", "dataset", "plain_text/*.parquet"),
        ("uoft-cs/cifar100", "dataset", "cifar100/*.parquet"),
    ]


def test_without_a_network_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(repository: str, *, repo_type: str, allow_patterns: str) -> str:
        raise LocalEntryNotFoundError("no network\nplease check")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    with pytest.raises(InputError, match=r"^data.path: expected to download uoft-cs/cifar10 .*; pass a folder") as info:
        cifar10()
    assert "\n" not in str(info.value)


# Refusals


def refuses(message: str, load: Callable[[], InMemoryImages]) -> None:
    with pytest.raises(InputError) as info:
        load()
    assert re.fullmatch(message, str(info.value)), str(info.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size: expected a whole number in 1\.\.\d+, got 0"),
        ({"seed": "abc"}, r"data\.seed: expected a whole number in 0\.\.\d+, got 'abc'"),
        ({"validation": 0}, r"data\.validation: expected a whole number in 1\.\.49999, got 0"),
        ({"validation": 0.1}, r"data\.validation: expected a whole number in 1\.\.49999, got 0\.1"),
        ({"validation": 12}, r"data\.validation: expected 1 to 11 of the 12 images held out, got 12"),
        ({"views": 163}, r"data\.views: expected a whole number in 1\.\.162, got 163"),
    ],
)
def test_cifar_refuses_numbers_out_of_range(folder: Path, options: dict[str, int], message: str) -> None:
    refuses(message, lambda: cifar10(folder, **options))


def test_cifar_names_the_folder_it_cannot_use(tmp_path: Path) -> None:
    refuses(
        "data.path: expected a folder with parquet files, got /nope, which does not exist", lambda: cifar10("/nope")
    )
    (tmp_path / "file").touch()
    refuses(".*/file, which is not a folder", lambda: cifar10(tmp_path / "file"))
    refuses(r"data.path: expected files named \*train\*.parquet, got .*, which has none", lambda: cifar10(tmp_path))
    write_shard(tmp_path / "train.parquet", [picture(0)] * 2, [0, 1])
    refuses(
        r"data.path: expected files named \*test\*.parquet, got .*, which has none",
        lambda: cifar10(tmp_path, validation=1),
    )


def test_cifar_names_the_damaged_file(folder: Path) -> None:
    file = folder / "train-00001.parquet"
    whole = file.read_bytes()
    for damaged in (b"", b"no parquet", whole[:200], whole[:-200] + bytes(200), whole[:4] + bytes(400) + whole[404:]):
        file.write_bytes(damaged)
        refuses(f"data.path: .*{file}.*", lambda: cifar10(folder, validation=1))


def test_cifar_names_the_columns_it_found(folder: Path) -> None:
    file = folder / "train-00000.parquet"
    write_shard(file, [picture(0)], [0], image_column="picture")
    refuses(
        f"data.path: expected a column img or image in {file}, got the columns picture, label", lambda: cifar10(folder)
    )
    write_shard(file, [picture(0)], [0], label_column="coarse_label")
    refuses(
        f"data.path: expected a column fine_label or label in {file}, got the columns img, coarse_label",
        lambda: cifar100(folder),
    )
    parquet.write_table(pa.table({"img": ["a"], "label": [0]}), file)
    refuses(f"data.path: expected img with a field bytes, got string in {file}", lambda: cifar10(folder))
    write_shard(file, [picture(0)], [0.5])
    refuses(f"data.path: expected label of integers, got double in {file}", lambda: cifar10(folder))


def test_cifar_names_the_file_and_the_row(folder: Path) -> None:
    file = folder / "train-00000.parquet"
    cut = picture(0)[:-30]
    for images, labels, message in [
        ([picture(0), cut], [0, 1], f"expected an image that Pillow can decode, got damaged data in {file}, row 1"),
        ([b"text"], [0], f"expected an image that Pillow can decode, got damaged data in {file}, row 0"),
        ([picture(0), None], [0, 1], f"expected an image, got null in {file}, row 1"),
        ([picture(0)] * 3, [0, 1, 10], rf"expected a label in 0..9, got 10 in {file}, row 2"),
        ([picture(0)] * 2, [0, -1], rf"expected a label in 0..9, got -1 in {file}, row 1"),
        ([picture(0)] * 2, [None, 1], rf"expected a label in 0..9, got None in {file}, row 0"),
        (
            [picture(0), picture(0, (4, 5))],
            [0, 1],
            f"expected images of one size, got 4x4 in .*, row 0 and 4x5 in {file}, row 1",
        ),
        ([], [], f"expected images in {file}, got a parquet file with no rows"),
    ]:
        write_shard(file, images, labels if labels else pa.array([], "int64"))
        refuses(f"data.path: {message}", lambda: cifar10(folder, validation=1))
