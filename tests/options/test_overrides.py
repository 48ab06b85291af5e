"""What was typed at the command line."""

import re

import pytest

from lightning_prune.errors import InputError
from lightning_prune.options.choices import refuse_bad_choices
from lightning_prune.options.overrides import refuse_misplaced, refuse_renamed, refuse_strays, refuse_unknown


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("scheduler=cosine", "lr_scheduler=cosine"),
        ("scheduler@teacher.scheduler=step", "lr_scheduler@teacher.lr_scheduler=step"),
        ("+finetune.scheduler.gamma=0.5", "+finetune.lr_scheduler.gamma=0.5"),
        ("~scheduler", "~lr_scheduler"),
        ("teacher.scheduler=cosine", "lr_scheduler@teacher.lr_scheduler=cosine"),
        ("finetune.scheduler=step", "lr_scheduler@finetune.lr_scheduler=step"),
        ("+granularity=filter", "+granularity=output_channel"),
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


@pytest.mark.parametrize(
    ("option", "place"),
    [
        ("quantizer.weight_bits=3", "strategy.qat.quantizer, where strategy=qat has them"),
        ("++quantizer.weight_bits=3", "strategy.qat.quantizer, where strategy=qat has them"),
        ("+quantizer.new=3", "strategy.qat.quantizer, where strategy=qat has them"),
        ("distillation.weight=0.5", "strategy.kd, where strategy=kd has them"),
    ],
)
def test_options_where_no_strategy_reads_them_are_refused(option: str, place: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"below {place}, got {option}; --cfg job --package strategy.")):
        refuse_misplaced(["strategy=[kd,qat]", option])


@pytest.mark.parametrize("option", ["~quantizer", "~strategy.qat.quantizer"])
def test_a_group_that_a_strategy_reads_is_not_deleted(option: str) -> None:
    with pytest.raises(InputError, match=f"expected strategy.qat.quantizer=null for no quantizer, got {option}"):
        refuse_misplaced(["strategy=qat", option])


def test_one_option_of_a_group_is_chosen() -> None:
    with pytest.raises(InputError, match=re.escape("expected one quantizer, got quantizer=[lsq,pact]; choose one")):
        refuse_misplaced(["strategy=qat", "quantizer=[lsq,pact]"])
    refuse_misplaced(["-m", "quantizer=lsq,pact", "distillation=[hint]", "strategy.kd.loss.temperature=2"])
    refuse_misplaced(["quantizer@finetune.strategy.qat.quantizer=lsq", "strategy.qat.quantizer.weight_bits=3"])


@pytest.mark.parametrize("group", ["strategy", "callbacks", "logger"])
def test_what_is_no_option_of_a_group_is_refused(group: str) -> None:
    refuse_strays(group, {"sfp": {"_target_": "lightning_prune.SoftFilterPruning"}})
    with pytest.raises(InputError, match=re.escape(f"got {group}.sparsity=0.4; in conf/{group}/NAME.yaml let")):
        refuse_strays(group, {"sparsity": 0.4, "_target_": "lightning_prune.SoftFilterPruning"})


def test_a_misspelt_logger_is_told_the_chosen_one() -> None:
    with pytest.raises(InputError, match=r"add logger.wndb._target_=CLASS; did you mean wandb\?"):
        refuse_strays("logger", {"wandb": {"_target_": "WandbLogger"}, "wndb": {"project": "x"}})


def test_new_keys_are_those_that_something_reads() -> None:
    refuse_unknown({"optimizer": {"lr": "${my_lr}"}}, ["+my_lr=0.1", "+trainer.max_steps=3", "+strategy.my.x=1"])
    with pytest.raises(InputError, match=r"got sparsitty=0.4, which nothing reads; did you mean sparsity\?"):
        refuse_unknown({"sparsity": 0.4}, ["+sparsitty=0.4"])


def test_keys_that_every_run_needs_are_not_deleted() -> None:
    with pytest.raises(InputError, match=r"expected seed=VALUE, which every run needs, got ~seed"):
        refuse_unknown({"sparsity": 0.4}, ["~seed"])
    refuse_unknown({"callbacks": {}}, ["~callbacks.stop"])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_key_that_is_given_twice_is_named_beside_options_of_hydra(place: int) -> None:
    words = ["strategy=sfp", "strategy=gmp"]
    words.insert(place, "hydra.run.dir=run")
    with pytest.raises(InputError, match="expected strategy once, got strategy=sfp and strategy=gmp"):
        refuse_bad_choices(words)
