"""The tensors that a model stores, by name."""

from torch import Tensor, nn


def stored_tensors(model: nn.Module, duplicates: bool = False) -> dict[str, Tensor]:
    """Return each parameter and buffer, of any shape, by the first name that leads to it; with `duplicates` by all."""
    parameters = model.named_parameters(remove_duplicate=not duplicates)
    return {**dict(parameters), **dict(model.named_buffers(remove_duplicate=not duplicates))}


def holder(name: str) -> str:
    """Return the name of the module to which a stored tensor belongs, parametrized or not.

    >>> holder("layer1.conv.weight"), holder("layer1.conv.parametrizations.weight.original")
    ('layer1.conv', 'layer1.conv')
    """
    return name.rpartition(".")[0].partition(".parametrizations.")[0]
