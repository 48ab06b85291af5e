"""Mistakes that people make at the command line, by kind: each ends with one line, and leaves nothing behind."""

import os
import re
from pathlib import Path

import pytest
from command_line import run_here

WORDS = [
    ("trian", "expected a command, one of train, export, evaluate, groups, got trian; did you mean train?"),
    ("prune strategy=sfp", "expected a command, one of train, export, evaluate, groups, got prune"),
    ("train sfp", "expected key=value, got sfp; did you mean strategy=sfp?"),
    ("train --strategy sfp", "expected strategy=sfp, got --strategy sfp"),
    ("train --strategy=sfp", "expected strategy=sfp, without dashes, got --strategy=sfp"),
    ("train strategy", "expected key=value, got strategy"),
    ("train strategy = sfp", "expected key=value without blanks, got strategy ="),
    ("train strategy= sfp", "expected key=value without blanks, got strategy= sfp"),
    ("train =sfp", "expected key=value, got =sfp"),
    ("train strategy=[sfp,kd", "a value with commas, brackets or blanks needs quotes, 'key=\"a value\"'"),
    ("train data.path=folder(1)", "a value with commas, brackets or blanks needs quotes"),
    ("train strategy=sfp,kd", "-m before it makes a run of each, strategy=[sfp,kd] means all at once"),
    ("train sparsity=0.3 sparsity=0.5", "expected sparsity once, got sparsity=0.3 and sparsity=0.5"),
    (
        "train strategy=sfp --config-name trian",
        "expected --config-name with one of train, got trian; did you mean train?",
    ),
    ("train --config-dir nowhere", "expected a folder behind --config-dir, got nowhere, which is none"),
    ("train --cfg jobs", "expected --cfg with one of job, hydra, all, got --cfg jobs"),
    ("train --info nothing", "expected --info with one of all, config, defaults"),
    ("train --cfg job strategy=sfpp", "got strategy=sfpp; did you mean sfp?"),
    ("train -m strategy=sfp,nope", "got strategy=nope"),
    (
        "train -m strategy=sfp sparsitty=0.3,0.4",
        "expected a key of the configuration, as --help lists them, got sparsitty",
    ),
]
KEYS = [
    (
        "train sparsitty=0.4",
        "expected a key of the configuration, as --help lists them, got sparsitty; did you mean sparsity?",
    ),
    ("train modl=resnet20", "expected a key of the configuration, as --help lists them, got modl; did you mean model?"),
    ("train sparsity.x=1", "expected no key below sparsity, which is a single value, or nothing yet, got sparsity.x"),
    ("train optimizer.lrr=0.1", "expected arguments of SGD, lr, momentum, dampening, weight_decay, nesterov"),
    ("train trainer.max_epoch=3", "got max_epoch; did you mean max_epochs?"),
    ("train strategy=kd teacher.epoch=3", "got teacher.epoch; did you mean epochs?"),
    ("train strategy=sfp strategy.sfp.sparsty=0.3", "got strategy.sfp.sparsty; did you mean sparsity?"),
    ("train data.batchsize=3", "got batchsize; did you mean batch_size?"),
    ("train module.lr=1", "module: expected ImageClassifier to be given nothing more, got lr"),
    (
        "train strategy.sfp.sparsity=0.4",
        "expected strategy=sfp, alone or among others, before an option of it, got strategy.sfp",
    ),
    ("train sfp.sparsity=0.3", "expected options of a strategy below strategy.sfp, got sfp"),
    (
        "train logger=csv logger.wandb.project=x",
        "expected logger.NAME with a _target_ each, got logger.wandb={'project': 'x'}",
    ),
    ("train logger.wndb.project=x", "add logger.wndb._target_=CLASS; did you mean wandb?"),
    ("train callbacks.stop.patience=3", "add callbacks.stop._target_=CLASS"),
    (
        "train callbacks.x._target_=lightning.pytorch.callbacks.GradientAccumulationScheduler",
        "expected scheduling for GradientAccumulationScheduler, got none; say callbacks.x.scheduling=VALUE",
    ),
    (
        "train +sparsitty=0.4",
        "expected a key that is read, got sparsitty=0.4, which nothing reads; did you mean sparsity?",
    ),
    ("train ~sparsity", "expected sparsity=VALUE, which every run needs, got ~sparsity"),
    ("train hydra.run.dirr=x", "got hydra.run.dirr; did you mean dir?"),
    (
        "train strategy=sfp finetune=scratch_e finetune.momentum=fresh",
        "expected a key below finetune, one of epochs, from_scratch",
    ),
    ("train strategy=sfp finetune.epochs=3", "scratch_b, scratch_e, before an option of it, got finetune.epochs"),
]
GROUPS = [
    ("train strategy=[sfp,kdd]", "got strategy=kdd; did you mean kd?"),
    ("train strategy=null", "expected strategy=none, got strategy=null"),
    ("train strategy=", "expected strategy to be one of admm, asfp"),
    (
        "train strategy=[sfp,sfp]",
        "expected options of strategy each of which is chosen once, or none alone, got strategy=[sfp,sfp]",
    ),
    ("train strategy=[sfp,none]", "or none alone, got strategy=[sfp,none]"),
    ("train model=[resnet20,resnet56]", "expected one model, got model=[resnet20,resnet56]; choose one of them"),
    ("train model=resnet21", "got model=resnet21; did you mean resnet"),
    ("train logger=null", "expected logger=none, got logger=null"),
    ("train logger=true", "expected logger to be one of csv, none, tensorboard, wandb, got logger=true"),
    ("train strategy=sfp finetune=[kd,qat]", "expected one finetune, got finetune=[kd,qat]; choose one of them"),
    (
        "train strategy=kd model@teacher=resnet20",
        "expected model=NAME for the run, or model@teacher.model or model@finetune.model for a part of it",
    ),
    (
        "train quantizer=lsq",
        "expected strategy=qat, alone or among others, which takes a quantizer, got quantizer=lsq without it",
    ),
    (
        "train strategy=sfp finetune=qat quantizer=lsq",
        "that of finetune=qat is told by quantizer@finetune.strategy.qat.quantizer=NAME",
    ),
    (
        "train strategy=sfp finetune=kd distillation=hint",
        "that of finetune=kd is told by the keys below finetune.strategy.kd",
    ),
    ("train finetune=kd", "expected a strategy that prunes before fine-tuning, got strategy=[none]"),
    ("train teacher.epochs=3", "expected a strategy that has a teacher, got teacher.epochs=3 with strategy=[none]"),
    ("train criterion=taylor", "expected a strategy that takes a criterion, got strategy=[none]; leave criterion out"),
    ("train strategy=sfp granularity=element", "expected a strategy that takes a granularity, got strategy=[sfp]"),
    ("train strategy=gmp scope=globl", "strategy.gmp.scope: expected layer, global or erdos_renyi_kernel, got globl"),
    ("train strategy=gmp criterion=apoz", "expected granularity Channel() for APoZ"),
]
VALUES = [
    ("train strategy=sfp sparsity=1.2", "strategy.sfp: expected sparsity in [0, 1), got 1.2"),
    ("train strategy=sfp sparsity=40%", "expected sparsity in [0, 1), got '40%'"),
    ("train strategy=gmp sparsity=true", "expected sparsity in [0, 1), got True"),
    (
        "train strategy=sfp strategy.sfp.sparsity={nothing*:0.5}",
        "expected sparsity[nothing*] to match a prunable layer",
    ),
    ("train seed=abc", "expected seed to be a whole number of at least 0, got abc"),
    ("train seed=4294967296", "expected seed to be below 4294967296, got 4294967296"),
    ("train threads=two", "expected threads to be null or a whole number of at least 1, got two"),
    ("train latency_batch_size=0", "expected latency_batch_size to be a whole number of at least 1, got 0"),
    (
        "train checkpoint_every_n_steps=often",
        "expected checkpoint_every_n_steps to be null or a whole number of at least 1",
    ),
    ("train trainer.max_epochs=0", "expected trainer.max_epochs to be a whole number of at least 1, got 0"),
    ("train trainer.max_epochs=ten", "expected trainer.max_epochs to be a whole number of at least 1, got ten"),
    (
        "train trainer.accumulate_grad_batches=0",
        "expected trainer.accumulate_grad_batches to be a whole number of at least 1, got 0",
    ),
    ("train trainer.limit_train_batches=all", "trainer.limit_train_batches: expected a number or null, got all"),
    ("train trainer.enable_progress_bar=3", "trainer.enable_progress_bar: expected true or false or null, got 3"),
    ("train trainer.precision=32-ture", "trainer.precision: expected 64, 32, 16, transformer-engine"),
    ("train trainer.accelerator=gpux", "trainer: You selected an invalid accelerator name"),
    ("train trainer.callbacks=[x]", "trainer.callbacks: expected callbacks, got"),
    ("train optimizer.lr=fast", "optimizer.lr: expected a number, got fast"),
    ("train optimizer.lr=-1", "Invalid learning rate: -1"),
    ("train optimizer=adamw optimizer.momentum=0.9", "optimizer: expected arguments of AdamW"),
    ("train lr_scheduler.gamma=x", "lr_scheduler.gamma: expected a number"),
    ("train strategy=sfp finetune=labels finetune.optimizer.lr=x", "optimizer.lr: expected a number, got x"),
    ("train strategy=kd teacher.optimizer.lr=x", "teacher.optimizer.lr: expected a number, got x"),
    ("train data.batch_size=x", "data.batch_size: expected a whole number, got x"),
    ("train model=resnet20 model.shortcut=C", "model.shortcut: expected A or B, got C"),
    ("train export=onx", "expected export to be auto, null or one of onnx"),
    ("train export=onnx-int8", "expected a last stage that trains for integers with export=onnx-int8"),
    (
        "train baseline=weights",
        "expected weights=RUN or a strategy with a teacher beside baseline=weights, got neither",
    ),
    ("train strategy=gmp strategy.gmp.every=0", "strategy.gmp: expected every to be at least one optimizer step"),
    ("train strategy=gmp strategy.gmp.criterion=taylor", "got taylor; criterion=taylor chooses one"),
    ("train strategy=sfp strategy.sfp.hard_from=2", "strategy.sfp: expected hard_from in [0, 1), got 2"),
    (
        "train strategy=qat strategy.qat.quantizer.weight_bits=0",
        "strategy.qat.quantizer: expected weight_bits from 2 to 8",
    ),
    ("train logger.wandb.project=3", "logger.wandb.project: expected a text or null, got 3"),
    ("train logger.wandb.offline=maybe", "logger.wandb.offline: expected true or false, got maybe"),
]
PATHS = [
    ("train data=image_folder", "data: expected path for image_folder, got none; say data.path=VALUE"),
    (
        "train data=image_folder data.path=nowhere",
        "data.path: expected a folder with train/<class>/ and val/<class>/ or test/<class>/, got",
    ),
    ("train data=cifar10 data.path=a_folder", "data.path: expected files named *train*.parquet, got"),
    ("train weights=nowhere", "expected the file of a checkpoint or the folder of a run, got"),
    ("train weights=a_file", "expected a checkpoint of tensors and plain values, got"),
    ("train weights=a_folder", "expected a run with checkpoints/best.ckpt or checkpoints/last.ckpt, got"),
    ("train resume=nowhere", "resume: expected the folder of a run, with a config.yaml in it, got nowhere"),
    ("train resume=3", "resume: expected the folder of a run, with a config.yaml in it, got 3"),
    ("train resume=old_run", "expected a run of this version to go on with, got resume=old_run, made by an older one"),
    ("train resume=old_run sparsity=0.3", "expected nothing beside resume=old_run, got sparsity=0.3"),
    ("train resume=broken_run", "expected the configuration of a run, keys with values, got"),
    ("train hydra.run.dir=old_run", "expected a new folder for a new run, got old_run, which holds one"),
    ("train strategy=kd teacher.checkpoint=nowhere", "expected the file of a checkpoint or the folder of a run, got"),
    ("train hydra.run.dir=/proc/x", "expected a folder that can be written to, got /proc/x: No such file or directory"),
    ("train -m hydra.sweep.dir=/proc/x seed=1,2", "expected a folder that can be written to, got /proc/x"),
    ("train strategy=kd teacher.folder=/proc/x", "expected a folder that can be written to, got /proc/x: No such file"),
]
CLASSES = [
    ("train model._target_=mistaken_classs.Net", "No module named 'mistaken_classs'"),
    ("train model._target_=mistaken_classes.Nett", "module 'mistaken_classes' has no attribute 'Nett'"),
    ("train model._target_=mistaken_import.Net", "got mistaken_import.Net: No module named 'nowhere_at_all'"),
    ("train model._target_=", "model._target_: expected the dotted path of a class, got none"),
    ("train model=own", "model._target_: expected the dotted path of a class, got none"),
    (
        "train model._target_=mistaken_classes.INSTANCE",
        "expected a class or function, got mistaken_classes.INSTANCE, which is neither",
    ),
    ("train model._target_=mistaken_classes.Plain", "model: expected a torch.nn.Module, got Plain"),
    (
        "train model._target_=mistaken_classes.Lit",
        "expected a network, got the LightningModule Lit; module._target_ trains it",
    ),
    (
        "train model._target_=mistaken_classes.NeedsWidth",
        "model: expected width for NeedsWidth, got none; say model.width=VALUE",
    ),
    ("train model._target_=mistaken_classes.Raises", "model: KeyError: 'layers'"),
    ("train model._target_=mistaken_classes.ThreeChannels", "to have 3 channels, but got 1 channels instead"),
    ("train model._target_=mistaken_classes.Net model.width=wide", "model.width: expected a whole number, got wide"),
    (
        "train module._target_=mistaken_classes.Litt data._target_=mistaken_classes.Data",
        "module 'mistaken_classes' has no attribute 'Litt'",
    ),
    (
        "train module._target_=mistaken_classes.Net data._target_=mistaken_classes.Data",
        "module._target_: expected a LightningModule, got Net; a network goes to model._target_",
    ),
    (
        "train module._target_=mistaken_classes.NoTrainingStep data._target_=mistaken_classes.Data",
        "No `training_step()` method defined",
    ),
    (
        "train module._target_=mistaken_classes.NoOptimizers data._target_=mistaken_classes.Data",
        "No `configure_optimizers()` method defined",
    ),
    (
        "train module._target_=mistaken_classes.NoInit data._target_=mistaken_classes.Data",
        "module: AttributeError: cannot assign module before Module.__init__() call",
    ),
    (
        "train module._target_=mistaken_classes.Lit data._target_=mistaken_classes.Data module.lrr=3",
        "module: expected arguments of Lit, lr, got lrr; did you mean lr?",
    ),
    (
        "train module._target_=mistaken_classes.Lit data._target_=mistaken_classes.Data module.lr=fast",
        "module.lr: expected a number, got fast",
    ),
    (
        "train module._target_=mistaken_classes.Lit data._target_=mistaken_classes.Data monitor=val/los",
        "one of val/loss, got val/los; did you mean val/loss?",
    ),
    (
        "train module._target_=mistaken_classes.Lit data._target_=mistaken_classes.Data optimizer.lr=3",
        "expected a module whose constructor takes optimizer, got mistaken_classes.Lit with optimizer.lr=3",
    ),
    ("train data._target_=mistaken_classes.Plain", "data: expected a LightningDataModule, got Plain"),
    (
        "train module._target_=mistaken_classes.Lit data._target_=mistaken_classes.NoTrain",
        "`train_dataloader` must be implemented",
    ),
    (
        "train module._target_=mistaken_classes.Lit data._target_=mistaken_classes.NoVal monitor=val/loss",
        "expected a validation_step and a val_dataloader for monitor=val/loss, got Lit with NoVal",
    ),
    (
        "train module._target_=mistaken_classes.Lit data._target_=mistaken_classes.MissingFile",
        "FileNotFoundError: no such file: images.npy",
    ),
    (
        "train module._target_=mistaken_classes.Lit data._target_=mistaken_classes.Data data.size=0",
        "expected training data, got a loader without a batch",
    ),
    (
        "train data._target_=mistaken_classes.Data",
        "module: expected num_classes for ImageClassifier, got none; say module.num_classes=VALUE",
    ),
]
COMMANDS = [
    ("export", "the following arguments are required: run"),
    ("export nowhere", "expected the folder of a run, with a config.yaml in it, got nowhere"),
    ("export broken_run", "expected the configuration of a run, keys with values, got"),
    ("export old_run format=onx", "expected format to be one of onnx"),
    ("export old_run fromat=onnx", "got fromat=onnx; did you mean format?"),
    ("export old_run --format onnx", "unrecognized arguments: --format onnx"),
    ("export old_run calibrate=32", "expected calibrate with format=onnx-int8, got format=onnx"),
    ("evaluate a_folder", "expected the folder of a run, with a config.yaml in it, got a_folder"),
    ("evaluate old_run write=maybe", "expected write to be true or false, got maybe"),
    ("groups", "the following arguments are required"),
    ("groups nowhere", "expected the folder of a run, with a config.yaml in it, or key=value, got nowhere"),
    ("groups run=old_run", "expected a key of the configuration, as --help lists them, got run"),
    ("groups model=resnet21", "got model=resnet21; did you mean resnet"),
    (
        "groups model=resnet20 picture=nowhere/x.png",
        "expected picture=FILE in a folder that is there, got picture=nowhere/x.png",
    ),
    (
        "groups old_run model=resnet20",
        "expected the folder of a run, with a config.yaml in it, or key=value, got old_run model",
    ),
]

