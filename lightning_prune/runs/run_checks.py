"""What is refused before anything is trained."""

from collections.abc import Callable, Collection

import torch
from lightning.pytorch import Callback, LightningModule, seed_everything
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from omegaconf import DictConfig

from lightning_prune.callbacks import KnowledgeDistillation, Pruner
from lightning_prune.errors import InputError
from lightning_prune.models import ImageClassifier
from lightning_prune.options import Config, keeps_dense, needs_dense, needs_momentum, needs_teacher
from lightning_prune.runs.building import build, check_arguments
from lightning_prune.runs.example_inputs import Inputs
from lightning_prune.runs.messages import first_line
from lightning_prune.runs.modules import refuse_unread_parts
from lightning_prune.slimming import check_optimizer_state
from lightning_prune.training import check_together

CHOICES = {
    "momentum": ("fresh", "sliced"),
    "teacher": (None, "dense", "teacher"),
    "from_scratch": ("epochs", "compute"),
}
"""Keys of fine-tuning that not all of its options have, and what they may be."""


def check_options(cfg: DictConfig) -> None:
    """Refuse what can be refused before data is read or anything trained, and set what holds for all stages."""
    check_numbers(cfg)
    check_trainer(cfg)
    refuse_unread_parts(cfg)
    if cfg.finetune:
        check_finetuning(cfg)
    if needs_teacher(cfg) and not cfg.teacher.checkpoint:
        for part in ("optimizer", "lr_scheduler"):
            check_arguments(cfg.teacher[part], f"teacher.{part}", {})
    if needs_momentum(cfg):
        check_optimizer_state(build(cfg, "optimizer"))
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    seed_everything(cfg.seed, workers=True, verbose=False)
    for name, options in cfg.strategy.items():
        if "teacher" not in options:
            build(cfg, f"strategy.{name}")


def check_trainer(cfg: DictConfig) -> None:
    """Refuse settings of the Trainer that there are not, that this machine cannot, or that leave no results.

    Raises:
        InputError: If there are such.
    """
    check_arguments(cfg.trainer, "trainer", {})
    kind = cfg.trainer.get("accelerator")
    if kind in DEVICES and not DEVICES[kind]():
        raise InputError(
            f"expected a machine with what trainer.accelerator={kind} asks for, got one on which torch "
            f"{torch.__version__} finds none; trainer=cpu, or accelerator=auto for what is there"
        )
    if cfg.trainer.get("enable_checkpointing") is False:
        raise InputError(
            "expected trainer.enable_checkpointing=true, since a run ends with its best checkpoint, got false; "
            "trainer.fast_dev_run=true writes none"
        )
    if cfg.trainer.get("barebones"):
        raise InputError("expected trainer.barebones=false, got true, which switches off all callbacks; logger=none")


DEVICES: dict[str, Callable[[], bool]] = {
    "gpu": lambda: CUDAAccelerator.is_available() or MPSAccelerator.is_available(),
    "cuda": CUDAAccelerator.is_available,
    "mps": MPSAccelerator.is_available,
}
"""Whether a machine has what an accelerator needs, by the name of that."""


def check_numbers(config: Config) -> None:
    """Refuse numbers of the run itself that are none, or too small.

    Raises:
        InputError: If there are such.
    """
    least = {"latency_batch_size": 1, "round_to": 1, "min_width": 1, "seed": 0}
    numbers = {key: config[key] for key in least}
    optional = {key: config[key] for key in ("threads", "checkpoint_every_n_steps") if config[key] is not None}
    of_trainer = ("max_epochs", "accumulate_grad_batches")
    numbers |= optional | {f"trainer.{key}": config["trainer"].get(key, 1) for key in of_trainer}
    if needs_teacher(config) and not config["teacher"]["checkpoint"]:
        numbers["teacher.epochs"] = config["teacher"]["epochs"]
    if config["finetune"]:
        numbers["finetune.epochs"] = config["finetune"]["epochs"]
    if numbers["trainer.max_epochs"] == -1:
        del numbers["trainer.max_epochs"]  # of a run whose length max_steps or max_time tells
    for key, number in numbers.items():
        if type(number) is not int or number < least.get(key, 1):
            null = "null or " if key in optional else ""
            raise InputError(f"expected {key} to be {null}a whole number of at least {least.get(key, 1)}, got {number}")
    if config["seed"] >= 2**32:
        raise InputError(f"expected seed to be below {2**32}, got {config['seed']}")


def check_finetuning(config: Config) -> None:
    """Refuse options of the slim model's training that mean nothing or need what the main run does not leave.

    Raises:
        InputError: If there are such.
    """
    tuning = config["finetune"]
    for key, choices in CHOICES.items():
        if key in tuning and tuning[key] not in choices:
            known = ", ".join("null" if choice is None else choice for choice in choices)
            raise InputError(f"expected finetune.{key} to be one of {known}, got {tuning[key]}")
    longest = tuning.get("longest")
    if longest is not None and not (isinstance(longest, int | float) and longest >= 1):
        raise InputError(f"expected finetune.longest to be null or at least 1, got {longest}")
    if needs_dense(config) and not keeps_dense(config["strategy"]):
        raise InputError(
            "expected a strategy that keeps its dense network, such as sfp, for finetune.teacher=dense, got "
            f"strategy=[{','.join(config['strategy'])}]; set finetune.teacher=teacher"
        )
    own, other = config["optimizer"]["_target_"], tuning["optimizer"].get("_target_", config["optimizer"]["_target_"])
    if tuning.get("momentum") == "sliced" and own != other:
        raise InputError(
            f"expected finetune.momentum=fresh where the optimizer changes from {own} to {other}, got sliced"
        )


def check_network(module: LightningModule, example: Inputs | None) -> None:
    """Refuse a network that does not take the data's images, or gives no logits of its classes.

    Args:
        module: A classifier is tried out, in eval mode; another module says by itself what it cannot do.
        example: What its `forward` takes, `(n, ...)` each.

    Raises:
        InputError: If it does not.
    """
    if isinstance(module, ImageClassifier) and example is not None:
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                logits = module.network.eval()(*example)
        except Exception as error:
            shapes = ", ".join(str(tuple(x.shape)) for x in example)
            raise InputError(
                f"model: expected {type(module.network).__name__} to take what the data gives, {shapes}, got "
                f"{first_line(error)}"
            ) from error
        module.check_logits(logits)


def check_strategy(build_module: Callable[[], LightningModule], strategy: Collection[Callback]) -> None:
    """Refuse what would be refused when training starts, before the hours of a teacher."""
    check_together(strategy)
    for callback in strategy:
        if isinstance(callback, KnowledgeDistillation):
            callback.check_layers(build_module())


def check_stages(cfg: DictConfig, pruners: Collection[Pruner]) -> None:
    """Refuse stages that cannot follow on one another.

    Args:
        cfg: The configuration of the run.
        pruners: The callbacks of the main stage that prune.

    Raises:
        InputError: If they are such.
    """
    strategy = f"strategy=[{','.join(cfg.strategy) or 'none'}]"
    if cfg.finetune and not pruners:
        raise InputError(
            f"expected a strategy that prunes before fine-tuning, got {strategy}; add one, or set finetune=none"
        )
    if needs_dense(cfg) and len(pruners) > 1:
        raise InputError(
            f"expected one pruner where the dense network teaches, got {strategy}; set finetune.teacher=teacher"
        )
