"""Every file in conf/ keeps the package's promises: a new yaml is tested at once, with no edit here."""

import functools
import math
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from quiet_trainer import quiet_trainer

import train
from lightning_prune import SparsityMonitor, load_slim, save_slim, slim
from lightning_prune.callbacks.pruner import Pruner
from lightning_prune.callbacks.weight_sharing import WeightSharing
from lightning_prune.graph.interception import suspended
from lightning_prune.graph.tracing import stored_tensors
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.quantization.quantized_network import quantization_of
from lightning_prune.reporting.profiling import macs

CONF = Path(train.__file__).parent / "conf"
EPOCHS = 4


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def looks_at_weights(name: str) -> bool:
    criterion = instantiate(OmegaConf.load(CONF / "criterion" / f"{name}.yaml"))
    return bool(criterion.needs == "weights")


METHODS = (
    [f"strategy={name}" for name in options("strategy")]
    + [f"strategy=sfp criterion={name}" for name in filter(looks_at_weights, options("criterion"))]
    + [f"strategy=sfp schedule={name}" for name in options("schedule")]
    + [f"strategy=gmp granularity={name}" for name in options("granularity")]
    + [f"strategy=gmp granularity=output_channel criterion={name}" for name in options("criterion")]
    + [f"strategy=gmp schedule={name}" for name in options("schedule")]
    + [f"strategy=kd distillation={name}" for name in options("distillation")]
    + [f"strategy=qat quantizer={name}" for name in options("quantizer")]
)


@pytest.fixture(autouse=True)
def conf() -> Iterator[None]:
    assert OmegaConf.has_resolver("existing_or")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(overrides: str) -> DictConfig:
    return compose("train", overrides=["logger=csv", f"trainer.max_epochs={EPOCHS}", *overrides.split()])


def pieces(cfg: DictConfig) -> tuple[ImageClassifier, Any, list[Callback]]:
    torch.manual_seed(0)
    data = instantiate(cfg.data)
    network = instantiate(cfg.model, num_classes=data.num_classes, in_channels=data.in_channels)
    module = ImageClassifier(network, data.num_classes, instantiate(cfg.optimizer), instantiate(cfg.lr_scheduler))
    if "qat" in cfg.strategy:  # which has to know it before the first batch
        module.example_input_array = data.example_input(2)
    return module, data, [instantiate(strategy) for strategy in cfg.strategy.values()]


trainer = functools.partial(
    quiet_trainer, max_epochs=EPOCHS, num_sanity_val_steps=0, limit_train_batches=3, limit_val_batches=1
)


