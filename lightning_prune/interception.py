"""Step into the calls of tensor functions that a model's own code makes, without changing that code."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

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
        self._path = [""]
        self._handles: list[RemovableHandle] = []
        self._model: tuple[nn.Module, ...] = ()  # not as a submodule, since it is around this one

    @property
    def model(self) -> nn.Module:
        """The model that is intercepted."""
        return self._model[0]

    @abstractmethod
    def call(self, name: str, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call, or do something else in its place, and return the result."""

    def attach(self, model: nn.Module) -> None:
        """Step into the calls of `model`, from its `forward` on, whoever calls it."""
        self._model = (model,)
        for name, module in list(model.named_modules())[1:]:
            enter, leave = _Enter(self, name), _Leave(self)
            self._handles.append(module.register_forward_pre_hook(enter))
            self._handles.append(module.register_forward_hook(leave, always_call=True))
        vars(model)["forward"] = _Forward(model, self)

    def detach(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        forward: _Forward = vars(self.model).pop("forward")
        if forward.before is not None:
            vars(self.model)["forward"] = forward.before


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
        del self.interceptor._path[1:]  # what an exception may have left
        with _Calls(self.interceptor):
            return self.plain(*args, **kwargs)


class _Enter:
    """A hook that notes that a module's code runs from here on; copied with its module, as a closure would not be."""

    def __init__(self, interceptor: Interceptor, name: str) -> None:
        self.interceptor, self.name = interceptor, name

    def __call__(self, module: nn.Module, args: Any) -> None:
        self.interceptor._path.append(self.name)


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
