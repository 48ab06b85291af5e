"""Which stored images train, validate and test, where a data set does not have a part for each."""

from collections.abc import Mapping
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_info

from lightning_prune.data.images import choose_held_out
from lightning_prune.data.streaming import Part, StoredImages


class Splits(NamedTuple):
    """Hold the three parts of a data set."""

    train: StoredImages
    val: StoredImages
    test: StoredImages


def split(found: Mapping[str, StoredImages], validation: float, seed: int) -> Splits:
    """Return the three parts of a data set that has `train`, and `val`, `test`, both or none.

    Nothing is chosen by the test images unless the log says so: without `val` a part of `train` is held out for
    validation, and without `test` the figures of the test are those of `val`. Without both, a part of `train` is held
    out for each.

    Args:
        found: The parts that there are.
        validation: Fraction of the images of `train` that a part held out gets, every class by its share.
        seed: Seed of what is held out for validation; what is held out for the test does not depend on it.

    Raises:
        InputError: If the fraction leaves nothing on one side.
    """
    train = found["train"]
    if "test" in found and "val" in found:
        return Splits(train, found["val"], found["test"])
    if "val" in found:
        rank_zero_info(
            "data: there are no images for the test: its figures are those of the validation, which chooses checkpoints"
        )
        return Splits(train, found["val"], found["val"])
    if "test" in found:
        return Splits(*_hold_out(train, validation, seed), found["test"])
    rank_zero_info(
        f"data: there are no images for the test: {validation:.0%} of those for training are held out for it"
    )
    train, test = _hold_out(train, validation, seed=0)
    return Splits(*_hold_out(train, validation, seed), test)


def _hold_out(images: StoredImages, fraction: float, seed: int) -> tuple[StoredImages, StoredImages]:
    held = choose_held_out(images.labels, round(fraction * len(images.labels)), seed)
    return Part(images, (~held).nonzero().flatten()), Part(images, held.nonzero().flatten())