@pytest.mark.parametrize("name", options("model"))
def test_every_model_gives_logits(name: str) -> None:
    channels, size = (1, 8) if name.startswith("digits") else (1, 28) if name.startswith("lenet") else (3, 32)
    cfg = composed(f"model={name}")
    network = instantiate(cfg.model, num_classes=7, in_channels=channels).eval()
    assert network(torch.randn(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize("optimizer", options("optimizer"))
@pytest.mark.parametrize("lr_scheduler", options("lr_scheduler"))
def test_every_optimizer_with_every_lr_scheduler_learns(optimizer: str, lr_scheduler: str) -> None:
    module, data, _ = pieces(composed(f"optimizer={optimizer} lr_scheduler={lr_scheduler}"))
    before = {name: tensor.clone() for name, tensor in module.named_parameters()}
    fit = trainer()
    fit.fit(module, datamodule=data)
    assert math.isfinite(float(fit.callback_metrics["train/loss"]))
    assert all(not torch.equal(before[name], tensor) for name, tensor in module.named_parameters())


@functools.cache
def trained(overrides: str) -> tuple[ImageClassifier, Any, list[Callback], Trainer]:
    """Return what a whole run ends with; two tests look at it, and neither changes it."""
    module, data, callbacks = pieces(composed(overrides))
    fit = trainer(*callbacks, SparsityMonitor())
    fit.fit(module, datamodule=data)
    return module, data, callbacks, fit


@pytest.mark.parametrize("overrides", METHODS)
def test_every_method_ends_in_an_equal_slim_model(overrides: str, tmp_path: Path) -> None:
    cfg = composed(overrides)
    module, data, callbacks, fit = trained(overrides)
    images = data.example_input(16)
    small = slim(module, images)
    with torch.no_grad(), suspended():
        masked, slimmed = module.eval()(images), small.eval()(images)
    torch.testing.assert_close(slimmed, masked, rtol=0, atol=1e-4 * float(masked.abs().max()))
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (module, small)]
    assert sizes[1] / sizes[0] == pytest.approx(float(fit.callback_metrics["params/ratio"]))
    costs = [macs(model, images) for model in (module, small)]
    assert costs[1] / costs[0] == pytest.approx(float(fit.callback_metrics["macs/ratio"]))
    pruners = [callback for callback in callbacks if isinstance(callback, Pruner)]
    assert all(pruner.is_final for pruner in pruners)
    zeros = float(fit.callback_metrics["sparsity/total"])
    removing = [pruner for pruner in pruners if not isinstance(pruner, WeightSharing)]
    assert zeros > 0.1 if removing else zeros < 1e-3  # one of the values that weights share may be zero
    if any(isinstance(pruner.granularity, Channel) for pruner in pruners):
        assert sizes[1] < 0.85 * sizes[0]
    else:
        assert sizes[1] <= sizes[0]
    save_slim(small, tmp_path / "slim.pt")
    again = load_slim(pieces(cfg)[0], tmp_path / "slim.pt").eval()
    with torch.no_grad():
        assert torch.equal(again(images), slimmed)


PAIRS = [
    (one, other) for one in ("gmp", "sfp", "kd") for other in options("strategy") if other not in (one, "none", "gal")
]
"""GAL refuses all others, by name; see tests/test_gal_pruning.py."""


@pytest.mark.filterwarnings("ignore:The last units go at learning rate")
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_methods_work_in_pairs(one: str, other: str) -> None:
    module, data, callbacks = pieces(composed(f"strategy=[{one},{other}]"))
    trainer(*callbacks).fit(module, datamodule=data)
    pruners = [callback for callback in callbacks if isinstance(callback, Pruner)]
    parameters = dict(module.named_parameters())
    for pruner in pruners:
        assert pruner.is_final
        for name, mask in (pruner.masks or {}).items():
            assert not (parameters[name] * ~mask).any()
    images = data.example_input(16)
    with torch.no_grad(), suspended():
        masked, slimmed = module.eval()(images), slim(module, images).eval()(images)
    torch.testing.assert_close(slimmed, masked, rtol=0, atol=1e-4 * float(masked.abs().max()))


class Interrupt(Callback):
    """End the run before a batch of the given epoch, as Ctrl-C does."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.epoch, self.batch = epoch, batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            raise KeyboardInterrupt


MOMENTS = [(method, 2, 1) for method in METHODS] + [
    (f"strategy={name}", *moment) for name in options("strategy") for moment in ((1, 0), (EPOCHS - 1, 2))
]


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize(("overrides", "epoch", "batch"), MOMENTS)
def test_every_method_resumes_to_the_same_bits(overrides: str, epoch: int, batch: int, tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, "last", every_n_train_steps=1, enable_version_counter=False)
    module, data, callbacks = pieces(composed(overrides))
    with pytest.raises(SystemExit):
        trainer(*callbacks, checkpoint, Interrupt(epoch, batch)).fit(module, datamodule=data)
    module, data, callbacks = pieces(composed(overrides))
    trainer(*callbacks, checkpoint).fit(module, datamodule=data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    for name, tensor in stored_tensors(trained(overrides)[0]).items():
        assert torch.equal(stored_tensors(module)[name], tensor), name


class SaveState(Callback):
    """Write what each process ends with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        parameters = {name: parameter.detach() for name, parameter in pl_module.named_parameters()}
        masks = [getattr(callback, "masks", None) for callback in trainer.callbacks]  # type: ignore[attr-defined]
        quantization = quantization_of(pl_module)
        parameters |= {} if quantization is None else quantization.own_state()
        torch.save({"parameters": parameters, "masks": masks}, self.folder / f"{trainer.global_rank}.pt")


TOGETHER = [f"strategy={name}" for name in options("strategy")] + [
    f"strategy=gmp granularity=output_channel criterion={name}" for name in ("taylor", "optimal_brain_damage", "apoz")
]
TOGETHER += [f"strategy=qat quantizer={name}" for name in options("quantizer")]


def train_all(rank: int, folder: Path, port: str) -> None:
    """Train with every strategy, and with one criterion of each kind, as one of two processes."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= address | {name: str(value) for name, value in ranks.items()} | {"TORCHELASTIC_RUN_ID": "tests"}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for overrides in TOGETHER:
            module, data, callbacks = pieces(composed(overrides))
            save = SaveState(folder / overrides)
            trainer(*callbacks, SparsityMonitor(), save, devices=2, strategy="ddp").fit(module, datamodule=data)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with what two processes end with, by strategy."""
    folder = tmp_path_factory.mktemp("two")
    for overrides in TOGETHER:
        (folder / overrides).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    torch.multiprocessing.spawn(train_all, (folder, port), nprocs=2)  # type: ignore[no-untyped-call]
    return folder


@pytest.mark.parametrize("overrides", TOGETHER)
def test_every_strategy_is_the_same_in_two_processes(overrides: str, two_processes: Path) -> None:
    _, _, callbacks = pieces(composed(overrides))
    first, second = (torch.load(two_processes / overrides / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert any(first["masks"]) == any(isinstance(callback, Pruner) for callback in callbacks)
    for one, other in zip(first["masks"], second["masks"], strict=True):
        assert one is None or all(torch.equal(mask, other[name]) for name, mask in one.items())
    assert all(torch.equal(tensor, second["parameters"][name]) for name, tensor in first["parameters"].items())
