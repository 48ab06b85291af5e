"""What several layers of a network give while a training step runs."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_prune.distillation.logits import described
from lightning_prune.distillation.step_recorder import StepRecorder, submodule
from lightning_prune.errors import InputError


class LayerRecorders:
    """Record what layers of a network return, from `begin` until `stop`; see `StepRecorder`.

    Args:
        network: What the network is called in messages, such as `"student"`.
        layers: Names of its layers; one may come several times.
    """

    def __init__(self, network: str, layers: Sequence[str]) -> None:
        self._network = network
        self._recorders = [(name, StepRecorder(f"the {network}'s {name}")) for name in layers]

    def check(self, network: nn.Module) -> None:
        """Refuse names of layers that a network does not have.

        Raises:
            InputError: If there are any; names the ones that are closest.
        """
        for name, _ in self._recorders:
            self._layer(network, name)

    def attach(self, network: nn.Module) -> None:
        """Hook into the layers of a network.

        Raises:
            InputError: If it does not have one of them.
        """
        for name, recorder in self._recorders:
            recorder.attach(self._layer(network, name))

    def begin(self) -> None:
        """Forget what was recorded, and record what comes."""
        for _, recorder in self._recorders:
            recorder.begin()

    def take(self) -> list[Tensor]:
        """Return what each layer gave, of any shape, in the order of their names.

        Raises:
            InputError: If a layer was not called once, or does not return a tensor.
        """
        return [_tensor(recorder) for _, recorder in self._recorders]

    def stop(self) -> None:
        """Record nothing more."""
        for _, recorder in self._recorders:
            recorder.stop()

    def detach(self) -> None:
        """Leave the network."""
        for _, recorder in self._recorders:
            recorder.detach()

    def _layer(self, network: nn.Module, name: str) -> nn.Module:
        return submodule(network, name, f"a layer of the {self._network}")


def _tensor(recorder: StepRecorder) -> Tensor:
    output = recorder.take().output
    if not isinstance(output, Tensor):
        raise InputError(f"expected a tensor from {recorder.name}, got {described(output)}; name another layer")
    return output
