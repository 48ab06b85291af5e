"""How far layers of a student are from layers of its teacher."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from lightning_prune.distillation.adapters import Adapters
from lightning_prune.distillation.losses.match import Match
from lightning_prune.errors import InputError


class FeatureMatching:
    """Compare features in a training step, by way of adapters where a match asks for them.

    The adapters are made when the first features are known, and train from then on.

    Args:
        matches: What is compared, and how.

    Raises:
        InputError: If a layer comes twice with the same loss.
    """

    def __init__(self, matches: Sequence[Match]) -> None:
        self._matches = tuple(matches)
        self._names = [f"{loss_name(match.loss)}[{match.student}]" for match in matches]
        twice = next((name for name in self._names if self._names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"expected every layer once for each loss in features, got two of distillation/{twice}")
        self._adapters: Adapters | None = None
        self._state: Mapping[str, Any] | None = None

    def losses(self, trainer: Trainer, features: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Return the loss of each match, by names such as `hint[layer2]`.

        Args:
            trainer: Of the fit that runs.
            features: Of student and teacher, `(n, ...)` each, one pair for each match.

        Raises:
            InputError: If two features cannot be compared, or the adapters not be trained.
        """
        values, adapted = {}, 0
        for name, match, (student, teacher) in zip(self._names, self._matches, features, strict=True):
            if match.adapt:
                student, teacher = self._made(trainer, features)(adapted, student, teacher)
                adapted += 1
            try:
                values[name] = match.loss(student, teacher)
            except InputError as error:
                raise InputError(f"{error}, in the match of {match.student} with {match.teacher}") from error
        return values

    def zero_grad(self) -> None:
        """Forget the adapters' gradients, as the module's optimizer is about to forget the module's."""
        if self._adapters is not None:
            self._adapters.zero_grad()

    def detach(self) -> None:
        """Leave the module's optimizer."""
        if self._adapters is not None:
            self._adapters.detach()

    def state_dict(self) -> Mapping[str, Any] | None:
        """Return the state of the adapters; None without any."""
        return self._state if self._adapters is None else self._adapters.state_dict()

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Take over the state of a checkpoint, before the first features are known."""
        self._state = state

    def _made(self, trainer: Trainer, features: Sequence[tuple[Tensor, Tensor]]) -> Adapters:
        """Return the adapters."""
        if self._adapters is None:
            pairs = [pair for match, pair in zip(self._matches, features, strict=True) if match.adapt]
            self._adapters = Adapters(trainer, pairs)
            if self._state is not None:
                self._adapters.load_state_dict(self._state)
        return self._adapters


def loss_name(loss: Any) -> str:
    """Return what a loss is called in logs: `relational_angle` for RelationalAngle().

    >>> from lightning_prune.distillation.losses.hinton import Hinton
    >>> loss_name(Hinton())
    'hinton'
    """
    name = getattr(loss, "__name__", type(loss).__name__)
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
