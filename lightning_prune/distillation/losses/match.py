"""Which layer of a student is to be like which layer of its teacher."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.arguments import flag, function, instance, items, number
from lightning_prune.distillation.losses.attention import Attention
from lightning_prune.distillation.losses.pair import FeatureLoss


@dataclass(frozen=True)
class Match:
    """Compare what a layer of the student gives with what a layer of the teacher gives.

    Args:
        student: Name of the layer in the student, such as `"layer2"`.
        teacher: Name of the layer in the teacher.
        loss: Such as `Attention()`; or any function of two features, `(n, ...)` each, that returns a scalar.
        weight: Factor of the loss, at least 0; `conf/distillation/` has those that leave a network its task.
        adapt: Whether a learned 1x1 convolution with batch norm, linear for features `(n, width)` and
            `(n, tokens, width)`, takes the student's features to the teacher's width. Images of features are averaged
            down to the smaller of both.

    Raises:
        InputError: If an argument is of another type, or the weight out of range.
    """

    student: str
    teacher: str
    loss: FeatureLoss
    weight: float = 1.0
    adapt: bool = False

    def __post_init__(self) -> None:
        instance("student, the name of a layer,", str, self.student)
        instance("teacher, the name of a layer,", str, self.teacher)
        function("the loss of a match", self.loss, "student, teacher", Attention)
        number("the weight of a match", self.weight, "[0, inf)")
        flag("adapt", self.adapt)


def matches(layers: Sequence[str], loss: FeatureLoss, weight: float = 1.0, adapt: bool = False) -> tuple[Match, ...]:
    """Return one match for each layer of a student and a teacher that have layers of the same names.

    >>> from lightning_prune.distillation.losses.hint import Hint
    >>> [match.teacher for match in matches(["layer1", "layer2"], Hint())]
    ['layer1', 'layer2']
    """
    return tuple(Match(layer, layer, loss, weight, adapt) for layer in items("layers", layers, "names of layers"))
