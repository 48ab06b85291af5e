"""Step into the calls of tensor functions that a model's own code makes, without changing that code."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lightning_prune.errors import InputError

Function = Callable[..., Any]

_suspended = False


@contextmanager
def suspended() -> Iterator[None]:
    """Let every intercepted model run as the plain model that its code describes."""
    global _suspended
    before, _suspended = _suspended, True
    try:
        yield
    finally:
        _suspended = before


class Interceptor(nn.Module, ABC):
    """What is done with the calls in a model's forward pass, each of which has a name.

    A call is named by the module in whose `forward` it stands, its function, and how many of that function this module
    has called before: `layer1.0.conv1/conv2d/0`. That stays the same whatever other modules do. Deep copies of a model
    are intercepted by copies.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ran = False
        """Whether the model has run since this was attached."""
        self._running = False
        self._path: list[str] = []
        self._model: tuple[nn.Module, ...] = ()  # not as a submodule, since it is around this one
        self._part = ""

    @property
    def model(self) -> nn.Module:
        """The model whose calls are named."""
        return self._model[0]

    @abstractmethod
    def call(self, name: str, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call, or do something else in its place, and return the result."""

    def enter(self, path: str) -> None:
        """Note that the code of the module at a path runs from here on.

        Raises:
            InputError: If that is the backward pass, which recomputes it outside of the model's `forward`.
        """
        self._path.append(path)
        if not (self._running or torch.compiler.is_compiling()) and torch._C._current_graph_task_id() != -1:
            raise InputError(
                f"expected a network without activation checkpointing, got {path}, which the backward pass computes "
                "again, as if nothing were intercepted"
            )

    def finish(self, counts: Mapping[str, int]) -> None:
        """Look at how often each function was called, `layer1.0.conv1/conv2d` for example, when the model has run."""

    def attach(self, model: nn.Module, part: str = "") -> None:
        """Step into the calls of `model`, from the `forward` of one of its parts on, whoever calls that.

        Args:
            model: It gets no new parameters by this.
            part: Path of the part; the model itself by default.
        """
        self._model, self._part, self._path = (model,), part, [part]
        inside = model.get_submodule(part)
        for name, module in list(inside.named_modules())[1:]:
            module.register_forward_pre_hook(_Enter(self, f"{part}.{name}" if part else name))
            module.register_forward_hook(_Leave(self), always_call=True)
        vars(inside)["forward"] = _Forward(inside, self)

    def detach(self) -> None:
        """Leave the model as it was."""
        inside = self.model.get_submodule(self._part)
        for module in inside.modules():
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                own = [
                    key for key, hook in hooks.items() if isinstance(hook, _Enter | _Leave) and hook.interceptor is self
                ]
                for key in own:
                    del hooks[key]
                    module._forward_hooks_always_called.pop(key, None)
        forward: _Forward = vars(inside).pop("forward")
        if forward.before is not None:
            vars(inside)["forward"] = forward.before


def interceptor_of(model: nn.Module) -> Interceptor | None:
    """Return what intercepts a model, or a part of it; None if nothing does."""
    forwards = (vars(module).get("forward") for module in model.modules())
    return next((forward.interceptor for forward in forwards if isinstance(forward, _Forward)), None)


class _Forward:
    """The `forward` of a model in front of its class's own."""

    def __init__(self, model: nn.Module, interceptor: Interceptor) -> None:
        self.interceptor = interceptor
        self.before = vars(model).get("forward")
        self.plain: Function = model.forward
        self.__signature__ = inspect.signature(self.plain)

    @property
    def __code__(self) -> Any:
        """The code of the model's own `forward`, which torch.export asks for its place in a file."""
        return getattr(self.plain, "__code__", None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _suspended:
            return self.plain(*args, **kwargs)
        interceptor = self.interceptor
        del interceptor._path[1:]  # what an exception may have left
        interceptor.ran = interceptor._running = True
        try:
            with (calls := _Calls(interceptor)):
                output = self.plain(*args, **kwargs)
        finally:
            interceptor._running = False
        interceptor.finish(calls.counts)
        return output


class _Enter:
    """A hook that notes that a module's code runs from here on; copied with its module, as a closure would not be."""

    def __init__(self, interceptor: Interceptor, name: str) -> None:
        self.interceptor, self.name = interceptor, name

    def __call__(self, module: nn.Module, args: Any) -> None:
        self.interceptor.enter(self.name)


class _Leave:
    """A hook that notes that the code of the module around goes on."""

    def __init__(self, interceptor: Interceptor) -> None:
        self.interceptor = interceptor

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.interceptor._path.pop()


class _Calls(TorchFunctionMode):
    """Names the calls of one forward pass and hands them to an interceptor."""

    def __init__(self, interceptor: Interceptor) -> None:
        super().__init__()
        self.interceptor = interceptor
        self.counts: dict[str, int] = {}

    def __torch_function__(
        self, function: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        of_function = f"{self.interceptor._path[-1]}/{getattr(function, '__name__', '')}"
        count = self.counts.get(of_function, 0)
        self.counts[of_function] = count + 1
        return self.interceptor.call(f"{of_function}/{count}", function, args, kwargs or {})
