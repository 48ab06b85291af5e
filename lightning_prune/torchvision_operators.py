"""Where the compiled part of an installed torchvision does not fit torch, `import lightning` fails: this mends it.

It happens with builds from two places, such as the CPU build of torch beside the torchvision of PyPI. torchvision's
Python part, which is all that its networks and transforms need, can be imported as soon as the two operators are
declared for which it registers more; and so can torchmetrics and Lightning, which import it wherever it is installed.
"""

from importlib import import_module
from importlib.util import find_spec

import torch

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _declare_missing() -> tuple[str, ...]:
    if find_spec("torchvision") is None:
        return ()
    try:
        import_module("torchvision")
    except RuntimeError:  # torch's, for a missing operator among others: hence what is missing is looked for
        missing = tuple(name for name in ("nms", "qnms") if getattr(torch.ops.torchvision, name, None) is None)
        for name in missing:
            torch.library.define(f"torchvision::{name}", _BOXES)
        return missing
    return ()


DECLARED = _declare_missing()
"""The operators that had to be declared; none where torchvision is whole, or not there."""
