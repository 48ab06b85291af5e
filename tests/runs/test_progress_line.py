"""The progress of a training on a narrow screen."""

import io
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_prune.runs.progress_line import ProgressLine


class Talkative(LightningModule):
    """Logs more than fits into a line."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.layer(batch).square().mean()
        self.log_dict({f"train/metric_number_{number}": loss.detach() for number in range(9)}, prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/loss", self.layer(batch).mean(), prog_bar=True)

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("width", [80, 50, 30])
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*smaller than the logging interval")
def test_it_stays_in_its_line_and_tells_no_version(width: int, tmp_path: Path) -> None:
    screen = io.StringIO()
    line = ProgressLine(console_kwargs={"file": screen, "force_terminal": True, "width": width, "color_system": None})
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=11,
        num_sanity_val_steps=1,
        callbacks=[line],
        logger=CSVLogger(tmp_path),
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    data = DataLoader(torch.randn(24, 2), batch_size=2)
    module = Talkative()
    trainer.fit(module, data, data)
    trainer.test(module, dataloaders=data, verbose=False)
    shown = re.sub(r"\x1b\[[0-9?;]*[a-zA-Z]", "\r", screen.getvalue())
    lines = [text.strip() for text in re.split(r"[\r\n]+", shown) if text.strip()]
    assert len(lines) > 100
    assert {text.split()[0] for text in lines} <= {"Epoch", "Validation", "Sanity", "Testing"}  # none is wrapped
    assert max(map(len, lines)) <= width
    assert any("train/metric_number_0: " in text for text in lines) == (width >= 80)
    assert "v_num" not in shown
