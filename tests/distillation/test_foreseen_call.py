"""The student's call is foreseen from a batch once it was given the first entries of one, as they are."""

import torch

from lightning_prune.distillation.foreseen_call import ForeseenCall
from lightning_prune.distillation.step_recorder import RecordedCall

IMAGES, SIZES, LABELS = torch.zeros(4, 3), torch.ones(4), torch.arange(4)


def test_what_the_last_step_took_is_foreseen() -> None:
    foreseen = ForeseenCall()
    assert foreseen.begin([IMAGES, SIZES, LABELS]) is None
    assert not foreseen.compare(RecordedCall((IMAGES, SIZES), {}, None))
    again = foreseen.begin([SIZES, IMAGES, LABELS])
    assert again is not None
    assert len(again.arguments) == 2
    assert again.arguments[0] is SIZES
    assert again.arguments[1] is IMAGES
    assert foreseen.compare(RecordedCall((SIZES, IMAGES), {}, None))


def test_equal_numbers_others_and_keywords_are_not_the_entries_themselves() -> None:
    for call in (
        RecordedCall((IMAGES.clone(),), {}, None),
        RecordedCall((LABELS,), {}, None),
        RecordedCall((IMAGES,), {"mask": None}, None),
    ):
        foreseen = ForeseenCall()
        foreseen.entries = 1
        assert foreseen.begin((IMAGES, LABELS)) is not None
        assert not foreseen.compare(call)
        assert foreseen.begin((IMAGES, LABELS)) is None


def test_a_batch_may_be_a_single_tensor_too_short_or_none() -> None:
    foreseen = ForeseenCall()
    assert foreseen.begin(IMAGES) is None
    assert not foreseen.compare(RecordedCall((IMAGES,), {}, None))
    assert foreseen.begin(SIZES) is not None
    foreseen.entries = 2
    assert foreseen.begin(SIZES) is None
    assert foreseen.begin(None) is None


def test_an_ended_step_holds_no_batch() -> None:
    foreseen = ForeseenCall()
    foreseen.begin([IMAGES])
    foreseen.end()
    foreseen.compare(RecordedCall((IMAGES,), {}, None))
    assert foreseen.entries == 0
