"""Learned maps between features of different widths, which belong to a callback and not to the module in training."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import LBFGS, Optimizer

from lightning_prune.errors import InputError
from lightning_prune.training import average_gradients, moved


class Adapter(nn.Module):
    """Map the width of features by a 1x1 convolution, or linear, and normalize it over the batch.

    Without the batch norm the weights that are common for hints, such as 100, let a run diverge. The convolution begins
    with normal weights of variance `1 / width`, drawn apart from the global random state.

    Args:
        student: Features of the student, of width `(n, width)`, `(n, tokens, width)` or `(n, width, h, w)`.
        teacher: Features of the teacher, of as many dimensions.
        seed: Of the initial weights.
    """

    def __init__(self, student: Tensor, teacher: Tensor, seed: int) -> None:
        super().__init__()
        self._dim = 1 if student.ndim > 3 else -1
        width, wanted = student.shape[self._dim], teacher.shape[self._dim]
        options: Any = {"device": student.device, "dtype": torch.promote_types(student.dtype, torch.float32)}
        weight = torch.randn(wanted, width, generator=torch.Generator().manual_seed(seed)) / width**0.5
        self.weight = nn.Parameter(weight.to(**options))
        self.scale = nn.Parameter(torch.ones(wanted, **options))
        self.shift = nn.Parameter(torch.zeros(wanted, **options))

    def forward(self, features: Tensor) -> Tensor:
        """Map `(n, width)`, `(n, tokens, width)` or `(n, width, h, w)` to the teacher's width, `(n, wanted)` etc."""
        ahead = features.to(self.weight.dtype).movedim(self._dim, 1)
        mapped = self.weight @ ahead.reshape(*ahead.shape[:2], -1)
        # Of the batch, since it is never asked for anything but training batches.
        normal = F.batch_norm(mapped, None, None, self.scale, self.shift, training=True)
        return normal.reshape(len(normal), -1, *ahead.shape[2:]).movedim(1, self._dim)


class Adapters:
    """Train adapters as the module's first optimizer trains the module, in step with it.

    Their optimizer is of the same class and defaults, at the learning rate that the first parameters of the module's
    have at the time. Accumulated, scaled and distributed gradients are treated like the module's. They are not clipped.

    Args:
        trainer: Of the fit that runs.
        features: Features of student and teacher for each adapter.

    Raises:
        InputError: If there is no optimizer that can be made once more, or two features differ in dimensions.
    """

    def __init__(self, trainer: Trainer, features: Sequence[tuple[Tensor, Tensor]]) -> None:
        for student, teacher in features:
            if student.ndim != teacher.ndim or student.ndim < 2:
                raise InputError(
                    "expected features (n, ...) of as many dimensions for adapt=True, got student "
                    f"{tuple(student.shape)} and teacher {tuple(teacher.shape)}"
                )
        self._trainer = trainer
        self._maps = nn.ModuleList(Adapter(*pair, seed) for seed, pair in enumerate(features))
        self._leader = _leader(trainer)
        self._optimizer = _alike(self._leader, list(self._maps.parameters()))
        self._hook = self._leader.register_step_post_hook(self._step)

    def __call__(self, index: int, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of one size and width.

        Args:
            index: Of the adapter.
            student: The student's features, `(n, width)`, `(n, tokens, width)` or `(n, width, h, w)`.
            teacher: The teacher's, of as many dimensions.

        Returns:
            Both, the student's in the teacher's width, and maps, `(n, wanted, h, w)`, in the smaller size of the two.
        """
        if student.ndim == 4 and student.shape[2:] != teacher.shape[2:]:
            height, width = map(min, zip(student.shape[2:], teacher.shape[2:], strict=True))
            size = (height, width)
            student, teacher = F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)
        return self._maps[index](student), teacher

    def zero_grad(self) -> None:
        """Forget the gradients, as the module's optimizer is about to."""
        self._optimizer.zero_grad()

    def detach(self) -> None:
        """Leave the module's optimizer."""
        self._hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """Return weights, the optimizer's state, and what is accumulated of the gradients, on the CPU."""
        state = {
            "weights": [parameter.detach() for parameter in self._maps.parameters()],
            "gradients": [parameter.grad for parameter in self._maps.parameters()],
            "optimizer": self._optimizer.state_dict(),
        }
        on_cpu: dict[str, Any] = moved(state, torch.device("cpu"))
        return on_cpu

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a checkpoint.

        Raises:
            InputError: If it is that of other adapters.
        """
        parameters = list(self._maps.parameters())
        saved, own = ([tuple(w.shape) for w in weights] for weights in (state["weights"], parameters))
        if saved != own:
            raise InputError(f"expected adapters of shapes {own} in the checkpoint, got {saved}; match the same layers")
        with torch.no_grad():
            for parameter, weight in zip(parameters, state["weights"], strict=True):
                parameter.copy_(weight)
        for parameter, gradient in zip(parameters, state["gradients"], strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter)
        self._optimizer.load_state_dict(state["optimizer"])

    def _step(self, leader: Optimizer, arguments: Any, keywords: Any) -> None:
        parameters = list(self._maps.parameters())
        if all(parameter.grad is None for parameter in parameters):
            return
        average_gradients(self._trainer, parameters)
        for group in self._optimizer.param_groups:
            group["lr"] = leader.param_groups[0]["lr"]
        plugin = self._trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:
            plugin.scaler.step(self._optimizer)  # which unscales first, and skips the step if a gradient overflowed
        else:
            self._optimizer.step()


def _leader(trainer: Trainer) -> Optimizer:
    if not trainer.optimizers or isinstance(trainer.optimizers[0], LBFGS):
        names = ", ".join(type(optimizer).__name__ for optimizer in trainer.optimizers) or "none"
        raise InputError(f"expected an optimizer such as SGD or AdamW for adapt=True, got {names}")
    return trainer.optimizers[0]


def _alike(optimizer: Optimizer, parameters: list[nn.Parameter]) -> Optimizer:
    """Return an optimizer of the same class and defaults for other parameters."""
    kind = type(optimizer)
    taken = inspect.signature(kind).parameters
    defaults = {name: value for name, value in optimizer.defaults.items() if name in taken}
    try:
        return kind(parameters, **defaults)
    except TypeError as error:
        raise InputError(
            f"expected an optimizer that can be built from its defaults for adapt=True, got {kind.__name__}: {error}"
        ) from error
