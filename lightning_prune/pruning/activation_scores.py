"""What the activation functions behind channels give out, recorded while a model's traced graph runs."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node

from lightning_prune.errors import InputError
from lightning_prune.graph import evaluating, stored_tensors
from lightning_prune.slimming import Group, TracedModel


class Activations:
    """The activations of groups of channels, for batches of one shape.

    Args:
        model: The model, run in eval mode with the weights that it has at the time.
        arguments: A batch as `forward` takes it, of the shape of all others.
        groups: Groups of its channels.

    Raises:
        InputError: If a group has channels that enter no activation function.
    """

    def __init__(self, model: nn.Module, arguments: tuple[Tensor, ...], groups: Sequence[Group]) -> None:
        self._model = model
        self._shapes = [argument.shape for argument in arguments]
        traced = TracedModel(model, arguments)
        self._program, coupling = traced.program, traced.coupling
        self._places: dict[Node, list[tuple[int, int, Tensor]]] = defaultdict(list)
        for number, group in enumerate(groups):
            found = list(coupling.activations(group))
            if not found:
                raise InputError(
                    f"expected an activation function behind {', '.join(group.layers)} for the criterion to look at, "
                    "found none; use another criterion or leave these layers out"
                )
            for node, dim, index in found:
                self._places[node].append((number, dim, index))
        self._groups = len(groups)

    def __call__(self, arguments: tuple[Tensor, ...]) -> list[Tensor] | None:
        """Return `(n_units, activations)` for each group; None if the batch has another shape than the first."""
        if [argument.shape for argument in arguments] != self._shapes:
            return None
        tensors, constants = stored_tensors(self._model, duplicates=True), self._program.constants
        inputs = iter(arguments)
        values = [
            tensors[spec.target]
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target in tensors
            else next(inputs)
            if spec.kind == InputKind.USER_INPUT
            else constants[str(spec.target)]
            for spec in self._program.graph_signature.input_specs
        ]
        parts: list[list[Tensor]] = [[] for _ in range(self._groups)]
        with evaluating(self._model):
            _Recorder(self._program.graph_module, self._places, parts).run(*values)
        return [torch.cat(part, dim=1) for part in parts]


class _Recorder(Interpreter):
    """Run a graph and keep what its nodes give out."""

    def __init__(
        self, module: torch.fx.GraphModule, places: dict[Node, list[tuple[int, int, Tensor]]], parts: list[list[Tensor]]
    ) -> None:
        super().__init__(module)
        self._wanted = {node.name: found for node, found in places.items()}
        self._parts = parts

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        for number, dim, index in self._wanted.get(n.name, []):
            units = value.movedim(dim, 0)[index.to(value.device)]
            self._parts[number].append(units.flatten(1).float())
        return value
