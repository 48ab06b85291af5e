"""The file of the network that a run ends with: refused before training if it cannot be, measured after it."""

from collections.abc import Iterable

from lightning.pytorch import Callback

from lightning_prune.callbacks import QuantizationAwareTraining, WeightSharing
from lightning_prune.errors import InputError
from lightning_prune.export import EXPORT_FORMATS, open_network, write_network
from lightning_prune.reporting import EXPORTED, RunFolder
from lightning_prune.runs.comparison import Comparison
from lightning_prune.runs.example_inputs import Inputs
from lightning_prune.runs.messages import say

AUTO = "auto"
"""The name, in place of a format, of the one that suits what was trained."""


def suiting_format(last: Iterable[Callback]) -> str:
    """Return the format that gives what a stage has trained for: integers, few values, or else floats.

    Args:
        last: The callbacks of the last stage.
    """
    callbacks = list(last)
    quantized = [one.quantizer for one in callbacks if isinstance(one, QuantizationAwareTraining)]
    if any(quantizer.integer for quantizer in quantized):
        return next(name for name, one in EXPORT_FORMATS.items() if one.integer)
    shared = quantized or any(isinstance(one, WeightSharing) for one in callbacks)
    return "lpz" if shared else "exported-program"


def chosen_format(export: str | None, last: Iterable[Callback]) -> str | None:
    """Return the format of a run's file; None for no file.

    Args:
        export: One of `EXPORT_FORMATS`, `auto` for the one that suits, None for no file.
        last: The callbacks of the last stage.

    Raises:
        InputError: If there is no such format, a package is missing for one that was named, or it will not fit.
    """
    callbacks = list(last)
    if export is None:
        return None
    if export == AUTO:
        format = suiting_format(callbacks)
        try:
            EXPORT_FORMATS[format].require()
        except InputError as error:
            say(f"No file of the last model as {format}: {error}")
            return None
        return format
    if export not in EXPORT_FORMATS:
        raise InputError(f"expected export to be auto, null or one of {', '.join(EXPORT_FORMATS)}, got {export}")
    EXPORT_FORMATS[export].require()
    integer = [one for one in callbacks if isinstance(one, QuantizationAwareTraining) and one.quantizer.integer]
    if EXPORT_FORMATS[export].integer and not integer:
        raise InputError(
            f"expected a last stage that trains for integers with export={export}, got one that does not; add "
            "strategy=qat or finetune=qat with quantizer=affine, or run lightning-prune export with calibrate=32 "
            "afterwards"
        )
    return export


def export_last_model(compared: Comparison, folder: RunFolder, example_input: Inputs | None, format: str) -> None:
    """Write the last model of a comparison into a run's folder, open the file again, and compare that as well.

    Args:
        compared: Holds at least one model.
        folder: Where the file goes.
        example_input: What the model takes, `(n, ...)` each; None where it does not take tensors.
        format: One of `EXPORT_FORMATS`.

    Raises:
        InputError: If the model cannot be written in this format.
        RuntimeError: If the file computes something else.
    """
    if example_input is None:
        raise InputError("expected a module whose forward takes tensors, as they stand in a batch; set export=null")
    module = compared.last
    file = folder.path / EXPORT_FORMATS[format].file
    write_network(module, example_input, file, format)
    compared.add_file(EXPORTED, file, open_network(file, format, module))
