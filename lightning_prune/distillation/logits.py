"""What counts as logits."""

from typing import Any

from torch import Tensor

from lightning_prune.errors import InputError


def are_logits(output: Any) -> bool:
    """Return whether what a network gave can be logits, `(n, classes)`."""
    return isinstance(output, Tensor) and output.ndim == 2 and output.is_floating_point()


def check_logits(student: Any, teacher: Any) -> None:
    """Refuse outputs of two networks that are not logits of the same classes.

    Raises:
        InputError: If they are not.
    """
    for who, output in (("student", student), ("teacher", teacher)):
        if not are_logits(output):
            raise InputError(
                f"expected logits (n, classes) from the {who}, got {described(output)}; name the part of the module "
                "that gives them, such as student='net'"
            )
    if student.shape != teacher.shape:
        raise InputError(
            f"expected a teacher with the {student.shape[1]} classes of the student, got {teacher.shape[1]}: logits "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        )


def described(output: Any) -> str:
    """Return in words what a network gave."""
    return f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
