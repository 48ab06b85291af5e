"""Which modules can go with a block or branch, and what each must still give for the code around it to run."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.fx import Node

from lightning_prune.graph import Kind, is_kind, module_path, stored_tensors
from lightning_prune.slimming.channels.channel_walk import ChannelWalk


@dataclass(frozen=True, eq=False)
class Zeros:
    """The zeros that take the place of a module's output.

    Args:
        width: Their number of channels.
        labels: `(width,)`, the labels of these channels, None if they are not followed.
        dim: The channel dimension, counted from the last.
        strides: By what each dimension of the module's input is divided, rounding up; the channel dimension by 1.
    """

    width: int
    labels: Tensor | None
    dim: int
    strides: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Replacement:
    """A module that goes, and what takes its place.

    Args:
        name: The module.
        zeros: What it gives from now on; None if it passes on what it gets.
        stored: The names of its parameters and buffers.
    """

    name: str
    zeros: Zeros | None
    stored: tuple[str, ...]


class ReplacementFinder:
    """Finds the modules that can go with parts of one traced model.

    Args:
        model: The model.
        walk: What a walk has found.
    """

    def __init__(self, model: nn.Module, walk: ChannelWalk) -> None:
        self._walk, self._flow = walk, walk.flow
        names = {id(tensor): name for name, tensor in stored_tensors(model).items()}
        self._stored = {
            path: tuple(names[id(tensor)] for tensor in stored_tensors(module).values())
            for path, module in model.named_modules(remove_duplicate=False)
            if path in walk.flow.calls and next(module.parameters(), None) is not None
        }

    def replacements(self, value: Node, region: frozenset[Node]) -> tuple[Replacement, ...]:
        """Return the modules with parameters that run in a region alone, in the order of execution.

        The last of them gives zeros where there was `value`. The others pass on what they get: a single channel of
        zeros, which the first makes, so that nothing writes into what the region read.

        Returns:
            Nothing if the code of other modules uses weights of the region, or the shapes are too special.
        """
        owner = {node: name for name in self._outermost(region) for node in self._flow.calls[name]}
        last, _ = self._sources(owner, region, [value])
        if not last or any(is_kind(node, Kind.LAYER) for node in region - owner.keys()):
            return ()
        result = []
        for name in dict.fromkeys(owner[node] for node in sorted(owner, key=self._flow.order.__getitem__)):
            calls = sorted(self._flow.calls[name], key=self._flow.order.__getitem__)
            entering = [source for node in calls for source in self._flow.inputs[node] if source not in calls]
            entering = [source for source in entering if source not in self._walk.names]
            zeros = _zeros(self._walk, entering[0], calls[-1]) if entering else None
            if zeros is None:
                return ()
            if name not in last:
                passes = set(zeros.strides) == {1} and not self._sources(owner, region, entering)[1]
                zeros = None if passes else Zeros(1, None, zeros.dim, zeros.strides)
            result.append(Replacement(name, zeros, self._stored[name]))
        return tuple(result)

    def _outermost(self, region: frozenset[Node]) -> list[str]:
        """Return the largest modules with parameters all of whose calls lie in a region."""
        paths = {path for node in region for path in module_path(node) if path in self._stored}
        inside = {path for path in paths if path and self._flow.calls[path] <= region}
        return [path for path in inside if not any(path.startswith(f"{other}.") for other in inside)]

    def _sources(self, owner: dict[Node, str], region: frozenset[Node], values: list[Node]) -> tuple[set[str], bool]:
        """Return the modules from which `values` come next, and whether they come from outside the region too."""
        found: set[str] = set()
        outside, seen, left = False, set(values), list(values)
        while left:
            node = left.pop()
            if node in owner:
                found.add(owner[node])
            elif node in region:
                left += [source for source in self._flow.inputs[node] if source not in seen]
                seen.update(self._flow.inputs[node])
            else:
                outside = True
        return found, outside


def _zeros(walk: ChannelWalk, entering: Node, leaving: Node) -> Zeros | None:
    """Return the zeros of the shape of a module's output, None if it does not follow from that of its input."""
    if not isinstance(leaving.meta["val"], Tensor) or not isinstance(entering.meta["val"], Tensor):
        return None
    before, after = walk.shape(entering), walk.shape(leaving)
    axes = walk.axes(leaving)
    if any(not axis.is_line for axis in axes):
        return None
    dim = axes[-1].dim if axes else -1
    if len(before) != len(after) or not after:
        return None
    strides = [-(-old // max(1, new)) for old, new in zip(before, after, strict=True)]
    strides[dim] = 1
    rounded = [-(-old // max(1, stride)) for old, stride in zip(before, strides, strict=True)]
    if any(new != after[i] for i, new in enumerate(rounded) if i != len(after) + dim):
        return None
    return Zeros(after[dim], axes[-1].labels if axes else None, dim, tuple(strides))