ALL = [*WORDS, *KEYS, *GROUPS, *VALUES, *PATHS, *CLASSES, *COMMANDS]

INTERNAL = re.compile(
    r"omegaconf|hydra\.errors|Config\w*(Error|Exception)|Interpolation\w*|Instantiation|struct|full_key"
)
"""Names that say nothing to who has typed a command."""


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    """A folder with what a person might name by mistake."""
    (tmp_path / "a_file").write_text("no checkpoint")
    for name, text in (("a_folder", None), ("old_run", "seed: 0\nmodel: {}\n"), ("broken_run", "a: [1\nb:")):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "config.yaml").write_text(text)
    return tmp_path


def files(folder: Path) -> set[str]:
    """Return all in a folder, without what Hydra notes in that of a run before it is asked."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return {name for name in found if not re.match(r"\w+_run/(\.hydra|train\.log)", name)}


@pytest.mark.parametrize(("typed", "message"), ALL, ids=[typed for typed, _ in ALL])
def test_a_mistake_ends_with_one_line_and_leaves_nothing(typed: str, message: str, cwd: Path) -> None:
    before = files(cwd)
    words = ["train.py", *typed.split()[1:]] if typed.startswith("train ") else [MODULE, *typed.split()]
    result = run_here(*words, cwd=cwd)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert message in result.stderr
    assert not INTERNAL.search(result.stderr.replace(message, "")), result.stderr
    assert "To append to your config" not in result.stderr
    assert files(cwd) == before


MODULE = "lightning_prune/__main__.py"


def test_a_folder_that_may_not_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o500)
    if os.access(tmp_path / "mine", os.W_OK):
        pytest.skip("whoever runs this may write anywhere")
    result = run_here("train.py", "hydra.run.dir=mine/run", cwd=tmp_path)
    assert result.stderr == "Error: expected a folder that can be written to, got mine/run: Permission denied\n"


def test_a_mistake_leaves_what_lay_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    result = run_here("train.py", "hydra.run.dir=run", "optimizer.lr=fast", cwd=tmp_path)
    assert result.returncode == 1
    assert (tmp_path / "run/notes.txt").read_text() == "mine"
