"""The one LightningModule: it trains any network to classify and knows nothing of pruning."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR
from torchmetrics.classification import MulticlassAccuracy

from lightning_prune.arguments import instance, shown, whole_number
from lightning_prune.errors import InputError
from lightning_prune.models.lr_schedules import LRSchedule

Batch = tuple[Tensor, Tensor]

_sgd = partial(SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


class ImageClassifier(LightningModule):
    """Train a network with cross entropy; log loss and accuracy of every epoch.

    A batch is images `(n, channels, h, w)` and labels `(n,)`. The `state_dict` is the network's own, with `network.`
    before each key.

    Args:
        network: Maps images `(n, channels, h, w)` to logits `(n, num_classes)`.
        num_classes: Number of labels.
        optimizer: Maps parameters to an optimizer; without one, SGD with learning rate 0.1, Nesterov momentum 0.9 and
            weight decay 5e-4.
        lr_scheduler: Maps the optimizer to a learning rate scheduler, stepped once an epoch; or one of
            `lr_schedules`, which are stepped with each batch or by a metric. Without one, the rate falls to a fifth at
            30 %, 60 % and 80 % of the trainer's `max_epochs`, and stays where that is unlimited.

    Raises:
        InputError: If an argument is of another type; when a checkpoint is loaded, if it is that of a slim model, for
            which this one is too wide.

    Reference:
        The defaults are the CIFAR recipe of He, Liu, Wang, Hu, Yang, "Filter Pruning via Geometric Median for Deep
        Convolutional Neural Networks Acceleration", 2019, arXiv 1811.00250, as its code has it.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: Callable[[Iterator[nn.Parameter]], Optimizer] | None = None,
        lr_scheduler: Callable[[Optimizer], LRScheduler] | LRSchedule | None = None,
    ) -> None:
        super().__init__()
        instance("network", nn.Module, network)
        whole_number("num_classes", num_classes)
        _check_builder("optimizer", optimizer, Optimizer)
        if isinstance(lr_scheduler, type) or not isinstance(lr_scheduler, LRSchedule):
            _check_builder("lr_scheduler", lr_scheduler, LRScheduler)
        self.network = network
        self.num_classes = num_classes
        self.optimizer = optimizer or _sgd
        self.lr_scheduler = lr_scheduler
        # Lightning's learning rate finder sets it; None for the optimizer's own.
        self.lr: float | None = None
        self.train_accuracy = _accuracy(num_classes)
        self.val_accuracy = _accuracy(num_classes)
        self.test_accuracy = _accuracy(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's logits `(n, num_classes)` for images `(n, channels, h, w)`."""
        logits: Tensor = self.network(x)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean cross entropy of a training batch, `()`.

        Raises:
            InputError: If the network returns anything but logits `(n, num_classes)`, as in the other steps.
        """
        loss, count = self._score(batch, self.train_accuracy)
        self.log("train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True, batch_size=count)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the accuracy of the epoch's training batches, each at the weights it met."""
        # Here and not in the step: a call of `log` costs the host five times what updating the metric does.
        self.log("train/accuracy", self.train_accuracy)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracy of a validation batch."""
        loss, count = self._score(batch, self.val_accuracy)
        self.log("val/loss", loss, sync_dist=True, batch_size=count)
        self.log("val/accuracy", self.val_accuracy, prog_bar=True, batch_size=count)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracy of a test batch."""
        loss, count = self._score(batch, self.test_accuracy)
        self.log("test/loss", loss, sync_dist=True, batch_size=count)
        self.log("test/accuracy", self.test_accuracy, batch_size=count)

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return logits `(n, num_classes)` and labels `(n,)`."""
        images, labels = batch
        return self(images), labels

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimizer over all parameters, and its scheduler."""
        optimizer = self.optimizer(self.parameters())
        if self.lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = self.lr
        if self.lr_scheduler is None:
            return {"optimizer": optimizer, "lr_scheduler": _step_decay(optimizer, self.trainer.max_epochs or -1)}
        if isinstance(self.lr_scheduler, LRSchedule):
            return {"optimizer": optimizer, "lr_scheduler": self.lr_scheduler.configure(optimizer, self.trainer)}
        return {"optimizer": optimizer, "lr_scheduler": self.lr_scheduler(optimizer)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say how the file of a slim model is opened, whose weights do not fit a wide one."""
        own, state = self.state_dict(), checkpoint["state_dict"]
        if "widths" in checkpoint and any(name in own and own[name].shape != state[name].shape for name in state):
            raise InputError(
                f"expected the checkpoint of a network as wide as this {type(self).__name__}, got that of a slim one; "
                "open it by lightning_prune.load_slim(module, path), or let a Trainer do so with SlimWidths() among "
                "its callbacks"
            )

    def _score(self, batch: Batch, accuracy: MulticlassAccuracy) -> tuple[Tensor, int]:
        images, labels = batch
        logits = self(images)
        self.check_logits(logits)
        # `update`, since calling the metric would also compute the batch's own accuracy, which nobody reads.
        accuracy.update(logits, labels)
        return F.cross_entropy(logits, labels), len(labels)

    def check_logits(self, logits: object) -> None:
        """Refuse what a network returns unless it is logits, `(n, num_classes)`.

        Raises:
            InputError: If it is something else.
        """
        if isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[1] == self.num_classes:
            return
        came = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise InputError(
            f"model: expected {type(self.network).__name__} to return logits (n, {self.num_classes}), got {came}; give "
            f"it {self.num_classes} classes, and a forward that returns nothing but their logits"
        )


def _check_builder(name: str, value: Any, kind: type) -> None:
    """Refuse what does not build anything of a kind: it is a class of that kind, or a function, or None."""
    if not (value is None or (issubclass(value, kind) if isinstance(value, type) else callable(value))):
        raise InputError(
            f"expected {name} to be a function that returns an instance of {kind.__name__}, such as "
            f"functools.partial of its class, got {shown(value)}"
        )


def _accuracy(num_classes: int) -> MulticlassAccuracy:
    # Validating values means reading them back, which would make the host wait for the GPU at every step.
    return MulticlassAccuracy(num_classes, average="micro", validate_args=False)


def _step_decay(optimizer: Optimizer, max_epochs: int) -> MultiStepLR:
    # Rounding up, because a milestone at epoch 0 would cut the very first learning rate of a short run.
    milestones = [math.ceil(max_epochs * percent / 100) for percent in (30, 60, 80)] if max_epochs > 0 else []
    return MultiStepLR(optimizer, milestones, gamma=0.2)
