"""Time training steps with masks held at zero against plain training and against Lightning's own ModelPruning.

The three train the same network, in turn, round after round; a figure is the median step of a run's second epoch, when
90 % of the weights are masked, and ratios are taken within a round, so that they hold on a machine whose speed drifts.

    python scripts/benchmark_masks.py --model resnet56 --rounds 5
    python scripts/benchmark_masks.py --model mlp --rounds 5      # 105 million parameters, 3 GB of memory
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from benchmarking import interleaved, parse_options, print_medians, ratio, step_seconds
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelPruning
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import GradualPruning
from lightning_prune.models.resnet import resnet56
from lightning_prune.pruning.schedules.one_shot import OneShot

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


def model_pruning(network: nn.Module) -> Callback:
    """Return what holds Lightning's masks of a network."""
    return ModelPruning(
        "l1_unstructured",
        parameters_to_prune=[(m, "weight") for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)],
        amount=SPARSITY,
        apply_pruning=lambda epoch: epoch == 0,
        use_lottery_ticket_hypothesis=False,
    )


CALLBACKS: dict[str, Callable[[nn.Module], list[Callback]]] = {
    "plain": lambda network: [],
    "masks": lambda network: [GradualPruning(SPARSITY, schedule=OneShot(), begin=0, end=0, skip=())],
    "ModelPruning": lambda network: [model_pruning(network)],
}


def step(model: str, batch: int, steps: int, callbacks: Callable[[nn.Module], list[Callback]]) -> float:
    """Return the seconds of a training step with the callbacks that a network gets."""
    torch.manual_seed(0)
    if model == "mlp":
        network: nn.Module = nn.Sequential(
            nn.Linear(1024, 10240), nn.ReLU(), nn.Linear(10240, 9216), nn.ReLU(), nn.Linear(9216, 10)
        )
        inputs = torch.randn(batch, 1024)
    else:
        network = resnet56()
        inputs = torch.randn(batch, 3, 32, 32)
    data = TensorDataset(torch.cat([inputs] * steps), torch.arange(batch * steps) % 10)
    return step_seconds(Training(network), DataLoader(data, batch_size=batch), *callbacks(network))


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet56", choices=["resnet56", "mlp"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8, help="in an epoch")
    options = parse_options(parser)
    runs = {
        name: partial(step, options.model, options.batch, options.steps, callbacks)
        for name, callbacks in CALLBACKS.items()
    }
    times = interleaved(runs, options.rounds)
    print_medians(times, "a step")
    for name in ("masks", "ModelPruning"):
        print(f"{name} / plain: {ratio(times[name], times['plain'])}")


if __name__ == "__main__":
    main()
