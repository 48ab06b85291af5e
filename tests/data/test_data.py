"""How images are split, augmented, batched and resumed."""

import re

import numpy as np
import pytest
import torch
from made_images import MEAN, STD, module_of, random_images

from lightning_prune.data.batches import Batch, EvalBatches, TrainBatches, choose_views, draw_epoch
from lightning_prune.data.images import Images, channel_statistics, hold_out
from lightning_prune.data.in_memory import InMemoryImages
from lightning_prune.data.views import apply_views, count_views
from lightning_prune.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning 2.6.6 itself, on torch 2.13
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


# Splits and statistics


def test_hold_out_gives_the_exact_number_and_every_class_its_share() -> None:
    labels = torch.tensor([0] * 50 + [1] * 31 + [2] * 19)[torch.randperm(100, generator=torch.Generator())]
    images = Images(torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1), labels)
    rest, held = hold_out(images, count=21, seed=3)
    identities = torch.cat((rest.pixels, held.pixels)).flatten()
    assert sorted(identities.tolist()) == list(range(100))
    assert all((labels[part.pixels.flatten().long()] == part.labels).all() for part in (rest, held))
    for share, count in zip((50, 31, 19), held.labels.bincount().tolist(), strict=True):
        assert abs(count - share * 0.21) < 1
    assert len(held.labels) == 21


