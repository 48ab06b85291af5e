"""A frozen network that sees what the network in training sees."""

import copy
import os
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor, nn
from torch.func import functional_call

from lightning_prune.arguments import instance
from lightning_prune.distillation.foreseen_call import ForeseenCall
from lightning_prune.distillation.layer_recorders import LayerRecorders
from lightning_prune.distillation.logits import are_logits, check_logits
from lightning_prune.distillation.step_recorder import RecordedCall, StepRecorder, submodule
from lightning_prune.distillation.teacher_network import frozen_copy, refuse_different, refuse_shared
from lightning_prune.errors import InputError
from lightning_prune.export import copy_weights, fingerprint, load_weights
from lightning_prune.training import given_input, refuse_sharding, undisturbed


class Teacher:
    """Run a frozen network on what the student was given in a training step.

    A callback calls `setup`, `start`, `begin_step` and `stop` in its own hooks and, in a loss term, `logits` and
    `features`. The teacher runs without gradients and is in no checkpoint. One that was passed in is given back as it
    was.

    Args:
        network: The teacher; None for a copy of the student as it is in `setup`, before a checkpoint is resumed.
        checkpoint: File or run folder whose weights the teacher gets; see `load_weights`.
        part: Name of the student in the module, such as `"net"`; `""` for the module and its `forward`.
        layers: Names, in student and teacher, of the layers that `features` returns.
        evaluating: Whether it is in eval mode; in training mode its buffers stay as they are, too.

    Raises:
        InputError: If the checkpoint does not fit.
    """

    def __init__(
        self,
        network: nn.Module | None,
        checkpoint: str | os.PathLike[str] | None = None,
        part: str = "",
        layers: Sequence[tuple[str, str]] = (),
        evaluating: bool = True,
    ) -> None:
        instance("teacher", nn.Module | None, network)
        instance("checkpoint", str | os.PathLike | None, checkpoint)
        if network is not None and checkpoint is not None:
            load_weights(network, checkpoint)
        self.part = instance("student", str, part)
        self._given = network
        self._checkpoint = checkpoint
        self._evaluating = evaluating
        self._network = network
        self._fingerprint = ""
        self._modes: list[tuple[nn.Module, bool]] = []
        self._recorder = StepRecorder(f"the student, {part}," if part else "the module itself")
        self._student_layers = LayerRecorders("student", [own for own, _ in layers])
        self._teacher_layers = LayerRecorders("teacher", [other for _, other in layers])
        self._foreseen = ForeseenCall()
        self._ahead: tuple[Any, ...] = ()
        self._outputs: tuple[Any, ...] = ()
        self._features: list[tuple[Tensor, Tensor]] = []
        self.example_features: list[tuple[Tensor, Tensor]] = []
        """What `features` returns for the module's example input; empty before `start`, and if there is none."""

    # The run ----------------------------------------------------------------------------------------------------------

    @property
    def network(self) -> nn.Module:
        """The teacher; after `setup`."""
        if self._network is None:
            raise RuntimeError("expected Teacher.setup before its network is asked for")
        return self._network

    def setup(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the student if there is no other teacher, and see that all processes have the same.

        Raises:
            InputError: If the student has no weights yet, or processes were given different teachers.
        """
        self._network = self._copy_of_student(trainer, pl_module) if self._given is None else self._given
        self._fingerprint = fingerprint(self.network)
        refuse_different(trainer, self._fingerprint)

    def check_layers(self, pl_module: nn.Module) -> None:
        """Refuse names of layers that student or teacher do not have.

        Raises:
            InputError: If there are any; names the ones that are closest.
        """
        self._student_layers.check(submodule(pl_module, self.part, "the student"))
        self._teacher_layers.check(self.network)

    def start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the teacher to the student, hook into both, and compare their outputs if an example input is known.

        Raises:
            InputError: If the teacher is a part of the module, a name does not exist, or the outputs do not fit.
        """
        refuse_sharding(trainer)
        student = submodule(pl_module, self.part, "the student")
        refuse_shared(self.network, pl_module)
        self._modes = [(module, module.training) for module in self.network.modules()]
        plugin = trainer.precision_plugin
        if type(plugin).convert_module is not Precision.convert_module:
            # A copy, since a teacher that was passed in would come back with rounded weights.
            self._network = plugin.convert_module(copy.deepcopy(self.network))
        self.network.to(pl_module.device).eval()
        self._recorder.attach(student)
        self._student_layers.attach(student)
        self._teacher_layers.attach(self.network)
        # What was compiled before runs without the hooks, since torch does not look for new ones.
        torch.compiler.reset()
        self._compare_on_example(trainer, pl_module)

    def begin_step(self, trainer: Trainer, batch: Any = None) -> None:
        """Forget the last step's record, and answer the batch ahead if the last one was given to the student as it was.

        Before the student has run, with what it keeps for its backward pass, the teacher takes less time.

        Args:
            trainer: The trainer.
            batch: The batch of the step; None for no answer ahead.
        """
        self._outputs, self._features, self._ahead = (), [], ()
        self._recorder.begin()
        self._student_layers.begin()
        call = self._foreseen.begin(batch)
        if call is not None:
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                self._ahead = (self._answer(call),)

    def logits(self, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the logits of the step that runs, the student's with their graph, `(n, classes)` each.

        Args:
            known: What the teacher would say, `(n, classes)`; it does not run then.

        Raises:
            InputError: If the student was not called once in this step, or one of both returns no such logits.
        """
        self._run(known)
        student, teacher = self._outputs
        check_logits(student, teacher)
        return student, teacher

    def features(self) -> list[tuple[Tensor, Tensor]]:
        """Return what the layers of student and teacher gave in the step that runs, in the order of `layers`.

        Of a convolution that is `(n, channels, height, width)`; layers may give tensors of any shape.

        Raises:
            InputError: If a layer was not called once in this step, or does not return a tensor.
        """
        self._run()
        return self._features

    @property
    def batch_size(self) -> int:
        """Samples that the student was given in the step that runs; after `logits` or `features`."""
        return len(self._outputs[0]) if self._outputs and isinstance(self._outputs[0], Tensor) else 1

    def was_given(self, tensor: Any) -> bool:
        """Return whether the student, where it was called at all, was given this very tensor first."""
        return not self._recorder.has_calls or self._recorder.first_argument is tensor

    def end_step(self) -> None:
        """Let go of the step's tensors, and record nothing until the next."""
        self._outputs, self._features, self._ahead = (), [], ()
        self._foreseen.end()
        self._recorder.stop()
        self._student_layers.stop()

    def stop(self) -> None:
        """Leave the student, and give the teacher back as it was."""
        for recorder in (self._recorder, self._student_layers, self._teacher_layers):
            recorder.detach()
        for module, training in self._modes:
            module.training = training
        self._modes, self._outputs, self._features, self.example_features = [], (), [], []
        self._ahead, self._foreseen = (), ForeseenCall()

    def state_dict(self) -> dict[str, Any]:
        """Return a hash of the weights, and how the next step begins."""
        return {"fingerprint": self._fingerprint, "direct": self._foreseen.entries}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare with the teacher of the run that is resumed.

        Raises:
            InputError: If it is another one.
        """
        self._foreseen.entries = state_dict["direct"]
        if state_dict["fingerprint"] != self._fingerprint:
            hint = "build the module with the same initial weights" if self._given is None else "pass the same network"
            raise InputError(
                f"expected the teacher that the run to resume began with, got one with other weights; {hint}"
            )

    def give_weights_to(self, pl_module: LightningModule) -> None:
        """Let the student begin with the weights of the teacher.

        Raises:
            InputError: If it is of another architecture.
        """
        copy_weights(self.network, submodule(pl_module, self.part, "the student"))

    # The parts --------------------------------------------------------------------------------------------------------

    def _copy_of_student(self, trainer: Trainer, pl_module: LightningModule) -> nn.Module:
        network = frozen_copy(submodule(pl_module, self.part, "the student"))
        if self._checkpoint is not None:
            load_weights(network, self._checkpoint)
        if trainer.world_size > 1:
            network.load_state_dict(trainer.strategy.broadcast(network.state_dict()))
        return network

    def _compare_on_example(self, trainer: Trainer, pl_module: LightningModule) -> None:
        arguments = given_input(pl_module, None)
        if arguments is None:
            return
        convert = trainer.precision_plugin.convert_input
        with undisturbed(trainer, pl_module):
            self.begin_step(trainer)
            pl_module(*(convert(argument.to(pl_module.device)) for argument in arguments))
            if self._recorder.has_calls:
                self._run()
                self.example_features = self._features
                if all(map(are_logits, self._outputs)):  # else the training step may still call it otherwise
                    self.logits()
        self.end_step()

    @torch.no_grad()
    def _run(self, known: Tensor | None = None) -> None:
        """Take in the student's call, and have the teacher answer it; without a new call, nothing changes."""
        if self._outputs and not self._recorder.has_calls:
            return
        call = self._recorder.take()
        if known is not None:
            self._outputs = call.output, known
            return
        own, as_foreseen = self._student_layers.take(), self._foreseen.compare(call)
        self._outputs = call.output, self._ahead[0] if self._ahead and as_foreseen else self._answer(call)
        self._features = list(zip(own, self._teacher_layers.take(), strict=True))

    def _answer(self, call: RecordedCall) -> Any:
        self._teacher_layers.begin()
        self.network.train(not self._evaluating)
        try:
            return self._answered(call)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError) as error:
            raise InputError(
                f"expected a teacher that takes what the student is given, got a {type(self.network).__name__} that "
                f"raises {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            ) from error

    def _answered(self, call: RecordedCall) -> Any:
        if self._evaluating:
            return self.network(*call.arguments, **call.keywords)
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        return functional_call(self.network, buffers, call.arguments, dict(call.keywords))
