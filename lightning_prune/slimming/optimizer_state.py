"""An optimizer's running averages, cut to what is left of the parameters that they belong to."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.errors import InputError

OptimizerStates = dict[str, dict[str, Any]]
"""What an optimizer knows of parameters, by their names: tensors of their shapes, and scalars."""


def slice_optimizer_state(
    state_dict: Mapping[str, Any], parameters: Mapping[str, Tensor], kept: Mapping[str, Mapping[int, Tensor]]
) -> OptimizerStates:
    """Return what an optimizer of a dense model knows of the parameters that its slim one has, cut to their shapes.

    SGD's momentum, Adam's moments and step counts, and all else that is kept for each element or each parameter. A step
    of the slim model that begins with them moves what is left as a step of the masked dense model does.

    Args:
        state_dict: That of the optimizer of `parameters`, given to it in this order.
        parameters: The dense parameters by name.
        kept: By parameter name and dimension the positions that stay, `(kept,)`; what has lost nothing is absent, and
            what is gone as a whole keeps none.

    Raises:
        InputError: If the optimizer is one of other parameters, or keeps something of another shape.
    """
    places = [place for group in state_dict["param_groups"] for place in group["params"]]
    if len(places) != len(parameters):
        raise InputError(
            f"expected the optimizer of all {len(parameters)} parameters, got one of {len(places)}; begin without its "
            "momentum"
        )
    known = dict(zip(parameters, places, strict=True))
    gone = {name for name, dims in kept.items() if any(len(positions) == 0 for positions in dims.values())}
    return {
        name: {
            key: _slice(f"{key} of {name}", value, parameters[name], kept.get(name, {}))
            for key, value in state_dict["state"][place].items()
        }
        for name, place in known.items()
        if place in state_dict["state"] and name not in gone
    }


def _slice(what: str, value: Any, parameter: Tensor, dims: Mapping[int, Tensor]) -> Any:
    """Return what an optimizer knows of a parameter, cut if it is known of every element."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    if value.shape != parameter.shape:
        raise InputError(
            f"expected an optimizer that knows a number of each element of a parameter, or of all together, got {what} "
            f"of shape {tuple(value.shape)} for {tuple(parameter.shape)}; begin without its momentum"
        )
    for dim, positions in dims.items():
        value = value.index_select(dim, positions.to(value.device))
    return value


def check_optimizer_state(make: Callable[[Iterator[nn.Parameter]], Optimizer]) -> None:
    """Refuse an optimizer that keeps what cannot be cut, before it has trained anything.

    Args:
        make: Maps parameters to the optimizer.

    Raises:
        InputError: If it is such a one.
    """
    layer = nn.Linear(3, 2)
    optimizer = make(layer.parameters())
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    slice_optimizer_state(optimizer.state_dict(), dict(layer.named_parameters()), {})


def load_optimizer_state(optimizer: Optimizer, model: nn.Module, states: Mapping[str, Mapping[str, Any]]) -> None:
    """Let an optimizer go on with what another one knew of parameters of the same names.

    Its learning rate and other options stay; what it knows itself is forgotten.

    Args:
        optimizer: Of parameters of `model`.
        model: The module whose names the parameters have.
        states: See `slice_optimizer_state`; names that the optimizer has no parameter of are left out.

    Raises:
        InputError: If the shapes do not fit.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    own = [names.get(id(parameter), "") for parameter in trained]
    for name, parameter in zip(own, trained, strict=True):
        for key, value in states.get(name, {}).items():
            if isinstance(value, Tensor) and value.ndim > 0 and value.shape != parameter.shape:
                raise InputError(f"expected {key} of {name} {tuple(parameter.shape)}, got {tuple(value.shape)}")
    # Copies, since an optimizer counts its steps in the tensor that it is given.
    state = {place: copy.deepcopy(states[name]) for place, name in enumerate(own) if name in states}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
