"""Image sets in the layouts of the Hugging Face hub: which files and columns, and what is said when they do not fit."""

import io
import json
import pickle
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from pyarrow import parquet

from lightning_prune.data import hub
from lightning_prune.data.arrow_images import open_table
from lightning_prune.data.hub_layout import arrange
from lightning_prune.data.huggingface import huggingface
from lightning_prune.data.streamed_images import StreamedImages
from lightning_prune.data.transforms import to_pixels
from lightning_prune.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(constants, "HF_HOME", str(folder))
    return folder


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def encoded(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def table(
    seeds: Sequence[int],
    labels: Sequence[Any],
    classes: Sequence[str] | None = None,
    image: str = "image",
    label: str = "label",
    **others: Sequence[Any],
) -> pa.Table:
    """Return images with labels, with what `datasets` writes about them if there are names of classes."""
    column = pa.array([{"bytes": encoded(seed), "path": None} for seed in seeds], IMAGE)
    made = pa.table({"id": pa.array(range(len(seeds))), image: column, label: pa.array(labels), **others})
    if classes is None:
        return made
    features = {image: {"_type": "Image"}, label: {"names": list(classes), "_type": "ClassLabel"}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(file: Path, rows: pa.Table) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        parquet.write_table(rows, file, row_group_size=3)
    else:
        with pa.ipc.new_stream(str(file), rows.schema) as stream:
            stream.write_table(rows, max_chunksize=3)


PETS = ("ant", "cat", "dog")
TRAIN, TEST = table(range(10), [number % 3 for number in range(10)], PETS), table([50, 51], [2, 0], PETS)


def load(path: Path | str, **options: Any) -> StreamedImages:
    """Load images as they are."""
    return huggingface(
        path,
        **{"num_workers": 0, "train_transform": to_pixels, "eval_transform": to_pixels, "batch_size": 4, **options},
    )


def seeds_in(data: StreamedImages, part: str) -> list[int]:
    """Return the seeds that the images of a part were made from, in its order."""
    known = {to_pixels(picture(seed)).numpy().tobytes(): seed for seed in (*range(10), 50, 51)}
    (images,) = (list(getattr(data, f"{part}_dataloader")()) for _ in range(1))
    return [known[pixels.numpy().tobytes()] for batch in images for pixels in batch.pixels]


LAYOUTS = {
    "hub": "data/{part}-00000-of-00001.parquet",
    "converted": "default/{part}/0000.parquet",
    "by hand": "{part}.parquet",
    "saved by datasets": "{part}/data-00000-of-00001.arrow",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_images_and_labels_are_those_of_the_files(tmp_path: Path, layout: str) -> None:
    write(tmp_path / layout.format(part="train"), TRAIN)
    write(tmp_path / layout.format(part="test"), TEST)
    data = load(tmp_path, validation=0.3)
    assert (data.num_classes, data.in_channels) == (3, 3)
    assert seeds_in(data, "test") == [50, 51]
    assert data.test.labels.tolist() == [2, 0]
    train, val = sorted(seeds_in(data, "train")), sorted(seeds_in(data, "val"))
    assert (len(val), sorted(train + val)) == (3, list(range(10)))
    assert [int(label) for label in data.val.labels] == [seed % 3 for seed in seeds_in(data, "val")]


def test_shards_are_read_in_order_and_all_parts_used(tmp_path: Path) -> None:
    for number, rows in enumerate((TRAIN.slice(0, 4), TRAIN.slice(4))):
        write(tmp_path / f"train-0000{number}-of-00002.parquet", rows)
    write(tmp_path / "validation-00000-of-00001.parquet", TEST)
    write(tmp_path / "test-00000-of-00001.parquet", TEST)
    data = load(tmp_path, num_workers=2)
    assert sorted(seeds_in(data, "train")) == list(range(10))
    assert data.train.labels.tolist() == [number % 3 for number in range(10)]
    assert data.train.name(5).endswith("train-00001-of-00002.parquet, row 1")
    assert seeds_in(data, "val") == [50, 51]


def test_a_set_goes_to_other_processes(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", TRAIN)
    write(tmp_path / "val.parquet", TEST)
    images = load(tmp_path).train
    again = pickle.loads(pickle.dumps(images))
    assert again.name(4) == images.name(4)
    assert np.array_equal(np.array(again.load(4)), np.array(picture(4)))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(["dog", "ant", "dog", "cat"], 3), ([0, 4, 1, 4], 5)],
    ids=["strings", "numbers"],
)
def test_classes_that_nobody_names_are_those_that_there_are(tmp_path: Path, labels: list[Any], classes: int) -> None:
    write(tmp_path / "train.parquet", table(range(4), labels, label="target"))
    write(tmp_path / "test.parquet", table([50], labels[:1], label="target"))
    data = load(tmp_path, validation=0.5)
    assert data.num_classes == classes
    assert data.test.labels.tolist() == ([2] if classes == 3 else [0])


def test_images_may_be_plain_bytes_or_paths(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "one.png")
    column = pa.array([encoded(0), encoded(1)], pa.binary())
    write(tmp_path / "train.parquet", pa.table({"picture": column, "label": [0, 1]}))
    paths = pa.array([{"bytes": None, "path": str(tmp_path / "one.png")}], IMAGE)
    write(tmp_path / "val.parquet", pa.table({"picture": paths, "label": [1]}))
    data = load(tmp_path)
    assert sorted(seeds_in(data, "train")) == [0, 1]
    assert seeds_in(data, "val") == seeds_in(data, "test") == [1]


def test_names_of_files_tell_configurations_and_parts() -> None:
    files = [
        "plain_text/train-00000-of-00002.parquet",
        "plain_text/train-00001-of-00002.parquet",
        "plain_text/test-00000-of-00001-0a1b2c3d.parquet",
        "other/data/test_r4/0000.parquet",
        "other/validation_1.parquet",
    ]
    found = arrange(map(PurePath, reversed(files)))
    assert {
        config: {part: list(map(str, some)) for part, some in parts.items()} for config, parts in found.items()
    } == {
        "plain_text": {"train": files[:2], "test": [files[2]]},
        "other": {"test_r4": [files[3]], "validation": [files[4]]},
    }


def test_parts_columns_and_configurations_may_be_named(tmp_path: Path) -> None:
    rows = table(range(6), [0, 1] * 3, PETS[:2], label="fine", coarse=[0] * 6, crop=TRAIN["image"].slice(4))
    write(tmp_path / "small" / "learn-0.parquet", rows)
    write(tmp_path / "small" / "check-0.parquet", rows.slice(2, 2))
    write(tmp_path / "large" / "learn-0.parquet", rows)
    named = {"name": "small", "train_split": "learn", "test_split": "check", "label_column": "coarse"}
    data = load(tmp_path, **named, image_column="crop")
    assert seeds_in(data, "test") == [6, 7]
    assert data.num_classes == 1


def test_copies_are_made_once_and_anew_when_a_file_changes(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "train.parquet", TRAIN)
    load(tmp_path)
    (copy,) = cache.rglob("*.arrow")
    written = copy.stat().st_mtime_ns
    load(tmp_path)
    assert copy.stat().st_mtime_ns == written
    write(tmp_path / "train.parquet", TRAIN.slice(0, 8))
    assert len(load(tmp_path, validation=0.25).train.labels) == 4
    assert len(list(cache.rglob("*.arrow"))) == 2
    assert not list(cache.rglob("*.unfinished"))


def peak(file: Path, groups: int) -> int:
    """Return the most bytes that Arrow has held once it has copied and opened so many groups of two megabytes."""
    noise = [np.random.default_rng(number).bytes(100_000) for number in range(20)]
    group = pa.table({"image": pa.array([{"bytes": value} for value in noise], pa.struct({"bytes": pa.binary()}))})
    with parquet.ParquetWriter(file, group.schema) as written:
        for _ in range(groups):
            written.write_table(group)
    rows = open_table(file)
    assert (len(rows), rows["image"][-1].as_py()["bytes"]) == (20 * groups, noise[-1])
    return int(pa.default_memory_pool().max_memory())


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    few, many = peak(tmp_path / "few.parquet", groups=5), peak(tmp_path / "many.parquet", groups=30)
    assert 2_000_000 < many < 1.2 * few


# The hub


class FakeHub:
    """Files of a data set by revision, where the library that talks to the hub would find them."""

    def __init__(self, folder: Path, files: dict[str, list[str]]) -> None:
        self.folder, self.files = folder, files
        self.asked: list[tuple[str, str, list[str]]] = []

    def list_repo_files(self, repository: str, *, repo_type: str, revision: str) -> list[str]:
        assert repo_type == "dataset"
        return self.files.get(revision, [])

    def snapshot_download(self, repository: str, *, repo_type: str, revision: str, allow_patterns: list[str]) -> str:
        assert repo_type == "dataset"
        self.asked.append((repository, revision, allow_patterns))
        return str(self.folder)


def fake(monkeypatch: pytest.MonkeyPatch, folder: Path, files: dict[str, list[str]]) -> FakeHub:
    made = FakeHub(folder, files)
    monkeypatch.setattr(hub, "list_repo_files", made.list_repo_files)
    monkeypatch.setattr(hub, "snapshot_download", made.snapshot_download)
    return made


def test_the_files_of_one_configuration_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["small/train-00000-of-00001.parquet", "small/test-00000-of-00001.parquet"]
    write(tmp_path / files[0], TRAIN)
    write(tmp_path / files[1], TEST)
    made = fake(monkeypatch, tmp_path, {"main": [*files, "large/train-0.parquet", "README.md"]})
    assert len(load("somebody/pets", name="small").test.labels) == 2
    assert made.asked == [("somebody/pets", "main", files[::-1])]
    with pytest.raises(InputError, match=r"^data.name: expected one of large, small, got none$"):
        load("somebody/pets")


def test_what_the_hub_converted_is_taken_where_a_set_has_no_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "default" / "train" / "0000.parquet", TRAIN)
    files = {"main": ["images.zip"], "refs/convert/parquet": ["default/train/0000.parquet"]}
    made = fake(monkeypatch, tmp_path, files)
    assert len(load("somebody/pets").train.labels) == 8
    assert made.asked == [("somebody/pets", "refs/convert/parquet", ["default/train/0000.parquet"])]
    fake(monkeypatch, tmp_path, {"main": ["images.zip"]})
    with pytest.raises(
        InputError, match=r"^data.path: expected a data set with parquet files .*, got 'somebody/pets'$"
    ):
        load("somebody/pets")


def test_without_a_network_what_was_downloaded_before_is_used_or_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "train.parquet", TRAIN)

    def offline(*_: Any, **__: Any) -> list[str]:
        raise ConnectionError("Name or service not known\nmore")

    def downloaded(repository: str, *, repo_type: str, local_files_only: bool) -> str:
        if repository == "somebody/pets":
            return str(tmp_path)
        raise LocalEntryNotFoundError("not cached\nmore")

    monkeypatch.setattr(hub, "list_repo_files", offline)
    monkeypatch.setattr(hub, "snapshot_download", downloaded)
    assert len(load("somebody/pets").train.labels) == 8
    with pytest.raises(InputError) as caught:
        load("nobody/pets")
    assert str(caught.value) == (
        "data.path: expected a folder, or a data set that can be downloaded from huggingface.co, got 'nobody/pets' "
        "(ConnectionError)"
    )


