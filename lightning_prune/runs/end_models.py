"""The models that a training ends with."""

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_prune.callbacks import Pruner
from lightning_prune.quantization import quantization_of
from lightning_prune.slimming import TracedModel, slimmed

Module = TypeVar("Module", bound=LightningModule)


@dataclass(frozen=True, eq=False)
class EndModels(Generic[Module]):
    """The models that a training ends with.

    Attributes:
        models: By name: `dense`, unless that is not known, `masked` and `slim`, or what there is without a pruner.
        kept: What of the tensors of the masked one the slim one has; see `Slimmed`.
    """

    models: dict[str, Module]
    kept: dict[str, dict[int, Tensor]]


def end_models(module: Module, pruners: Collection[Pruner], example_input: Tensor) -> EndModels[Module]:
    """Return what a training ends with.

    Args:
        module: As it is after training.
        pruners: Those it was trained with; without one it is `dense`, or `quantized`, and there is nothing else.
        example_input: What its `forward` takes, of any shape.
    """
    if not pruners:
        return EndModels({"dense" if quantization_of(module) is None else "quantized": module}, {})
    known = (pruner.traced for pruner in pruners if pruner.traced is not None and pruner.traced.model is module)
    slim = slimmed(module, next(known, TracedModel(module, (example_input,))))
    models = {"masked": module, "slim": slim.model}
    states = [pruner.dense_state for pruner in pruners]
    if len(states) == 1 and states[0] is not None:
        dense = copy.deepcopy(module)
        dense.load_state_dict(states[0])
        models = {"dense": dense, **models}
    return EndModels(models, slim.kept)
