"""Going back to an earlier moment of a run: to its weights, or to its learning rate alone."""

import copy
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer

Rewind = Literal["weights", "learning_rate"]
"""What goes back after a choice to how it was at an earlier step.

* `"weights"`: weights, batch-norm statistics, optimizers and learning rate schedules: lottery tickets. Frankle and
  Carbin, The Lottery Ticket Hypothesis, 2019, arXiv:1803.03635; with a later step, Frankle et al., Linear Mode
  Connectivity and the Lottery Ticket Hypothesis, 2020, arXiv:1912.05671.
* `"learning_rate"`: learning rate schedules; the weights stay, the optimizers forget. Renda et al., Comparing Rewinding
  and Fine-tuning in Neural Network Pruning, 2020, arXiv:2003.02389.
"""


def snapshot(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Return a copy, on the CPU, of all that `rewind` needs to come back to this step."""
    return {
        "module": {name: tensor.cpu().clone() for name, tensor in module.state_dict().items()},
        "optimizers": [copy.deepcopy(optimizer.state_dict()) for optimizer in trainer.optimizers],
        "schedulers": [copy.deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs],
    }


def rewind(trainer: Trainer, module: LightningModule, state: dict[str, Any], what: Rewind) -> None:
    """Go back to the step of a snapshot."""
    if what == "weights":
        module.load_state_dict(state["module"])
    for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
        saved = copy.deepcopy(saved)
        optimizer.load_state_dict(saved if what == "weights" else {**saved, "state": {}})
    for config, saved in zip(trainer.lr_scheduler_configs, state["schedulers"], strict=True):
        config.scheduler.load_state_dict(copy.deepcopy(saved))
