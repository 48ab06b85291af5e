"""Images from disk: the same bits whoever loads them, after a stop too, and never more of them than are under way."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from quiet_trainer import quiet_trainer
from recorder import Recorder
from stored_images import MadeImages, plain, shifted, stored_module
from torch import Tensor

from lightning_prune.data.batches import SEEDS, Batch, TrainBatches, draw_epoch
from lightning_prune.data.streaming import Part, Stream
from lightning_prune.data.transforms import to_pixels
from lightning_prune.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    # Python 3.12 says so wherever a DataLoader has workers.
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]


def epoch_of(loader: TrainBatches, epoch: int) -> list[Batch]:
    loader.set_epoch(epoch)
    return list(loader)


def joined(batches: list[Batch]) -> Tensor:
    return torch.cat([batch.pixels for batch in batches])


def test_evaluation_shows_every_image_once_in_order_as_the_transform_gives_it() -> None:
    data = stored_module()
    batches = list(data.test_dataloader())
    images = MadeImages(9, seed=2)
    assert [len(batch.labels) for batch in batches] == [5, 4]
    assert torch.equal(joined(batches), torch.stack([to_pixels(images.load(sample)) for sample in range(9)]))
    assert torch.equal(torch.cat([batch.labels for batch in batches]), images.labels)


def test_a_batch_is_normalised_in_float32() -> None:
    data = stored_module()
    batch = next(iter(data.test_dataloader()))
    images, labels = data.on_after_batch_transfer(batch, 0)
    expected = (batch.pixels.double().numpy() / 255 - np.reshape(data.mean, (3, 1, 1))) / np.reshape(
        data.std, (3, 1, 1)
    )
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-6)
    assert torch.equal(labels, batch.labels)


def test_training_batches_are_the_drawn_order_seen_through_the_drawn_seeds() -> None:
    batches = list(stored_module().train_dataloader())
    order, seeds = draw_epoch(23, SEEDS, seed=0, epoch=0)
    assert torch.equal(torch.cat([batch.samples for batch in batches]), order)
    images = MadeImages(23)
    for sample, pixels in zip(order.tolist(), joined(batches), strict=True):
        seed = int(seeds[sample])
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        assert torch.equal(pixels, shifted(images.load(sample)))


def test_the_bits_do_not_depend_on_the_number_of_workers_and_differ_between_epochs_and_seeds() -> None:
    alone, helped, other = (
        stored_module(**options).train_dataloader() for options in ({}, {"num_workers": 2}, {"seed": 1})
    )
    epochs = [joined(epoch_of(alone, epoch)) for epoch in range(3)]
    assert [torch.equal(joined(epoch_of(helped, epoch)), epochs[epoch]) for epoch in range(3)] == [True] * 3
    assert not torch.equal(epochs[0].sort(0).values, epochs[1].sort(0).values)
    assert not torch.equal(joined(epoch_of(other, 0)).sort(0).values, epochs[0].sort(0).values)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_generators_stay_where_they_are(workers: int) -> None:
    loader = stored_module(num_workers=workers).train_dataloader()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert len(list(loader)) == 5
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_two_processes_share_an_epoch() -> None:
    stream = Stream(MadeImages(23), shifted, plain)
    whole = joined(list(TrainBatches(stream, SEEDS, 23, seed=0)))
    parts = [joined(list(TrainBatches(stream, SEEDS, 5, seed=0, rank=rank, world_size=2))) for rank in range(2)]
    assert [len(part) for part in parts] == [12, 12]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1)[:23], whole)


EVERY_STEP = {"every_n_train_steps": 1}


@pytest.mark.parametrize(
    ("options", "saving", "done"),
    [
        pytest.param({}, EVERY_STEP, 1, id="first batch"),
        pytest.param({}, EVERY_STEP, 8, id="mid-epoch"),
        pytest.param({"num_workers": 1}, EVERY_STEP, 8, id="mid-epoch, with a worker"),
        pytest.param({}, EVERY_STEP, 10, id="last batch of an epoch"),
        pytest.param({}, {"save_on_train_epoch_end": True}, 10, id="end of an epoch"),
        pytest.param({"views": 2}, EVERY_STEP, 8, id="few views, mid-epoch"),
    ],
)
def test_a_resumed_run_sees_the_batches_it_would_have_seen(
    tmp_path: Path, options: dict[str, Any], saving: dict[str, Any], done: int
) -> None:
    def run(checkpoint: Path | None) -> Recorder:
        keep, module = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **saving), Recorder()
        trainer = quiet_trainer(keep, max_epochs=3, num_sanity_val_steps=0)
        data = stored_module(**options)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=checkpoint and True)
        return module

    whole, resumed = run(None), run(tmp_path / f"step={done}.ckpt")
    assert len({digest for *_, digest in whole.seen}) == len(whole.seen) == 15
    assert resumed.seen == whole.seen[done:]
    assert torch.equal(resumed.net.weight, whole.net.weight)


def test_images_in_few_views_are_shown_in_them_in_turn() -> None:
    data = stored_module(views=2)
    assert data.countable_views == 2
    loader = data.train_dataloader()
    epochs = [
        (torch.cat([batch.samples for batch in batches]), joined(batches))
        for batches in (epoch_of(loader, epoch) for epoch in range(4))
    ]
    by_sample = [pixels[samples.argsort()] for samples, pixels in epochs]
    assert torch.equal(by_sample[0], by_sample[2])
    assert torch.equal(by_sample[1], by_sample[3])
    assert not torch.equal(by_sample[0], by_sample[1])
    for view in range(2):
        shown = data.at_view(torch.arange(23), view, torch.device("cpu"))
        assert torch.equal(shown, data.finish(by_sample[view], None))


def test_a_part_of_a_set_is_that_of_its_indices() -> None:
    whole = MadeImages(9)
    part = Part(whole, torch.tensor([7, 2]))
    assert part.labels.tolist() == [3, 2]
    assert (part.name(0), part.name(1)) == ("0/7.png", "0/2.png")
    assert np.array_equal(np.array(part.load(1)), np.array(whole.load(2)))


def refusal(data: Any) -> str:
    with pytest.raises(InputError) as caught:
        list(data.train_dataloader())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named_in_one_line(workers: int) -> None:
    data = stored_module(num_workers=workers)
    data.train.damaged = 11  # type: ignore[attr-defined]
    assert refusal(data) == "data.path: expected an image, got damaged data in 0/11.png"


def shrinking(image: Image.Image) -> Tensor:
    return to_pixels(image)[:, : int(torch.randint(1, 7, ()))]


def as_it_is(image: Image.Image) -> Any:
    return image


def of_integers(image: Image.Image) -> Tensor:
    return to_pixels(image).long()


def scaled(image: Image.Image) -> Tensor:
    return to_pixels(image).double()[:1] / 510


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (shrinking, r"data: expected transforms that give images of one shape and type, got \(3, \d, 6\) .*uint8 and"),
        (as_it_is, "data.train_transform: expected it to give a tensor .*, uint8 or float, got a Image"),
        (of_integers, r"data.train_transform: expected .*, got torch.int64 \(3, 6, 6\)"),
    ],
)
def test_transforms_that_give_no_images_are_refused_in_one_line(transform: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(stored_module(train_transform=transform).train_dataloader())
    if transform is not shrinking:
        with pytest.raises(InputError, match=message.replace("train_", "eval_")):
            stored_module(eval_transform=transform)


def test_floats_are_what_the_network_gets() -> None:
    data = stored_module(train_transform=scaled, eval_transform=scaled)
    assert data.in_channels == 1
    example = data.example_input(3)
    expected = torch.stack([scaled(MadeImages(3).load(sample)) for sample in range(3)]).float()
    assert torch.equal(example, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size: expected a whole number in 1\.\.\d+, got 0"),
        ({"num_workers": -1}, r"data\.num_workers: expected a whole number in 0\.\.\d+, got -1"),
        ({"prefetch": 0}, r"data\.prefetch: expected a whole number in 1\.\.\d+, got 0"),
        ({"views": 0}, r"data\.views: expected a whole number in 1\.\.\d+, got 0"),
        ({"mean": (0.5,)}, r"mean, std: expected 3 numbers each \(one a channel\) and std > 0, got \(0\.5,\) and .*"),
        ({"std": (0.5, 0.5, 0.0)}, r"mean, std: expected 3 numbers each .*"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        stored_module(**options)


PEAKS = """
import resource, sys
from lightning_prune.data.image_folder import image_folder

def peak(path):
    data = image_folder(path, image_size=32, batch_size=4, num_workers=0)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for _ in loader:
            pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

few = peak(sys.argv[1])
print(peak(sys.argv[2]) - few)
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.jpg")
    for name, count in (("few", 8), ("many", 48)):
        for part in ("train", "val"):
            folder = tmp_path / name / part / "a"
            folder.mkdir(parents=True)
            for number in range(count if part == "train" else 2):
                (folder / f"{number}.jpg").hardlink_to(tmp_path / "one.jpg")
    command = [sys.executable, "-c", PEAKS, str(tmp_path / "few"), str(tmp_path / "many")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    decoded = 40 * 1000 * 1000 * 3 / 1024  # KiB of the images that only one of them has
    assert int(result.stdout) < decoded / 10
