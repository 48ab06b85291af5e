"""Slim models as files of plain data, which are Lightning checkpoints too.

Without this package, `YourModule` being the code that built the dense model:

    def zeros(x, *others, dim, strides, width):
        shape = [-(-size // stride) for size, stride in zip(x.shape, strides)]
        shape[dim] = width
        return x.new_zeros(shape)

    saved, model = torch.load("slim.pt", weights_only=True), YourModule()
    for name, place in saved["gone"].items():  # blocks and branches that were removed
        model.set_submodule(name, nn.Identity())
        if place:
            model.get_submodule(name).forward = functools.partial(zeros, **place)
    for name, widths in saved["widths"].items():
        vars(model.get_submodule(name)).update(widths)
    tensors = saved["buffers"] | saved["state_dict"]
    for name, own in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        own.data = tensors[name]
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import lightning
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_prune.arguments import instance, shown
from lightning_prune.errors import InputError
from lightning_prune.quantization import quantization_of
from lightning_prune.slimming.channels.sizes import Kept
from lightning_prune.slimming.size_attributes import set_size_attributes, size_attributes
from lightning_prune.slimming.slim_file_checks import (
    check_fit,
    check_widths,
    checked_file_parts,
    outside,
    replacements_for,
    tensors,
    unreadable,
)
from lightning_prune.slimming.surgery import Model, replace_modules, replace_tensors
from lightning_prune.slimming.zero_modules import ZeroOutput, ZeroPassThrough

log = logging.getLogger(__name__)


def save_slim(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    kept: Kept | None = None,
    build: Mapping[str, Any] | None = None,
) -> None:
    """Write a slim model as plain data: `torch.load(path, weights_only=True)` opens it without this package.

    `load_slim` reads it, and so does `Trainer.test(slim_module, ckpt_path=path)`, or `validate`, `predict` and `fit`,
    which begins a new training with its weights. With the dense module they need `SlimWidths` among the callbacks.
    `YourModule.load_from_checkpoint` builds the dense module, whose weights are of other sizes; call `load_slim` with
    `YourModule(...)`, or `YourModule(**torch.load(path)["hyper_parameters"])` where it has saved them.

    Args:
        model: See `slim_state`.
        path: File to write; folders that it needs are made.
        kept: See `slim_state`.
        build: See `slim_state`.

    Raises:
        InputError: If `build` is not plain data, or the file cannot be written.
    """
    _check_order("save_slim", model, path)
    state = slim_state(model, kept=kept, build=build)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("wb") as file:
            torch.save(state, file)
    except OSError as error:
        raise InputError(f"expected a file that can be written, got {path}: {error.strerror}") from error


def slim_state(model: nn.Module, *, kept: Kept | None = None, build: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what the file of a slim model holds, as tensors and builtins.

    `build` says how the dense model is built; `widths` the attributes, by module, that state widths; `gone` the modules
    that are no more, with the shape of the zeros that stand there, if any do; `buffers` the buffers that `state_dict`
    leaves out; `quantization` the ranges and step sizes of a quantized model, for `QuantizationAwareTraining.restore`.
    The others are those of a Lightning checkpoint from before the first step.

    Args:
        model: What `slim` returned, after more training or not.
        kept: Which positions of the dense tensors are left, as `slimmed` tells.
        build: The path of the dense model's class as `_target_`, and its arguments. None for the class of `model`, with
            those hyperparameters that are plain data, if it is a LightningModule that has saved them.

    Raises:
        InputError: If `build` is not plain data.
    """
    for name, dims in instance("kept", Mapping, {} if kept is None else kept).items():
        instance(f"kept[{name}]", Mapping, dims)
    instance("build", Mapping | None, build)
    if build is not None and not (is_plain(dict(build)) and all(isinstance(name, str) for name in build)):
        raise InputError(f"expected build to be made of numbers, texts, lists and dictionaries, got {shown(build)}")
    named = model.named_modules(remove_duplicate=False)
    state = model.state_dict()
    saved: dict[str, Any] = {
        "state_dict": state,
        "buffers": _left_out(model, state),
        "widths": {name: widths for name, module in model.named_modules() if (widths := size_attributes(module))},
        "gone": {name: _place(module) for name, module in named if isinstance(module, ZeroOutput | ZeroPassThrough)},
        "build": {"_target_": f"{type(model).__module__}.{type(model).__qualname__}"},
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
    }
    if isinstance(model, LightningModule) and model.hparams:
        plain = {name: value for name, value in model.hparams.items() if is_plain(value)}
        key = vars(model).get("_hparams_name")
        saved |= {model.CHECKPOINT_HYPER_PARAMS_KEY: plain, model.CHECKPOINT_HYPER_PARAMS_NAME: key}
        saved["build"] |= plain if key in (None, "kwargs") else {key: plain}
    if build is not None:
        saved["build"] = dict(build)
    if kept is not None:
        saved["kept"] = {name: dict(dims) for name, dims in kept.items()}
    quantization = quantization_of(model)
    if quantization is not None:
        saved["quantization"] = dict(quantization.rounding.state_dict())
    return saved


