"""What was typed at the command line."""

import pytest

from lightning_prune.errors import InputError
from lightning_prune.runs.overrides import refuse_renamed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("scheduler=cosine", "lr_scheduler=cosine"),
        ("scheduler@teacher.scheduler=step", "lr_scheduler@teacher.lr_scheduler=step"),
        ("+finetune.scheduler.gamma=0.5", "+finetune.lr_scheduler.gamma=0.5"),
        ("~scheduler", "~lr_scheduler"),
        ("scheduler.gamma=0.1", "lr_scheduler.gamma=0.1"),
        ("strategy=[slimming,kd]", "strategy=[network_slimming,kd]"),
        ("strategy.slimming.prune_at=0.3", "strategy.network_slimming.prune_at=0.3"),
        ("granularity=filter", "granularity=output_channel"),
        ("granularity=element,channel", "granularity=element,input_channel"),
    ],
)
def test_old_names_are_refused_with_the_new_ones(old: str, new: str) -> None:
    with pytest.raises(InputError) as error:
        refuse_renamed(["-m", "strategy=sfp", old])
    assert str(error.value) == f"expected {new}, as it is called now, got {old}"


def test_new_names_and_values_are_left_alone() -> None:
    refuse_renamed(["--help", "lr_scheduler=step", "weights=scheduler", "schedule=cubic", "+strategy.my.scheduler=1"])
    refuse_renamed(["strategy=network_slimming", "granularity=[input_channel]", "strategy.gal.structures=[channel]"])
