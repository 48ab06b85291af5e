"""Time training steps with masks held at zero against plain training and against Lightning's own ModelPruning.

The three train the same network, in turn, round after round; a figure is the median step of a run's second epoch, when
90 % of the weights are masked, and ratios are taken within a round, so that they hold on a machine whose speed drifts.

    python scripts/benchmark_masks.py --model resnet56 --rounds 5
    python scripts/benchmark_masks.py --model mlp --rounds 5      # 105 million parameters, 3 GB of memory
"""

import argparse
import logging
import statistics
import time
import warnings

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelPruning
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import MagnitudePruning
from lightning_prune.models.resnet import resnet56
from lightning_prune.schedules.one_shot import OneShot

SPARSITY = 0.9


class Training(LightningModule):
    """Train a network with SGD and momentum."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the cross entropy."""
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)


class Clock(Callback):
    """Measure the steps of the second epoch, each from its start to the next one's."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Note the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if trainer.current_epoch == 1:
            self.starts.append(time.perf_counter())

    def median(self) -> float:
        """Return the seconds of a step."""
        return statistics.median(end - start for start, end in zip(self.starts, self.starts[1:], strict=False))


def step(model: str, batch: int, steps: int, callback: str) -> float:
    """Return the seconds of a training step with one of the callbacks."""
    torch.manual_seed(0)
    if model == "mlp":
        network: nn.Module = nn.Sequential(
            nn.Linear(1024, 10240), nn.ReLU(), nn.Linear(10240, 9216), nn.ReLU(), nn.Linear(9216, 10)
        )
        inputs = torch.randn(batch, 1024)
    else:
        network = resnet56()
        inputs = torch.randn(batch, 3, 32, 32)
    module = Training(network)
    weights = [(m, "weight") for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    lightnings = ModelPruning(
        "l1_unstructured",
        parameters_to_prune=weights,
        amount=SPARSITY,
        apply_pruning=lambda epoch: epoch == 0,
        use_lottery_ticket_hypothesis=False,
    )
    ours = MagnitudePruning(SPARSITY, schedule=OneShot(), begin=0, end=0, skip=())
    callbacks: dict[str, list[Callback]] = {"plain": [], "masks": [ours], "ModelPruning": [lightnings]}
    clock = Clock()
    trainer = Trainer(
        max_epochs=2,
        limit_train_batches=steps,
        callbacks=[*callbacks[callback], clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = TensorDataset(torch.cat([inputs] * steps), torch.arange(batch * steps) % 10)
    trainer.fit(module, DataLoader(data, batch_size=batch))
    return clock.median()


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet56", choices=["resnet56", "mlp"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8, help="in an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")

    times: dict[str, list[float]] = {"plain": [], "masks": [], "ModelPruning": []}
    for turn in range(options.rounds):
        for name in list(times) if turn % 2 else reversed(times):
            times[name].append(step(options.model, options.batch, options.steps, name))
    for name, seconds in times.items():
        print(f"{name:>12}: {statistics.median(seconds) * 1000:.1f} ms a step (median of {options.rounds} runs)")
    for name in ("masks", "ModelPruning"):
        ratios = sorted(a / b for a, b in zip(times[name], times["plain"], strict=True))
        print(f"{name} / plain: {statistics.median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
