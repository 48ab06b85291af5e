"""Which channels of a model can be pruned: groups that can only go together, each proven to be removable."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args, overload

import torch
from torch import nn

from lightning_prune.arguments import one_of
from lightning_prune.graph import ExampleInput, as_arguments, stored_tensors, suspended
from lightning_prune.slimming.channels.coupling import Coupling, follow_channels
from lightning_prune.slimming.channels.groups import Group, Member, Residual
from lightning_prune.slimming.channels.removal import removable, removal_of_units
from lightning_prune.slimming.channels.sizes import model_size
from lightning_prune.slimming.proof import reference_outputs
from lightning_prune.slimming.traced_model import TracedModel
from lightning_prune.slimming.trials import remove_what_works


@dataclass(frozen=True, eq=False)
class PrunableGroups(Sequence[Group]):
    """The groups of a model, in the order of its layers; `print` sums them up, then shows them as text."""

    groups: tuple[Group, ...]
    fixed: dict[str, list[tuple[str, int]]]
    """Why the other channels stay: by reason, which names the operation, the layers and their numbers of channels."""
    coupling: Coupling
    """The channels of the model."""

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """The shapes of the model's stored tensors by name."""
        return self.coupling.shapes

    @overload
    def __getitem__(self, index: int) -> Group: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Group]: ...

    def __getitem__(self, index: int | slice) -> Group | Sequence[Group]:
        """Return one group, or some."""
        return self.groups[index]

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.groups)

    def __str__(self) -> str:
        """Return how much can go, then one block of lines a group, with a line a member, then what stays and why."""
        return "\n".join([*self._summary(), "", *self._lines()])

    def _summary(self) -> Iterator[str]:
        facts = self.coupling.facts
        whole = sum(slot.size for slot in self.coupling.writers) + sum(count for _, count, _ in facts.unfollowed)
        going = sum(member.index.numel() for group in self.groups for member in group.filters)
        yield f"{going:,} of {whole:,} channels can go, those of each layer counted by themselves"
        if self.groups:
            units = [torch.arange(group.size) for group in self.groups]
            removal = removal_of_units(self.coupling, self.groups, [numbers > 0 for numbers in units])
            dense, left = model_size(self.coupling), model_size(self.coupling, removal)
            parameters, macs = 100 * left.parameters / dense.parameters, 100 * left.macs / max(1, dense.macs)
            yield (
                f"{len(self)} groups, {sum(map(len, units)):,} units; with one unit of each group left, "
                f"{parameters:.1f} % of the parameters and {macs:.1f} % of the MACs remain"
            )
        stay = {reason: sum(count for _, count in layers) for reason, layers in self.fixed.items()}
        for reason, count in stay.items():
            yield f"{count:,} stay, because they {reason}"
        if (others := whole - going - sum(stay.values())) > 0:
            yield f"{others:,} stay, because they are in none of the groups that were asked for"

    def _lines(self) -> Iterator[str]:
        for number, group in enumerate(self.groups):
            yield f"group {number}: {group.size} units"
            for role in dict.fromkeys(member.role for member in group.members if member.role != "other"):
                members = [member for member in group.members if member.role == role]
                yield f"  {role:<7}{', '.join(self._described(member) for member in members)}"
        for reason, layers in self.fixed.items():
            yield f"kept, because they {reason}: {', '.join(f'{layer} ({count})' for layer, count in layers)}"

    def _described(self, member: Member) -> str:
        """Return where in a tensor the units of a group lie, as `weight[:, 64 of 80]`, `64 x 3` if each has three."""
        units, each = member.index.shape
        count = f"{units} x {each}" if each > 1 else f"{units}"
        size = self.shapes[member.name][member.dim]
        of = f" of {size}" if units * each < size else ""
        return f"{member.name}[{':, ' * member.dim}{count}{of}]"


def prunable_groups(model: nn.Module, example_input: ExampleInput, residual: Residual = "coupled") -> PrunableGroups:
    """Find the channels of a model that can be pruned, and that `slim` can cut out once they are.

    Channels that can only go together are one unit: those that residual adds tie, a filter with its bias and its
    batch-norm scale and shift, all rows of a head of attention. Each group is tried: one of its units is masked, and
    cut out of a copy. Groups that this does not make smaller, because the model's code fixes their number or
    because they are not zero where they are read, are left out, with the reason.

    Args:
        model: Any module whose `forward` takes the example input. It is not changed.
        example_input: A tensor or a tuple of tensors.
        residual: How the channels of residual streams are treated; `"independent"` gives every convolution by itself,
            which need not be removable.

    Raises:
        InputError: If `forward` does not run on the example input or cannot be traced, or the model has no parameters.
    """
    one_of("residual", residual, get_args(Residual))
    return prunable_groups_of(TracedModel(model, as_arguments(example_input)), residual)


def prunable_groups_of(traced: TracedModel, residual: Residual = "coupled") -> PrunableGroups:
    """Return what `prunable_groups` does, of a model that may have been traced already; errors are the same."""
    model, coupling = traced.model, traced.coupling
    everything = coupling.groups(residual)
    if residual == "independent":
        return PrunableGroups(tuple(everything), coupling.fixed(), coupling)
    groups = [group for group in everything if group.size > 1]
    with suspended(), _first_units_at_zero(model, groups):
        # Once more, because what is zero behind a masked unit is known when it is masked, and not before.
        masked, zero = follow_channels(model, traced.program)
        removal = removable(masked, zero)
        counted = remove_what_works(model, masked, removal, reference_outputs(model, traced.arguments)).fixed
    fixed: dict[str, list[tuple[str, int]]] = defaultdict(list, coupling.fixed())
    for group in everything:
        if group.size == 1:
            fixed["are a single unit"] += [(layer, 1) for layer in group.layers]
    found = []
    for group in groups:
        channel = masked.units(group)[0]
        reasons = [f"are counted by the code of {code}" for code, channels in counted if channels[channel]]
        if not removal.channels[channel]:
            reasons = ["are not zero where a layer reads them, masked or not"]
        if not reasons:
            found.append(group)
        for reason in reasons:
            fixed[reason] += [(layer, group.size) for layer in group.layers]
    return PrunableGroups(tuple(found), dict(fixed), coupling)


@contextmanager
def _first_units_at_zero(model: nn.Module, groups: Sequence[Group]) -> Iterator[None]:
    """Mask one unit of each group, and put back what was there on leaving."""
    tensors = stored_tensors(model)
    unit = torch.zeros(1, dtype=torch.int64)
    before = []
    for group in groups:
        for member in group.owned:
            tensor = tensors[member.name].detach()
            place = member.index[0].to(tensor.device)
            before.append((tensor, member.dim, place, tensor.index_select(member.dim, place)))
    try:
        for group in groups:
            group.zero(model, unit)
        yield
    finally:
        for tensor, dim, place, values in before:
            tensor.index_copy_(dim, place, values)