def test_hold_out_depends_on_the_seed_only() -> None:
    images = random_images(40)
    one, same, other = (hold_out(images, 10, seed)[1].pixels for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("count", [0, 40, -1])
def test_hold_out_refuses_to_empty_a_side(count: int) -> None:
    with pytest.raises(InputError, match=r"^data.validation: expected 1 to 39 of the 40 images held out, got -?\d+$"):
        hold_out(random_images(40), count, seed=0)


def test_channel_statistics_agree_with_float64() -> None:
    pixels = random_images(17).pixels
    reference = pixels.numpy().astype(np.float64) / 255
    mean, std = channel_statistics(pixels)
    np.testing.assert_allclose(mean, reference.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, reference.std((0, 2, 3)), rtol=1e-12)


# Views


@pytest.mark.parametrize(("padding", "flip"), [(2, True), (1, False), (0, True)])
def test_views_equal_slices_of_each_padded_image(padding: int, flip: bool) -> None:
    number = count_views(padding, flip)
    pixels = random_images(number, size=5).pixels
    result = apply_views(pixels, torch.arange(number), padding).numpy()
    seen, side = 0, 2 * padding + 1
    for mirrored in range(1 + flip):
        for row in range(side):
            for column in range(side):
                padded = np.pad(pixels[seen].numpy(), ((0, 0), (padding, padding), (padding, padding)))
                expected = padded[:, row : row + 5, column : column + 5][:, :, :: -1 if mirrored else 1]
                np.testing.assert_array_equal(result[seen], expected)
                seen += 1
    assert seen == number


def test_a_training_batch_is_padded_before_it_is_normalised() -> None:
    data = module_of()
    batch = Batch(*random_images(8), torch.arange(8), views=torch.arange(8) * 6)
    x, y = data.on_after_batch_transfer(batch, 0)
    views = apply_views(batch.pixels, batch.views, 2).double().numpy() / 255
    expected = (views - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)
    assert x[0, :, 0, 0].tolist() == pytest.approx([-mean / std for mean, std in zip(MEAN, STD, strict=True)])
    assert torch.equal(y, batch.labels)


def test_augmentation_stays_on_the_device_of_the_batch_and_never_waits_for_it() -> None:
    # The meta device refuses both a tensor from another device and an operation whose result depends on values.
    batch = Batch(*(part.to("meta") for part in (*random_images(8), torch.arange(8), torch.arange(8))))
    data = module_of(views=3)
    x, _ = data.on_after_batch_transfer(batch, 0)
    for images in (x, data.at_view(torch.arange(8), 2, torch.device("meta"))):
        assert images.is_meta
        assert images.shape == (8, 3, 6, 6)


def test_example_input_is_the_first_training_images_normalised() -> None:
    data = module_of()
    pixels = data.train.pixels[:3].double() / 255
    expected = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(data.example_input(3), expected.float(), atol=1e-6, rtol=0)


# Epochs


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch() -> None:
    orders = {key: draw_epoch(100, 162, *key)[0].tolist() for key in [(0, 0), (0, 1), (1, 0), (1, 1), (2**32 - 1, 0)]}
    assert all(sorted(order) == list(range(100)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == len(orders)
    assert draw_epoch(100, 162, 0, 1)[0].tolist() == orders[0, 1]


def test_views_are_uniform() -> None:
    _, views = draw_epoch(162 * 200, 162, seed=5, epoch=0)
    observed = views.bincount(minlength=162).double()
    # 161 degrees of freedom: chi-square has mean 161 and standard deviation 17.9.
    assert abs(((observed - 200) ** 2 / 200).sum() - 161) < 4 * 17.9


def test_batches_cover_the_epoch_with_the_drawn_order_and_views() -> None:
    images = random_images(23)
    batches = list(TrainBatches(images, 50, batch_size=5, seed=3))
    order, views = draw_epoch(23, 50, seed=3, epoch=0)
    assert [len(batch.labels) for batch in batches] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat([batch.pixels for batch in batches]), images.pixels[order])
    assert torch.equal(torch.cat([batch.labels for batch in batches]), images.labels[order])
    assert torch.equal(torch.cat([batch.views for batch in batches]), views[order])


def test_chosen_views_are_different_ones_and_uniform_in_each_epoch() -> None:
    chosen = choose_views(12_000, 50, shown=8, seed=5)
    assert chosen.shape == (12_000, 8)
    assert (chosen.sort(dim=1).values.diff(dim=1) > 0).all()
    for column in chosen.unbind(1):
        observed = column.bincount(minlength=50).double()
        # 49 degrees of freedom: chi-square has mean 49 and standard deviation 9.9.
        assert abs(((observed - 240) ** 2 / 240).sum() - 49) < 4 * 9.9
    assert torch.equal(chosen, choose_views(12_000, 50, shown=8, seed=5))
    # Neither another seed nor another sample has the same eight: that happens once in 50! / 42! = 2e13 times.
    assert not (chosen == choose_views(12_000, 50, shown=8, seed=6)).all(1).any()
    assert len(chosen.unique(dim=0)) == 12_000
    assert torch.equal(choose_views(3, 50, shown=50, seed=0).sort(dim=1).values, torch.arange(50).expand(3, 50))


def test_an_epoch_shows_all_images_in_one_of_their_views_and_in_the_order_it_had() -> None:
    data, images = module_of(views=3), random_images(23)
    loader, plain = data.train_dataloader(), module_of().train_dataloader()
    chosen = choose_views(23, 50, shown=3, seed=0)
    for epoch in range(7):
        loader.set_epoch(epoch)
        plain.set_epoch(epoch)
        batches = list(loader)
        samples = torch.cat([batch.samples for batch in batches])
        assert torch.equal(samples, draw_epoch(23, 50, seed=0, epoch=epoch)[0])
        assert torch.equal(samples, torch.cat([batch.samples for batch in plain]))
        assert torch.equal(torch.cat([batch.pixels for batch in batches]), images.pixels[samples])
        assert torch.equal(torch.cat([batch.views for batch in batches]), chosen[samples, epoch % 3])
        x = torch.cat([data.on_after_batch_transfer(batch, 0)[0] for batch in batches])
        views = apply_views(images.pixels[samples], chosen[samples, epoch % 3], padding=2).double() / 255
        expected = (views - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        torch.testing.assert_close(x, expected.float(), atol=1e-6, rtol=0)
        assert torch.equal(x, data.at_view(samples, epoch % 3, torch.device("cpu")))


@pytest.mark.parametrize(
    ("padding", "flip", "views", "countable"),
    [(2, True, None, None), (2, True, 8, 8), (2, False, 25, 25), (0, True, None, None), (0, False, None, 1)],
)
def test_views_can_be_counted_unless_they_are_random(
    padding: int, flip: bool, views: int | None, countable: int | None
) -> None:
    assert module_of(views=views, padding=padding, flip=flip).countable_views == countable


def test_serving_neither_reads_nor_moves_the_global_generator() -> None:
    results = []
    for state in (0, 1):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        data = module_of()
        batches = [data.on_after_batch_transfer(batch, 0)[0] for batch in data.train_dataloader()]
        assert torch.equal(torch.get_rng_state(), before)
        results.append(torch.cat(batches))
    assert torch.equal(*results)


def test_iterating_again_starts_again() -> None:
    loader = TrainBatches(random_images(23), 50, batch_size=5, seed=0)
    first = next(iter(loader))
    assert torch.equal(next(iter(loader)).pixels, first.pixels)
    assert len(list(loader)) == len(loader) == 5
    loader.set_epoch(1)
    assert not torch.equal(next(iter(loader)).pixels, first.pixels)


def test_a_loader_goes_on_behind_the_batches_it_had_served() -> None:
    one, other = (TrainBatches(random_images(23), 50, batch_size=5, seed=0) for _ in range(2))
    one.set_epoch(4)
    running = iter(one)
    for _ in range(2):
        next(running)
    other.load_state_dict(one.state_dict())
    other.set_epoch(4)
    assert other.state_dict() == one.state_dict()
    expected, rest = list(running), list(other)
    assert len(rest) == 3
    for one_batch, other_batch in zip(expected, rest, strict=True):
        assert torch.equal(one_batch.pixels, other_batch.pixels)
        assert torch.equal(one_batch.views, other_batch.views)
    assert len(list(other)) == 5


def test_a_loader_refuses_the_rest_of_an_epoch_cut_otherwise() -> None:
    loader = TrainBatches(random_images(23), 50, batch_size=4, seed=0)
    with pytest.raises(InputError, match=r"^data.batch_size: expected 5 batches an epoch .* got 6; resume with"):
        loader.load_state_dict({"epoch": 1, "done": 2, "batches": 5})
    loader.load_state_dict({"epoch": 1, "done": 5, "batches": 5})


@pytest.mark.parametrize(("count", "world_size"), [(23, 2), (23, 4), (24, 4), (3, 5)])
def test_processes_share_an_epoch_evenly(count: int, world_size: int) -> None:
    images = Images(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.zeros(count, dtype=torch.int64))
    padded = -(-count // world_size) * world_size
    for loaders in (
        [TrainBatches(images, 9, 3, seed=0, rank=rank, world_size=world_size) for rank in range(world_size)],
        [EvalBatches(images, 3, rank=rank, world_size=world_size) for rank in range(world_size)],
    ):
        served = [torch.cat([batch.pixels for batch in loader]).flatten().tolist() for loader in loaders]
        assert served == [torch.cat([batch.samples for batch in loader]).tolist() for loader in loaders]
        assert {len(list(loader)) for loader in loaders} == {len(loaders[0])}
        assert {len(part) for part in served} == {padded // world_size}
        assert set().union(*served) == set(range(count))
        interleaved = [sample for step in zip(*served, strict=True) for sample in step]
        assert len(set(interleaved[:count])) == count


# Refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "data.batch_size: expected a whole number in 1..2147483647, got 0"),
        ({"batch_size": "many"}, "data.batch_size: expected a whole number in 1..2147483647, got 'many'"),
        ({"seed": -1}, "data.seed: expected a whole number in 0..4294967295, got -1"),
        ({"padding": 7}, "data.padding: expected a whole number in 0..6, got 7"),
        ({"views": 0}, "data.views: expected a whole number in 1..50, got 0"),
        ({"views": 51}, "data.views: expected a whole number in 1..50, got 51"),
        ({"views": "all"}, "data.views: expected a whole number in 1..50, got 'all'"),
        ({"views": 2, "padding": 0, "flip": False}, "data.views: expected a whole number in 1..1, got 2"),
        ({"std": (1.0, 0.0, 1.0)}, "mean, std: expected 3 numbers each (one a channel) and std > 0, got"),
        ({"mean": (1.0,)}, "mean, std: expected 3 numbers each (one a channel) and std > 0, got (1.0,)"),
        ({"num_classes": 3}, "train.labels: expected labels in 0..2, got 0 to 3"),
        ({"val": random_images(0)}, "val.pixels: expected uint8 images of shape (n > 0, channels, size, size), got"),
        ({"test": random_images(3, size=5)}, "test.pixels: expected images of shape (3, 6, 6) as in train, got"),
        ({"val": Images(torch.zeros(2, 3, 6, 6), torch.arange(2))}, "val.pixels: expected uint8 images"),
        ({"val": random_images(4)._replace(labels=torch.arange(5))}, "val.labels: expected int64 labels of shape (4,)"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    images = random_images(8)
    good = {"train": images, "val": images, "test": images, "num_classes": 4, "mean": MEAN, "std": STD}
    good |= {"padding": 2, "flip": True, "batch_size": 5, "seed": 0}
    with pytest.raises(InputError, match="^" + re.escape(message)):
        InMemoryImages(**(good | change))
