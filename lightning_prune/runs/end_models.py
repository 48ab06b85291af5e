"""The models that a training ends with."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_prune.callbacks import Pruner
from lightning_prune.quantization import quantization_of
from lightning_prune.runs.example_inputs import Inputs
from lightning_prune.slimming import TracedModel, slimmed

Module = TypeVar("Module", bound=LightningModule)


@dataclass(frozen=True, eq=False)
class EndModels(Generic[Module]):
    """The models that a training ends with.

    Attributes:
        models: By name: `masked` and, if it can be traced, `slim`; `trained` or `quantized` without a pruner.
        kept: What of the tensors of the masked one the slim one has; see `Slimmed`.
        dense: The weights just before it was pruned for good; None if they are not known.
    """

    models: dict[str, Module]
    kept: dict[str, dict[int, Tensor]]
    dense: dict[str, Tensor] | None = None


def end_models(module: Module, pruners: Collection[Pruner], example_input: Inputs | None) -> EndModels[Module]:
    """Return what a training ends with.

    Args:
        module: As it is after training.
        pruners: Those it was trained with; without one it is `trained`, or `quantized`, and there is nothing else.
        example_input: What its `forward` takes, of any shape; None where that is no tensors, and nothing can be slim.
    """
    if not pruners:
        return EndModels({"trained" if quantization_of(module) is None else "quantized": module}, {})
    if example_input is None:
        return EndModels({"masked": module}, {})
    known = (pruner.traced for pruner in pruners if pruner.traced is not None and pruner.traced.model is module)
    slim = slimmed(module, next(known, TracedModel(module, example_input)))
    states = [pruner.dense_state for pruner in pruners]
    dense = states[0] if len(states) == 1 else None
    return EndModels({"masked": module, "slim": slim.model}, slim.kept, dense)
