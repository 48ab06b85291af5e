"""The LeNets of Deep Compression, and the data of their size."""

import io
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from quiet_trainer import quiet_trainer
from torch import nn
from torch.nn import functional as F

from lightning_prune import profile
from lightning_prune.data.digits import digits
from lightning_prune.data.mnist import mnist
from lightning_prune.errors import InputError
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.lenet import lenet_5, lenet_300_100


@pytest.mark.parametrize(
    ("model", "weights", "biases", "macs"),
    [
        (lenet_300_100(), 784 * 300 + 300 * 100 + 100 * 10, 410, 266_200),
        (lenet_5(), 25 * 20 + 25 * 20 * 50 + 800 * 500 + 500 * 10, 580, 288_000 + 1_600_000 + 405_000),
    ],
)
def test_sizes_are_those_that_the_literature_counts(model: nn.Module, weights: int, biases: int, macs: int) -> None:
    assert (weights, biases) in ((266_200, 410), (430_500, 580))
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1) == weights
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 1) == biases
    assert profile(model, torch.zeros(1, 1, 28, 28)).macs == macs


@pytest.mark.parametrize("build", [lenet_300_100, lenet_5])
def test_classes_and_channels_can_be_chosen(build: type[nn.Module]) -> None:
    assert build(num_classes=7, in_channels=3)(torch.randn(2, 3, 28, 28)).shape == (2, 7)


def test_larger_digits_are_the_same_digits() -> None:
    small, large = digits(), digits(size=28)
    assert (large.image_size, large.padding, large.example_input(2).shape) == (28, 3, (2, 1, 28, 28))
    for own, other in ((small.train, large.train), (small.val, large.val), (small.test, large.test)):
        assert torch.equal(own.labels, other.labels)
        expected = F.interpolate(own.pixels.double(), (28, 28), mode="bilinear")
        assert (other.pixels - expected).abs().max() <= 0.5 + 1e-5
    rest = torch.cat((large.train.pixels, large.val.pixels)).double() / 255
    assert large.mean == pytest.approx([rest.mean().item()])
    assert digits(size=28, views=49).countable_views == 49


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 7}, r"^data\.size: expected a whole number in 8\.\.64, got 7$"),
        ({"size": 28.0}, r"^data\.size: expected a whole number in 8\.\.64, got 28\.0$"),
        ({"size": 28, "views": 50}, r"^data\.views: expected a whole number in 1\.\.49, got 50$"),
    ],
)
def test_digits_refuse_sizes_out_of_range(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        digits(**options)


def test_a_lenet_learns_the_larger_digits() -> None:
    data = digits(size=28)
    module = ImageClassifier(lenet_300_100(), 10, lambda parameters: torch.optim.AdamW(parameters, 1e-3))
    trainer = quiet_trainer(max_epochs=3)
    trainer.fit(module, datamodule=data)
    assert trainer.callback_metrics["val/accuracy"] > 0.7


def gray(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (28, 28), value).save(file, "PNG")
    return file.getvalue()


def write(file: Path, values: list[int]) -> None:
    """Write gray images as the hub has them, each labelled with the last digit of its value."""
    rows = [{"bytes": gray(value), "path": f"{value}.png"} for value in values]
    table = {"image": pa.array(rows), "label": pa.array([value % 10 for value in values], pa.int64())}
    parquet.write_table(pa.table(table), file)


def test_mnist_is_read_from_parquet_files(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00001.parquet", list(range(60)))
    write(tmp_path / "test-00000-of-00001.parquet", list(range(200, 210)))
    data = mnist(tmp_path, validation=10, batch_size=4)
    assert (data.num_classes, data.in_channels, data.image_size, data.flip) == (10, 1, 28, False)
    assert [len(part.labels) for part in (data.train, data.val, data.test)] == [50, 10, 10]
    for part in (data.train, data.val, data.test):
        assert torch.equal(part.pixels[:, 0, 5, 5] % 10, part.labels)
        assert (part.pixels == part.pixels[:, :, :1, :1]).all()
    assert data.example_input(1)[0, 0, 0, 0] == pytest.approx(
        (int(data.train.pixels[0, 0, 0, 0]) / 255 - 0.1307) / 0.3081
    )


def test_mnist_says_what_it_cannot_read(tmp_path: Path) -> None:
    for options, message in (
        ({}, r"expected files named \*train\*\.parquet, got .*, which has none"),
        ({"validation": 60_000}, r"^data\.validation: expected a whole number in 1\.\.59999"),
        ({"views": 26}, r"^data\.views: expected a whole number in 1\.\.25, got 26"),
    ):
        with pytest.raises(InputError, match=message):
            mnist(tmp_path, **options)
