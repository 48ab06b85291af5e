"""From a masked model to a smaller one, proven equal."""

from lightning_prune.slimming.channels.blocks import BlockOrBranchKind
from lightning_prune.slimming.channels.coupling import Coupling, couple, trace
from lightning_prune.slimming.channels.facts import Role
from lightning_prune.slimming.channels.groups import Group, Member, Residual
from lightning_prune.slimming.optimizer_state import check_sliceable, inherit, slice_state
from lightning_prune.slimming.proof import holds, prove
from lightning_prune.slimming.prunable_groups import PrunableGroups, prunable_groups
from lightning_prune.slimming.slim import slim, slimmed
from lightning_prune.slimming.slim_files import load_slim, load_slim_state, save_slim, slim_state
from lightning_prune.slimming.surgery import Model, copy_of

__all__ = [
    "BlockOrBranchKind",
    "Coupling",
    "Group",
    "Member",
    "Model",
    "PrunableGroups",
    "Residual",
    "Role",
    "check_sliceable",
    "copy_of",
    "couple",
    "holds",
    "inherit",
    "load_slim",
    "load_slim_state",
    "prove",
    "prunable_groups",
    "save_slim",
    "slice_state",
    "slim",
    "slim_state",
    "slimmed",
    "trace",
]
