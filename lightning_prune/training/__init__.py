"""What any callback needs of a Trainer: order, moments, loss terms, state, agreement of processes."""

from lightning_prune.torchvision_operators import DECLARED as _DECLARED  # noqa: F401  # before Lightning is imported

# isort: split
from lightning_prune.training.epoch_means import EpochMeans
from lightning_prune.training.example_input import batch_input, check_example, given_input
from lightning_prune.training.loop_state import finish_batch, forget_loaders, internals, loop_state, moved, restore_loop
from lightning_prune.training.loss_terms import LossTerm, Term, add_term
from lightning_prune.training.order import CallbackOrder, OrderedCallback, check_together
from lightning_prune.training.process_agreement import average_gradients, check_agreement
from lightning_prune.training.random_state import random_state, set_random_state
from lightning_prune.training.rewinding import Rewind, rewind, snapshot
from lightning_prune.training.sharded_strategies import refuse_sharding
from lightning_prune.training.timeline import Moment, PlannedLength, Timeline, check_moment, in_steps, total_epochs
from lightning_prune.training.undisturbed import undisturbed

__all__ = [
    "CallbackOrder",
    "EpochMeans",
    "LossTerm",
    "Moment",
    "OrderedCallback",
    "PlannedLength",
    "Rewind",
    "Term",
    "Timeline",
    "add_term",
    "average_gradients",
    "batch_input",
    "check_agreement",
    "check_example",
    "check_moment",
    "check_together",
    "finish_batch",
    "forget_loaders",
    "given_input",
    "in_steps",
    "internals",
    "loop_state",
    "moved",
    "random_state",
    "refuse_sharding",
    "restore_loop",
    "rewind",
    "set_random_state",
    "snapshot",
    "total_epochs",
    "undisturbed",
]
