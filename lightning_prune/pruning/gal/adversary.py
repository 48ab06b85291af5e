"""The discriminator of GAL while it trains against the network that is pruned."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from lightning_prune.pruning.gal.discriminator import discriminator_loss, taken_for_baseline


class Adversary:
    """A discriminator with its optimizer, built when the first outputs are known.

    Args:
        build: Builds it from the number of its inputs and a seed.
        undecided: What it gives an output that it takes for either network's.
        seed: Seed of its weights.
    """

    def __init__(self, build: Callable[[int, int], nn.Sequential], undecided: float, seed: int) -> None:
        self._build, self._undecided, self._seed = build, undecided, seed
        self.discriminator: nn.Sequential | None = None
        """From `(n, classes)` to `(n, 1)`; None before the first outputs."""
        self._optimizer: SGD | None = None

    def train(
        self, pruned: Tensor, baseline: Tensor, rate: float, average: Callable[[Iterable[nn.Parameter]], None]
    ) -> tuple[Tensor, Tensor]:
        """Make one step.

        Args:
            pruned: `(n, classes)` outputs of the network that is pruned.
            baseline: `(n, classes)` outputs of the baseline.
            rate: Learning rate.
            average: Averages the gradients of parameters over processes.

        Returns:
            Scalars, from before the step: the discriminator's loss, and the fraction of outputs that it tells right.
        """
        critic, optimizer = self._built(pruned)
        real, fake = critic(baseline), critic(pruned.detach())
        loss = discriminator_loss(real, fake)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average(critic.parameters())
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        right = torch.cat([real > self._undecided, fake < self._undecided])
        return loss.detach(), right.float().mean()

    def loss(self, pruned: Tensor) -> Tensor:
        """Return what the pruned network minimizes, so that its outputs, `(n, classes)`, are taken for the baseline's.

        The discriminator gets no gradients from it.
        """
        critic, _ = self._built(pruned)
        critic.requires_grad_(False)
        loss = taken_for_baseline(critic(pruned))
        critic.requires_grad_(True)
        return loss

    def state_dict(self) -> dict[str, Any] | None:
        """Return weights, on the CPU, and the optimizer's state; None before the first outputs."""
        if self.discriminator is None or self._optimizer is None:
            return None
        weights = {name: tensor.cpu() for name, tensor in self.discriminator.state_dict().items()}
        return {"weights": weights, "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any] | None, device: torch.device) -> None:
        """Go on where another adversary was, on a device."""
        if state is not None:
            first = next(iter(state["weights"].values()))
            critic, optimizer = self._built(first.to(device))
            critic.load_state_dict(state["weights"])
            optimizer.load_state_dict(state["optimizer"])

    def _built(self, outputs: Tensor) -> tuple[nn.Sequential, SGD]:
        """Return the discriminator of `(n, classes)` outputs and its optimizer."""
        if self.discriminator is None or self._optimizer is None:
            self.discriminator = self._build(outputs.shape[1], self._seed).to(outputs)
            self._optimizer = SGD(self.discriminator.parameters(), lr=0.0, momentum=0.9, weight_decay=2e-4)
        return self.discriminator, self._optimizer