# Refusals

UNNAMED = table(range(4), [0, 1, 2, 0])
TWO_IMAGES = table(range(4), [0, 1, 2, 0], other=TRAIN["image"].slice(0, 4))


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            UNNAMED,
            {"label_column": "class"},
            "data.label_column: expected one of the columns id, image, label, got class",
        ),
        (
            UNNAMED.drop(["label"]),
            {},
            r"data.label_column: expected one column of labels, got none in id, image; name it",
        ),
        (
            UNNAMED.drop(["image"]),
            {},
            r"data.image_column: expected one column of encoded images, got none in id, label;",
        ),
        (TWO_IMAGES, {}, r"data.image_column: expected one column of encoded images, got image, other; name one by"),
        (UNNAMED, {"image_column": "id"}, "data.image_column: expected encoded images in id, got int64"),
        (UNNAMED, {"label_column": "image"}, "data.label_column: expected integers or strings in image, got struct"),
        (UNNAMED, {"test_split": "check"}, "data.test_split: expected one of train, got check"),
        (UNNAMED, {"train_split": "learn"}, "data.train_split: expected one of train, got learn"),
        (UNNAMED, {"name": "small"}, "data.name: expected one of default, got small"),
        (UNNAMED, {"validation": 0}, r"data.validation: expected a fraction in \(0, 1\), got 0"),
        (
            table(range(2), [0, None]),
            {},
            "data.path: expected a label, got None in column label of .*train.parquet, row 1",
        ),
        (
            table(range(2), [0, -1], PETS),
            {},
            "data.path: expected a label of 3 classes, got -1 in column label of .*row 1",
        ),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(
    tmp_path: Path, rows: pa.Table, options: dict[str, Any], message: str
) -> None:
    write(tmp_path / "train.parquet", rows)
    with pytest.raises(InputError, match=f"^{message}") as caught:
        load(tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_labels_of_other_parts_must_be_those_of_train(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", table(range(4), ["a", "b", "a", "b"]))
    write(tmp_path / "test.parquet", table([50], ["c"]))
    with pytest.raises(
        InputError, match=r"expected a label of 2 classes, got 'c' in column label of .*test.parquet, row 0"
    ):
        load(tmp_path)


def test_damaged_files_and_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected parquet files or the folders that datasets saves in .*, got none"):
        load(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"expected a parquet file, got .*train.parquet, which is damaged or is none"):
        load(tmp_path)
    column = pa.array([{"bytes": encoded(0), "path": None}] + [{"bytes": b"no", "path": None}] * 3 + [None], IMAGE)
    write(tmp_path / "train.parquet", pa.table({"image": column, "label": [0, 1, 0, 1, 2]}))
    write(tmp_path / "val.parquet", TEST)
    data = load(tmp_path, num_workers=1, batch_size=1)
    with pytest.raises(InputError, match=r"got (damaged data|null) in .*train.parquet, row \d"):
        list(data.train_dataloader())
    assert torch.equal(data.example_input(1)[0], data.finish(to_pixels(picture(0))[None], None)[0])
