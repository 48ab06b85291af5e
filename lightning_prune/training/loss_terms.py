"""The one place that adds a term to the loss of a training step that somebody else wrote."""

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor, nn

from lightning_prune.errors import InputError

LossTerm = Callable[[Tensor], Tensor | None]
"""What is added to a loss: a scalar, given the step's own loss with its graph; None if it only looks at the loss."""


class Term:
    """One term in the loss of a module, from `add_term` until `remove`; a copy of it is in no module's loss."""

    def __init__(self, function: LossTerm, step: "_Step | None" = None) -> None:
        self.function = function
        self._step = step

    def remove(self) -> None:
        """Take the term out of the loss; a module without terms is as it was. A second call does nothing."""
        if self._step is not None:
            self._step.remove(self)
            self._step = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Term, (self.function,)


def add_term(module: nn.Module, function: LossTerm) -> Term:
    """Add a term to every loss that a LightningModule's `training_step` returns from now on.

    It belongs to the loss as if the module's author had written it there: gradient accumulation, loss scaling, mixed
    precision and distributed training treat it the same. A step that returns None stays skipped, and a dictionary keeps
    its other entries. Terms are added in the order of their registration and can be removed in any order; each is given
    the loss without the others. A copy of the module, deep-copied or pickled, is without terms.

    Args:
        module: The LightningModule, before the first batch.
        function: Called once a step, within the step's autocast, with the scalar loss and its graph, which must stay
            whole for the backward pass; returns the scalar to add, or None.

    Returns:
        What to call `remove` on, in `teardown` and in `on_exception`.

    Raises:
        InputError: If the module optimizes manually, since only its author knows which loss is meant.
    """
    if not module.automatic_optimization:
        raise InputError(
            f"expected a module with automatic optimization, got {type(module).__name__} with "
            "automatic_optimization=False; add the term to the losses in its training_step instead"
        )
    step = vars(module).get("training_step")
    if not isinstance(step, _Step):
        step = _Step(module)
        vars(module)["training_step"] = step
    term = Term(function, step)
    step.terms.append(term)
    return term


class _Step:
    """A module's `training_step` with terms in its loss: in the module's own dictionary, in front of its class."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.before = vars(module).get("training_step")
        self.plain = cast(Callable[..., Any], module.training_step)
        self.__wrapped__ = inspect.unwrap(self.plain)  # Lightning looks one level deep for the arguments of a step
        self.terms: list[Term] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.plain(*args, **kwargs)
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if not isinstance(loss, Tensor):
            return output  # skipped, or what Lightning is about to refuse
        total = loss
        for term in list(self.terms):
            added = term.function(loss)
            total = total if added is None else total + added
        return {**output, "loss": total} if isinstance(output, Mapping) else total

    def remove(self, term: Term) -> None:
        self.terms.remove(term)
        attributes = vars(self.module)
        if self.terms or attributes.get("training_step") is not self:
            return  # what somebody has wrapped around this step since stays, and calls it without terms
        del attributes["training_step"]
        if self.before is not None:
            attributes["training_step"] = self.before

    def __reduce__(self) -> tuple[Any, ...]:
        # A copied module is to have its own plain step. The copy exists, still without attributes, when this is called.
        if self.before is None:
            return getattr, (self.module, "training_step")
        return operator.getitem, ((self.before,), 0)
