"""From a masked model to a smaller one, proven equal."""

from lightning_prune.torchvision_operators import DECLARED as _DECLARED  # noqa: F401  # before Lightning is imported

# isort: split
from lightning_prune.slimming.channels.blocks import BlockOrBranchKind
from lightning_prune.slimming.channels.coupling import Coupling
from lightning_prune.slimming.channels.facts import Role
from lightning_prune.slimming.channels.groups import Group, Member, Residual
from lightning_prune.slimming.channels.removal import removal_of_zero_filters
from lightning_prune.slimming.channels.sizes import model_size
from lightning_prune.slimming.optimizer_state import check_optimizer_state, load_optimizer_state, slice_optimizer_state
from lightning_prune.slimming.proof import reference_outputs, same_outputs
from lightning_prune.slimming.prunable_groups import PrunableGroups, prunable_groups, prunable_groups_of
from lightning_prune.slimming.slim import slim, slimmed
from lightning_prune.slimming.slim_files import is_plain, load_slim, load_slim_state, save_slim, slim_state
from lightning_prune.slimming.surgery import Model, copy_of
from lightning_prune.slimming.traced_model import TracedModel, couple

__all__ = [
    "BlockOrBranchKind",
    "Coupling",
    "Group",
    "Member",
    "Model",
    "PrunableGroups",
    "Residual",
    "Role",
    "TracedModel",
    "check_optimizer_state",
    "copy_of",
    "couple",
    "is_plain",
    "load_optimizer_state",
    "load_slim",
    "load_slim_state",
    "model_size",
    "prunable_groups",
    "prunable_groups_of",
    "reference_outputs",
    "removal_of_zero_filters",
    "same_outputs",
    "save_slim",
    "slice_optimizer_state",
    "slim",
    "slim_state",
    "slimmed",
]
