"""The file of the network that a run ends with: refused before training if it cannot be, measured after it."""

from lightning_prune.errors import InputError
from lightning_prune.export import EXPORT_FORMATS, open_network, write_network
from lightning_prune.reporting import EXPORTED, RunFolder
from lightning_prune.runs.comparison import Comparison
from lightning_prune.runs.example_inputs import Inputs


def check_export(format: str | None, integer: bool) -> None:
    """Refuse a format that there is not, that a package is missing for, or that will not fit the network.

    Args:
        format: One of `EXPORT_FORMATS`; None for no file.
        integer: Whether the last stage trains for integers.

    Raises:
        InputError: If it is such.
    """
    if format is None:
        return
    if format not in EXPORT_FORMATS:
        raise InputError(f"expected export to be null or one of {', '.join(EXPORT_FORMATS)}, got {format}")
    EXPORT_FORMATS[format].require()
    if EXPORT_FORMATS[format].integer and not integer:
        raise InputError(
            f"expected a last stage that trains for integers with export={format}, got one that does not; add "
            "strategy=qat or finetune=qat with quantizer=affine, or run scripts/export.py with calibrate=32 afterwards"
        )


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
