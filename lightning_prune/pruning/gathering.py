"""Scores of criteria that look at gradients, curvature or activations: gathered over steps, alike in all processes."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_prune.pruning.activation_scores import Activations
from lightning_prune.pruning.criteria.criterion import Criterion
from lightning_prune.pruning.gradient_scores import first_order, second_order
from lightning_prune.pruning.prunable import Prunable
from lightning_prune.training import batch_input


class Gathering:
    """Running means of the scores of units.

    Args:
        criterion: What scores them.
        prunables: What competes.
    """

    def __init__(self, criterion: Criterion, prunables: Sequence[Prunable]) -> None:
        self._criterion = criterion
        self._prunables = prunables
        self._names = sorted({name for one in prunables for name in one.names(criterion.reads)})
        self._groups = [one.group for one in prunables if one.group is not None]
        self._sums: list[Tensor | None] = [None] * len(prunables)
        self._steps = 0
        self._earlier: list[Tensor | None] = [None] * len(prunables)
        self._pending: list[Tensor] | None = None
        self._activations: Activations | None = None

    def look_at_gradients(self, module: LightningModule) -> None:
        """Score the gradients of a step that is about to be made; `confirm` counts them once it really was."""
        parameters = {name: module.get_parameter(name) for name in self._names}
        self._pending = self._score(first_order(parameters))

    def confirm(self) -> None:
        """Count the step that `look_at_gradients` has seen."""
        if self._pending is not None:
            self._add(self._pending)
            self._pending = None

    def look_at_loss(self, module: LightningModule, loss: Tensor, seed: int) -> None:
        """Score the curvature of the loss, `()`, of a step."""
        parameters = {name: module.get_parameter(name) for name in self._names}
        self._add(self._score(second_order(loss, parameters, seed)))

    def check_activations(self, module: LightningModule, arguments: tuple[Tensor, ...]) -> None:
        """Refuse channels that enter no activation function, given `arguments` of `forward`, of any shape.

        Raises:
            InputError: If there are any.
        """
        Activations(module, arguments, self._groups)

    def look_at_activations(self, module: LightningModule, batch: Any) -> None:
        """Score the activations that a batch gives in eval mode; one of another shape than the first is left out."""
        arguments = batch_input(module, batch)
        if self._activations is None:
            self._activations = Activations(module, arguments, self._groups)
        found = self._activations(arguments)
        if found is not None:
            self._add([self._criterion(matrix) for matrix in found])

    def take(self, trainer: Trainer) -> list[Tensor]:
        """Return `(n_units,)` scores of each prunable, averaged over steps and processes, and begin anew.

        Raises:
            RuntimeError: If nothing was gathered.
        """
        sums = [total for total in self._sums if total is not None]
        if not sums:
            raise RuntimeError(
                f"expected {type(self._criterion).__name__} to have seen a step, got none since the last"
            )
        means = [trainer.strategy.reduce(total / self._steps, reduce_op="mean") for total in sums]
        if self._criterion.memory:
            means = [
                mean if before is None else mean + self._criterion.memory * before
                for mean, before in zip(means, self._earlier, strict=True)
            ]
            self._earlier = [mean.clone() for mean in means]
        self._sums, self._steps = [None] * len(self._prunables), 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return what has been gathered since the last choice, and what is remembered of the time before."""
        return {"sums": self._sums, "steps": self._steps, "earlier": self._earlier}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what another object had gathered."""
        self._sums, self._steps, self._earlier = list(state["sums"]), state["steps"], list(state["earlier"])

    def _score(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        return [self._criterion(one.matrix(tensors, self._criterion.reads)) for one in self._prunables]

    def _add(self, scores: Sequence[Tensor]) -> None:
        self._sums = [
            score.clone() if total is None else total.to(score.device).add_(score)
            for total, score in zip(self._sums, scores, strict=True)
        ]
        self._steps += 1
