"""What the student will be given in a training step, foreseen from the batch."""

from collections.abc import Sequence
from typing import Any

from lightning_prune.distillation.step_recorder import RecordedCall


class ForeseenCall:
    """Foresee the call of the student from a batch, if its arguments in the last step were the first entries of one."""

    def __init__(self) -> None:
        self.entries = 0
        """How many entries of the last batch were the student's arguments; 0 if it had others."""
        self._batch: tuple[Any, ...] = ()

    def begin(self, batch: Any) -> RecordedCall | None:
        """Return the call that the student will make with a batch, without its output; None if that cannot be told.

        Args:
            batch: The batch of the step that begins; None if nothing is to be foreseen.
        """
        self._batch = tuple(batch) if isinstance(batch, Sequence) else () if batch is None else (batch,)
        return RecordedCall(self._batch[: self.entries], {}, None) if 0 < self.entries <= len(self._batch) else None

    def compare(self, call: RecordedCall) -> bool:
        """Take in the call that the student has made; return whether it took as many entries as in the last step."""
        before, self.entries = self.entries, self._entries_given(call)
        return self.entries == before

    def end(self) -> None:
        """Let go of the batch."""
        self._batch = ()

    def _entries_given(self, call: RecordedCall) -> int:
        given, entries = call.arguments, self._batch[: len(call.arguments)]
        same = len(given) == len(entries) and all(one is other for one, other in zip(given, entries, strict=True))
        return len(given) if same and not call.keywords else 0
