"""The progress of a training in one line, however narrow the screen is."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich import get_console
from rich.progress import BarColumn, ProgressColumn, TextColumn

Metrics = dict[str, int | str | float | dict[str, float]]

_BAR = 10


class ProgressLine(RichProgressBar):
    """Show epoch, batches and as many metrics as fit, without the time and the logger's version."""

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Return what stands before the metrics."""
        count = TextColumn("{task.completed:.0f}/{task.total:.0f}")
        return [TextColumn("{task.description}"), BarColumn(_BAR), count]

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the first metrics that fit into the line."""
        described = max(len(f"Epoch {trainer.max_epochs}/{trainer.max_epochs}"), len(self.validation_description))
        counts = len(f"{self.total_train_batches}/{self.total_train_batches}")
        free = get_console().width - described - _BAR - counts - len("  ")
        fitting: Metrics = {}
        for name, value in super().get_metrics(trainer, pl_module).items():
            needed = len(f" {name}: {value:.3f}" if isinstance(value, float) else f" {name}: {value}")
            if name == "v_num":
                continue
            free -= needed
            if free < 0:
                break
            fitting[name] = value
        return fitting
