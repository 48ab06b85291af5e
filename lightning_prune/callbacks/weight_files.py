"""The weights of networks: out of the files that runs leave behind, from one to another, and their hash."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError

State = dict[str, Tensor]


def load_weights(network: nn.Module, checkpoint: str | os.PathLike[str]) -> None:
    """Load all weights of a network from a file.

    Args:
        network: Any module; stays as it is if the file does not fit.
        checkpoint: A state dict, a Lightning checkpoint, or the folder of a run, which means `checkpoints/best.ckpt`
            in it or else `checkpoints/last.ckpt`. Prefixes such as `network.` on one of the two sides do not matter.

    Raises:
        InputError: If there is no such file, it is damaged or holds more than tensors and builtins, or its weights do
            not fit.
    """
    path = _file(Path(checkpoint))
    load_state(network, _state(path), str(path))


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Give a network the weights of another of its architecture; see `load_state`."""
    load_state(target, source.state_dict(), f"the {type(source).__name__} given as teacher")


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load all weights of a network from a state dict, whatever prefix the names have on one of the two sides.

    Args:
        network: Any module; stays as it is if the state does not fit.
        state: Tensors by name.
        source: What holds the state, for messages.

    Raises:
        InputError: If it does not fit.
    """
    saved = {_uncompiled(name): value for name, value in state.items()}
    names = {_uncompiled(name): name for name in network.state_dict()}
    own = {name: network.state_dict()[stored] for name, stored in names.items()}
    found = _matching(own, saved, source)
    network.load_state_dict({names[name]: value for name, value in found.items()})


def fingerprint(network: nn.Module) -> str:
    """Return a hash of the names and bits of a network's weights and buffers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in network.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{_uncompiled(name)} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def difference(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> tuple[str, str, str] | None:
    """Return the first tensor that differs in shape, with its shape on both sides; None if all fit."""
    for name in [*own, *(name for name in saved if name not in own)]:
        one, other = (str(tuple(side[name].shape)) if name in side else "no such tensor" for side in (own, saved))
        if one != other:
            return name, one, other
    return None


def _file(path: Path) -> Path:
    """Return the file that a path means."""
    candidates = [path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise InputError(f"expected a run with checkpoints/best.ckpt or checkpoints/last.ckpt, got {path} without them")
    raise InputError(f"expected the file of a checkpoint or the folder of a run, got {path}, which does not exist")


def _state(path: Path) -> State:
    """Return the state dict in a file."""
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"expected a checkpoint of tensors and plain values, got {path}, which is damaged or holds other objects; "
            "save the state_dict of the network alone"
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    tensors = {} if not isinstance(state, Mapping) else {k: v for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:
        raise InputError(f"expected a state dict or a Lightning checkpoint, got {path}, which holds no weights by name")
    return tensors


def _uncompiled(name: str) -> str:
    return name.replace("_orig_mod.", "")


def _matching(own: State, saved: State, path: str) -> State:
    """Return what is saved under the network's own names."""
    views = _views(own, saved)
    fitting = {prefix: view for prefix, view in views.items() if difference(own, view) is None}
    if len(fitting) > 1 and "" not in fitting:
        raise InputError(
            f"expected the weights of one network, got {path}, in which those under {' and '.join(fitting)} fit; save "
            "the one that is meant alone"
        )
    if fitting:
        return fitting.get("", next(iter(fitting.values())))
    closest = max(views.values(), key=lambda view: len(own.keys() & view.keys()))
    differs = difference(own, closest)
    assert differs is not None
    name, expected, got = differs
    raise InputError(f"expected {name} of {expected}, got {got} in {path}: it is of another architecture")


def _views(own: State, saved: State) -> dict[str, State]:
    """Return what is saved, as it is and with each prefix that could be meant taken away or added, by the prefix."""
    views = {"": saved}
    first_own, first_saved = next(iter(own), ""), next(iter(saved))
    for name in saved:
        if name.endswith(f".{first_own}"):
            prefix = name.removesuffix(first_own)
            views[prefix] = {key.removeprefix(prefix): saved[key] for key in saved if key.startswith(prefix)}
    for name in own:
        if name.endswith(f".{first_saved}"):
            prefix = name.removesuffix(first_saved)
            views.setdefault(prefix, {prefix + key: value for key, value in saved.items()})
    return views