def load_slim(model: Model, path: str | os.PathLike[str]) -> Model:
    """Shrink a freshly built model to the widths and modules of a slim one and load its weights.

    Args:
        model: A model built by the code that built the dense one, or a slim one; it is changed in place and returned.
        path: A file written by `save_slim`. It is read as plain data: nothing in it is executed.

    Raises:
        InputError: If the file is missing, is not a slim model, or is that of another architecture.
    """
    _check_order("load_slim", model, path)
    return load_slim_state(model, read_slim(path), path)


def read_slim(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `save_slim` has written.

    Raises:
        InputError: If the file is missing, damaged, or holds anything but plain data.
    """
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "does not exist"
        raise InputError(f"expected a file written by save_slim, got {path}, which {what}")
    try:
        if is_zipfile(path):  # torch writes checksums into its files, and does not look at them
            with ZipFile(path) as archive:
                if (damaged := archive.testzip()) is not None:
                    raise BadZipFile(damaged)
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise unreadable(path) from error
    return saved


def load_slim_state(model: Model, saved: Mapping[str, Any], source: str | os.PathLike[str]) -> Model:
    """Shrink a model to what `slim_state` has returned of a slim one.

    Args:
        model: See `load_slim`. It stays as it is if the state does not fit.
        saved: The state, from wherever: nothing in it is trusted.
        source: Where it is from, for messages.

    Raises:
        InputError: If it is not the state of a slim model, or that of another architecture.
    """
    state, buffers, widths, gone, of = checked_file_parts(saved, source)
    if "quantization" in saved:
        log.warning(
            "load_slim: %s is of a quantized network, of which this is the float one; "
            "QuantizationAwareTraining.restore quantizes it again",
            source,
        )
    expected = f"expected a slim {type(model).__name__}, got {source}{of}"
    gone = replacements_for(model, gone, expected)
    own_state = model.state_dict()
    zeros = {f"{name}.zeros": new.zeros for name, new in gone.items() if isinstance(new, ZeroOutput)}
    own_buffers = outside(gone, _left_out(model, own_state)) | zeros
    check_fit(expected, source, outside(gone, own_state), state)
    check_fit(expected, source, own_buffers, buffers)
    modules = outside(gone, dict(model.named_modules()))
    check_widths(expected, modules, widths)
    replace_modules(model, gone)
    own = tensors({**own_state, **own_buffers})
    keep = {
        name: {dim: torch.arange(size) for dim, size in enumerate(tensor.shape) if size != own[name].shape[dim]}
        for name, tensor in tensors({**state, **buffers}).items()
    }
    replace_tensors(model, {name: dims for name, dims in keep.items() if dims})
    for name, values in widths.items():
        module = modules[name]
        sizes = {attribute: type(vars(module)[attribute])(value) for attribute, value in values.items()}
        own = size_attributes(module)
        set_size_attributes(module, {attribute: value for attribute, value in sizes.items() if attribute not in own})
        vars(module).update(sizes)
    model.load_state_dict(state)
    for name, buffer in _left_out(model, state).items():
        buffer.copy_(buffers[name])
    return model


# What is written ------------------------------------------------------------------------------------------------------


def _check_order(function: str, model: Any, path: Any) -> None:
    """Refuse a model and a path that came the other way round, or are none."""
    if isinstance(path, nn.Module):
        raise InputError(f"expected {function}(model, path), got them the other way round")
    instance("model", nn.Module, model)
    instance("path", str | os.PathLike, path)


def _place(module: ZeroOutput | ZeroPassThrough) -> dict[str, Any] | None:
    """Return what a file says of what stands in the place of a module."""
    if isinstance(module, ZeroPassThrough):
        return None
    return {"dim": module.dim, "strides": list(module.strides), "width": len(module.zeros)}


def _left_out(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the buffers that a model's `state_dict` does not hold, because they are not persistent."""
    quantization = quantization_of(model)
    apart = {id(buffer) for buffer in quantization.buffers()} if quantization is not None else set()
    buffers = model.named_buffers(remove_duplicate=False)
    return {name: buffer for name, buffer in buffers if name not in state and id(buffer) not in apart}


def is_plain(value: Any) -> bool:
    """Return whether something consists of builtins that `torch.load` reads from any file."""
    if type(value) is dict:
        return all(type(key) in (str, int) and is_plain(entry) for key, entry in value.items())
    if type(value) in (list, tuple):
        return all(is_plain(entry) for entry in value)
    return type(value) in (type(None), bool, int, float, str)
