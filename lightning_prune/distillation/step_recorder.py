"""What a part of a module is given, and returns, while a training step runs."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_prune.errors import InputError


@dataclass(frozen=True)
class RecordedCall:
    """One call of a module: its arguments and what it returned."""

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    output: Any


class StepRecorder:
    """Record the calls of a module from `begin` until `stop`; a copy of it, as of its module, records nothing.

    Calls without gradient, such as those that make pseudo labels, are left out where there was one at `begin`, and so
    are calls around others of the same module: Lightning sends a training step through `forward` under DDP.

    Args:
        name: What the module is called in messages.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._calls: list[RecordedCall] = []
        self._hooks: list[RemovableHandle] = []
        self._recording = False
        self._with_gradient = True
        self._inside = False

    @property
    def has_calls(self) -> bool:
        """Whether there are calls to take."""
        return bool(self._calls)

    @property
    def first_argument(self) -> Any:
        """What the module was given first in the last call that was not taken; None without one."""
        return self._calls[-1].arguments[0] if self._calls and self._calls[-1].arguments else None

    def attach(self, module: nn.Module) -> None:
        """Hook into a module."""
        enter = module.register_forward_pre_hook(self._enter)
        self._hooks = [enter, module.register_forward_hook(self._leave, with_kwargs=True)]

    def begin(self) -> None:
        """Forget what was recorded, and record what comes."""
        self._calls, self._inside = [], False
        self._recording, self._with_gradient = True, torch.is_grad_enabled()

    def take(self) -> RecordedCall:
        """Return the only call since `begin`, or since one was taken.

        Raises:
            InputError: If there was none, or more than one.
        """
        calls, self._calls = self._calls, []
        if len(calls) != 1:
            raise InputError(
                f"expected one call of {self.name} with gradients in a training step, got {len(calls)}; name the part "
                "that training_step calls once, such as student='net'"
            )
        return calls[0]

    def stop(self) -> None:
        """Record nothing more."""
        self._calls, self._recording = [], False

    def detach(self) -> None:
        """Leave the module."""
        self.stop()
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _enter(self, module: nn.Module, arguments: Any) -> None:
        self._inside = True

    def _leave(self, module: nn.Module, arguments: Any, keywords: Any, output: Any) -> None:
        innermost, self._inside = self._inside, False
        if self._recording and innermost and torch.is_grad_enabled() == self._with_gradient:
            self._calls.append(RecordedCall(arguments, keywords, output))

    def __reduce__(self) -> tuple[Any, ...]:
        return StepRecorder, (self.name,)


def submodule(module: nn.Module, name: str, what: str) -> nn.Module:
    """Return a part of a module by its name, `""` for the module itself.

    Raises:
        InputError: If there is none; names the ones that are closest.
    """
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        names = [other for other, _ in module.named_modules() if other]
        ends = [other for other in names if other.rpartition(".")[2] == name.rpartition(".")[2]]
        close = [*ends, *difflib.get_close_matches(name, names, n=8), *names][:8]
        raise InputError(
            f"expected the name of {what}, got {name!r}; there are {', '.join(dict.fromkeys(close)) or 'none'}"
        ) from error
