"""A model and an example of what it takes: exported and followed once, for all that ask for its channels."""

from dataclasses import dataclass
from functools import cached_property
from operator import is_

from torch import Tensor, nn
from torch.export import ExportedProgram

from lightning_prune.arguments import instance
from lightning_prune.graph import ExampleInput, as_arguments, suspended, trace
from lightning_prune.slimming.channels.coupling import Coupling, follow_channels


@dataclass(frozen=True, eq=False)
class TracedModel:
    """A model with an example of what its `forward` takes; it is exported when that is first needed, and only once.

    Neither the graph nor which channels belong together depends on the weights, so that both hold while the model
    trains. Which channels are zero does: who asks for that follows the graph with the weights of the moment.

    Args:
        model: Any module whose `forward` takes the example. It is not changed.
        arguments: What `forward` takes.

    Raises:
        InputError: If it is no module.
    """

    model: nn.Module
    arguments: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        instance("model", nn.Module, self.model)

    def is_of(self, model: nn.Module, arguments: tuple[Tensor, ...]) -> bool:
        """Return whether it is this very model, with these very tensors, of any shape."""
        own = (self.model, *self.arguments)
        return len(own) == 1 + len(arguments) and all(map(is_, own, (model, *arguments)))

    @cached_property
    def program(self) -> ExportedProgram:
        """The model's graph.

        Raises:
            InputError: If `forward` does not run on the arguments or cannot be traced.
        """
        with suspended():
            return trace(self.model, self.arguments)

    @cached_property
    def coupling(self) -> Coupling:
        """Which channels can only be removed together, and which must stay.

        Raises:
            InputError: If the model has no parameters, or cannot be traced.
        """
        return follow_channels(self.model, self.program)[0]


def couple(model: nn.Module, example_input: ExampleInput) -> Coupling:
    """Find which channels of a model can only be removed together, and which must stay.

    Args:
        model: Any module whose `forward` takes the example input. It is not changed.
        example_input: A tensor or a tuple of tensors.

    Raises:
        InputError: If `forward` does not run on the example input or cannot be traced, or the model has no parameters.
    """
    return TracedModel(model, as_arguments(example_input)).coupling
