"""What a Trainer is served: the same batches after a stop, and every image once in evaluation."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from made_images import module_of
from recorder import Recorder
from torch import Tensor

from lightning_prune.data.batches import Batch, draw_epoch
from lightning_prune.data.in_memory import InMemoryImages

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning 2.6.6 itself, on torch 2.13
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


def trainer(**options: object) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(**{**quiet, "enable_checkpointing": False, "num_sanity_val_steps": 0, **options})


def test_the_samples_of_the_last_training_batch_are_remembered_and_no_others() -> None:
    data = module_of(views=3)
    seen: list[Tensor] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, at: int) -> None:
            seen.append(data.last_samples)

        def on_train_batch_end(self, *_: object) -> None:
            assert data.last_samples is seen[-1]

    trainer(max_epochs=2, val_check_interval=2, callbacks=[Watch()]).fit(Recorder(), data)
    assert torch.equal(torch.cat(seen[5:]), draw_epoch(23, 50, seed=0, epoch=1)[0])
    last = data.last_samples
    trainer().validate(Recorder(), data, verbose=False)
    assert data.last_samples is last


def fit(data: InMemoryImages, checkpoint: Path | None = None, **options: object) -> Recorder:
    module = Recorder()
    trainer(**options).fit(module, data, ckpt_path=checkpoint, weights_only=checkpoint and True)
    return module


EVERY_STEP = {"every_n_train_steps": 1}
EPOCHS = {"max_epochs": 3}
STEPS = {"max_epochs": 3, "max_steps": 14}


@pytest.mark.parametrize(
    ("length", "saving", "done"),
    [
        pytest.param(EPOCHS, EVERY_STEP, 1, id="first batch"),
        pytest.param(EPOCHS, EVERY_STEP, 8, id="mid-epoch"),
        pytest.param(EPOCHS, EVERY_STEP, 10, id="last batch of an epoch"),
        pytest.param(EPOCHS, {"save_on_train_epoch_end": False}, 10, id="after validation"),
        pytest.param(EPOCHS, {"save_on_train_epoch_end": True}, 10, id="end of an epoch"),
        pytest.param(EPOCHS | {"limit_train_batches": 3}, EVERY_STEP, 3, id="last batch of a limited epoch"),
        pytest.param(EPOCHS | {"limit_train_batches": 3}, EVERY_STEP, 5, id="mid-epoch of a limited epoch"),
        pytest.param(STEPS, EVERY_STEP, 8, id="steps, mid-epoch"),
        pytest.param(STEPS, EVERY_STEP, 10, id="steps, last batch of an epoch"),
        pytest.param(EPOCHS | {"views": 2}, EVERY_STEP, 8, id="few views, mid-epoch"),
        pytest.param(EPOCHS | {"views": 2}, {"save_on_train_epoch_end": True}, 10, id="few views, end of an epoch"),
        # Not here: max_steps and a checkpoint from the end of an epoch. Lightning 2.6.6 then skips an epoch.
    ],
)
def test_a_resumed_run_sees_the_batches_it_would_have_seen(
    tmp_path: Path, length: dict[str, int], saving: dict[str, object], done: int
) -> None:
    options = dict(length)
    views = options.pop("views", None)

    def run(checkpoint: Path | None) -> Recorder:
        keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **saving)
        return fit(module_of(views=views), checkpoint, callbacks=[keep], enable_checkpointing=True, **options)

    whole = run(None)
    assert len({digest for *_, digest in whole.seen}) == len(whole.seen) > done
    resumed = run(tmp_path / f"step={done}.ckpt")
    assert resumed.seen == whole.seen[done:]
    assert torch.equal(resumed.net.weight, whole.net.weight)


class Crash(Callback):
    """Raise in one hook of the batch with index `at`, counted over epochs, and save on the way out."""

    def __init__(self, hook: str, at: int, file: Path) -> None:
        self.hook, self.at, self.file = hook, at, file

    def strike(self, trainer: Trainer, hook: str) -> None:
        if hook == self.hook and trainer.fit_loop.total_batch_idx == self.at:
            raise RuntimeError("crash")

    def on_before_backward(self, trainer: Trainer, *_: object) -> None:
        self.strike(trainer, "before_backward")

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        self.strike(trainer, "train_batch_end")

    def on_exception(self, trainer: Trainer, *_: object) -> None:
        trainer.save_checkpoint(self.file)


@pytest.mark.parametrize(("hook", "finished"), [("before_backward", 0), ("train_batch_end", 1)])
@pytest.mark.parametrize("at", [0, 4, 7])
def test_a_crashed_run_goes_on_behind_the_last_finished_batch(
    tmp_path: Path, hook: str, finished: int, at: int
) -> None:
    whole, file = fit(module_of(), max_epochs=3), tmp_path / "crash.ckpt"
    with pytest.raises(RuntimeError, match="crash"):
        fit(module_of(), max_epochs=3, callbacks=[Crash(hook, at, file)])
    resumed = fit(module_of(), file, max_epochs=3)
    assert resumed.seen == whole.seen[at + finished :]
    assert torch.equal(resumed.net.weight, whole.net.weight)


def test_evaluation_sees_every_image_once_in_order_without_augmentation() -> None:
    data, module, runner = module_of(), Recorder(), trainer()
    for run, images in ((runner.validate, data.val), (runner.test, data.test)):
        module.evaluated.clear()
        run(module, data, verbose=False)
        x, y = (torch.cat(parts) for parts in zip(*module.evaluated, strict=True))
        assert torch.equal(y, images.labels)
        torch.testing.assert_close(
            x, data.on_after_batch_transfer(Batch(*images, torch.arange(len(images.labels)), None), 0)[0]
        )
    assert torch.equal(torch.cat(runner.predict(module, data)), data.test.labels)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_batches_come_in_the_precision_of_the_trainer(precision: str) -> None:
    assert len(fit(module_of(), max_epochs=1, precision=precision).seen) == 5


def test_overfitting_repeats_the_same_batches_as_they_are() -> None:
    module = fit(module_of(), max_epochs=2, overfit_batches=2)
    assert [digest for *_, digest in module.seen[:2]] == [digest for *_, digest in module.seen[2:]]
