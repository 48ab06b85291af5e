"""Whether a written file computes what the model does."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_leaves

FLOAT_TOLERANCE = 1e-4
"""Largest difference of an output that is float throughout, relative to the largest number in it."""

SAME_CODES = 0.999
"""Share of rounded numbers of one tensor that may at most be one code away."""

Run = Callable[[Sequence[Tensor]], dict[str, Tensor]]
"""From inputs to what a file computes: outputs and rounded tensors, by their names in the program."""


def noise_like(example: Sequence[Tensor], batch_size: int) -> tuple[Tensor, ...]:
    """Return inputs of another batch size: normal noise of the same mean and spread, integers as they are.

    Args:
        example: Tensors; those as long as the first have a batch axis, `(n, ...)`, the others are returned as they are.
        batch_size: Its new length.
    """
    generator = torch.Generator().manual_seed(batch_size)

    def noise(tensor: Tensor) -> Tensor:
        if tensor.ndim == 0 or len(tensor) != len(example[0]):
            return tensor
        rows = tensor[torch.arange(batch_size) % len(tensor)]
        if not tensor.is_floating_point():
            return rows
        spread = tensor.std(correction=0)
        normal = torch.randn(rows.shape, generator=generator).to(tensor)
        return normal * torch.where(spread > 0, spread, 1.0) + tensor.mean()

    return tuple(noise(tensor) for tensor in example)


class Following(Interpreter):
    """Run a program step by step with the rounded tensors of a file in place of its own, and compare the two.

    Two numbers that are a hair on either side of the middle between two codes are a code apart, and through fifty
    layers that grows until the outputs of two correct engines differ. So each layer is compared by itself, on the same
    input.

    Args:
        program: The program.
        found: What the file computed, by name.
    """

    def __init__(self, program: ExportedProgram, found: dict[str, Tensor]) -> None:
        super().__init__(program.module())
        self.found = found
        self.worst = ""
        """Where the file computed something else; empty if nowhere."""

    def run_node(self, n: Node) -> Any:
        """Run one step."""
        result = super().run_node(n)
        if n.target is not torch.ops.lightning_prune.fake_quantize.default or n.name not in self.found:
            return result
        theirs = self.found[n.name]
        scale = self.env[n.args[1]]  # type: ignore[index]
        steps = ((theirs - result) / scale).abs().round()
        if theirs.shape != result.shape or float((steps <= 1).float().mean()) < SAME_CODES:
            self.worst = self.worst or f"{n.name} is up to {int(steps.max())} steps off"
        return theirs


def first_difference(program: ExportedProgram, run: Run, inputs: Sequence[Tensor]) -> str:
    """Return where a file computes something else than a program, or nothing if it agrees.

    Args:
        program: What was written.
        run: Runs the file.
        inputs: What both get, of whatever shapes the program takes.
    """
    found = run(inputs)
    follower = Following(program, found)
    with torch.no_grad():
        outputs = output_tensors(follower.run(*inputs))
    if follower.worst:
        return follower.worst
    for name, output in zip(output_names(program), outputs, strict=True):
        expected, got = output.double(), found[name].double()  # truth values and integers as well
        if got.shape != expected.shape:
            return f"{name} is of shape {tuple(got.shape)} in place of {tuple(expected.shape)}"
        largest, off = float(expected.abs().max()), float((got - expected).abs().max())
        if not off <= FLOAT_TOLERANCE * largest:
            return f"{name} is off by {off:.2g} where the largest number is {largest:.2g}"
    return ""


def rounded_names(program: ExportedProgram) -> set[str]:
    """Return the names of the rounded tensors in a program."""
    return {node.name for node in program.graph.nodes if node.target is torch.ops.lightning_prune.fake_quantize.default}


def output_names(program: ExportedProgram) -> list[str]:
    """Return the names of the tensors that a program returns."""
    return [name for name in program.graph_signature.user_outputs if isinstance(name, str)]


def output_tensors(outputs: Any) -> list[Tensor]:
    """Return the tensors, of any shape, in what a model or a program returns; files leave out None and numbers."""
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
