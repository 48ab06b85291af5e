"""What a frozen teacher says to each view of each training image, computed once."""

from typing import Protocol, runtime_checkable

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_prune.errors import InputError


@runtime_checkable
class CountedViews(Protocol):
    """What a LightningDataModule offers whose training images are shown in views that can be counted.

    Epoch `e` shows all images in view `e % countable_views`, each in its own crop, flip or whatever a view is.

    Attributes:
        sample_count: Number of training images.
        batch_size: Images that a network can take at once.
        last_samples: `(n,)`, int64, which images the training batch holds that was last moved to the device, on it.
    """

    sample_count: int
    batch_size: int
    last_samples: Tensor

    @property
    def countable_views(self) -> int | None:
        """Return the number of views that an image is shown in; None if it is shown in random ones."""

    def at_view(self, samples: Tensor, view: int, device: torch.device) -> Tensor:
        """Return the images `(n,)` in a view, on a device, exactly as a training step gets them."""


class LogitCache:
    """Look up what a teacher says to the images of a training batch.

    The logits of a view are computed when an epoch first shows it, for all images and in fixed batches, so that they
    depend neither on the order of training nor on the number of processes, and a resumed run gets the same bits. They
    are kept as float16 on the CPU, two bytes for each image, view and class, and those of the running epoch's view on
    the device as well. Logits beyond float16's range are clamped to it, to 65504 or -65504.

    Args:
        trainer: The trainer, with its data module attached.
        network: The teacher: frozen, in the trainer's precision and on its device. It takes images and gives
            `(n, classes)`; it is put into eval mode.

    Raises:
        InputError: If there is a `reason_against` it.
    """

    def __init__(self, trainer: Trainer, network: nn.Module) -> None:
        data = _data_module(trainer)
        if isinstance(data, str):
            raise InputError(data)
        self._data = data
        self._network = network
        self._logits: dict[int, Tensor] = {}  # (samples, classes) by view, float16 on the CPU
        self._now = torch.empty(0)  # those of the epoch's view, on the device

    @staticmethod
    def reason_against(trainer: Trainer) -> str | None:
        """Return what keeps the trainer's images from being looked up, in one line; None if they can be."""
        data = _data_module(trainer)
        return data if isinstance(data, str) else None

    def start_epoch(self, trainer: Trainer, epoch: int) -> None:
        """Have the logits of all images at hand in the view that an epoch shows.

        Args:
            trainer: The trainer; all of its processes call this together.
            epoch: Epochs finished before this one.

        Raises:
            InputError: If the teacher gives anything but `(n, classes)`.
        """
        assert self._data.countable_views is not None
        view = epoch % self._data.countable_views
        if view not in self._logits:
            self._logits[view] = self._compute(trainer, view)
        self._now = self._logits[view].to(trainer.strategy.root_device)

    def logits(self) -> Tensor:
        """Return `(n, classes)` float32 logits of the training batch, on its device."""
        return self._now[self._data.last_samples].float()

    @torch.no_grad()
    def _compute(self, trainer: Trainer, view: int) -> Tensor:
        count, size = self._data.sample_count, min(self._data.batch_size, self._data.sample_count)
        batches = -(-count // (size * trainer.world_size))  # of this process
        first = trainer.global_rank * batches * size
        # Beyond the last image they begin again: all batches are whole and all processes have as many.
        samples = torch.arange(first, first + batches * size) % count
        self._network.eval()
        parts = [self._ask(trainer, part, view) for part in torch.split(samples, size)]
        gathered = trainer.strategy.all_gather(torch.cat(parts))
        return gathered.flatten(0, -2)[:count].cpu()

    def _ask(self, trainer: Trainer, samples: Tensor, view: int) -> Tensor:
        images = self._data.at_view(samples, view, trainer.strategy.root_device)
        with trainer.precision_plugin.forward_context():
            logits = self._network(images)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(samples):
            came = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise InputError(f"expected a teacher that gives logits ({len(samples)}, classes), got {came}")
        limit = torch.finfo(torch.float16).max
        return logits.clamp(-limit, limit).half()


def _data_module(trainer: Trainer) -> CountedViews | str:
    data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it from another class
    if data is None:
        return "expected a data module whose views can be counted, got none; pass one by Trainer.fit(datamodule=...)"
    if not isinstance(data, CountedViews):
        return f"expected a data module with countable_views and at_view, got {type(data).__name__}, which has none"
    if data.countable_views is None:
        return "expected images in views that can be counted, got random ones; set data.views, such as data.views=8"
    return data
