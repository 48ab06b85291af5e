"""The weights of networks: out of the files that runs leave behind, from one to another, and their hash."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.export.packed import read_packed
from lightning_prune.reporting import RunFolder
from lightning_prune.slimming import load_slim_state

State = dict[str, Tensor]


class ShapeMismatch(NamedTuple):
    """A tensor of two states whose shapes differ: as texts, such as `"(8, 5)"` or `"no such tensor"`."""

    name: str
    expected: str
    got: str


class ArchitectureMismatch(InputError):
    """Weights of another architecture than that of the network that they are to go into.

    Args:
        mismatch: The first tensor that does not fit.
        source: What holds the weights.
    """

    def __init__(self, mismatch: ShapeMismatch, source: str) -> None:
        self.mismatch, self.source = mismatch, source
        name, expected, got = mismatch
        super().__init__(f"expected {name} of {expected}, got {got} in {source}: it is of another architecture")


_BY_NAME = ("state_dict", "buffers", "widths", "gone")
"""What the file of a slim model says by the names of tensors and modules."""


def load_weights(network: nn.Module, checkpoint: str | os.PathLike[str]) -> None:
    """Load all weights of a network from a file.

    Args:
        network: Any module; stays as it is if the file does not fit.
        checkpoint: A state dict, a Lightning checkpoint, the file of a slim model, to whose widths the network shrinks,
            or a packed one; or the folder of a run, which means `checkpoints/best.ckpt` in it or else
            `checkpoints/last.ckpt`. Prefixes such as `network.` on one of the two sides do not matter.

    Raises:
        InputError: If there is no such file, it is damaged or holds more than tensors and builtins, or its weights do
            not fit; `ArchitectureMismatch` if they are those of another network.
    """
    path = _file(Path(checkpoint))
    loaded = read_packed(path) if path.suffix == ".lpz" else _loaded(path)
    if "widths" in loaded:
        load_slim_state(network, _slim_view(network.state_dict(), loaded), path)
    else:
        load_state(network, _state(loaded, path), str(path))


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Give a network the weights of another of its architecture; see `load_state`.

    Raises:
        ArchitectureMismatch: If it is of another.
    """
    load_state(target, source.state_dict(), f"the {type(source).__name__} given as teacher")


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load all weights of a network from a state dict, whatever prefix the names have on one of the two sides.

    Args:
        network: Any module; stays as it is if the state does not fit.
        state: Tensors by name, of the same shapes as in the network.
        source: What holds the state, for messages.

    Raises:
        InputError: If it does not fit; `ArchitectureMismatch` if it is that of another network.
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


def shape_mismatch(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> ShapeMismatch | None:
    """Return the first tensor that differs in shape, or is on one side alone; None if both are of the same shapes."""
    for name in [*own, *(name for name in saved if name not in own)]:
        one, other = (str(tuple(side[name].shape)) if name in side else "no such tensor" for side in (own, saved))
        if one != other:
            return ShapeMismatch(name, one, other)
    return None


def _file(path: Path) -> Path:
    """Return the file that a path means."""
    if path.is_file():
        return path
    if path.is_dir():
        checkpoint = RunFolder(path).saved_checkpoint
        if checkpoint is None:
            raise InputError(
                f"expected a run with checkpoints/best.ckpt or checkpoints/last.ckpt, got {path} without them"
            )
        return checkpoint
    raise InputError(f"expected the file of a checkpoint or the folder of a run, got {path}, which does not exist")


def _loaded(path: Path) -> Mapping[str, Any]:
    """Return what is in a file."""
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"expected a checkpoint of tensors and plain values, got {path}, which is damaged or holds other objects; "
            "save the state_dict of the network alone"
        ) from error
    return loaded if isinstance(loaded, Mapping) else {}


def _state(loaded: Mapping[str, Any], path: Path) -> State:
    """Return the state dict in what is in a file."""
    state = loaded.get("state_dict", loaded)
    tensors = {} if not isinstance(state, Mapping) else {k: v for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:
        raise InputError(f"expected a state dict or a Lightning checkpoint, got {path}, which holds no weights by name")
    return tensors


def _slim_view(own: Mapping[str, Any], saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is saved of a slim model under a network's own names, or as it is if there is no way to that."""
    parts = [saved.get(part, {}) for part in _BY_NAME]
    if not all(isinstance(part, Mapping) and all(isinstance(name, str) for name in part) for part in parts):
        return saved
    moves = [(prefix, "") for prefix in _prefixes(parts[0])] + [("", prefix) for prefix in _prefixes(own)]
    for away, instead in moves:
        state, *others = (_moved(part, away, instead) for part in parts)
        if state and state.keys() <= own.keys():
            return {**saved, **dict(zip(_BY_NAME, (state, *others), strict=True))}
    return saved


def _prefixes(names: Iterable[str]) -> list[str]:
    """Return all that names could begin with, the shortest first."""
    found = {name[: index + 1] for name in names for index, letter in enumerate(name) if letter == "."}
    return ["", *sorted(found, key=len)]


def _moved(part: Mapping[str, Any], away: str, instead: str) -> dict[str, Any]:
    """Return the entries whose names, of tensors or of modules, begin with a prefix, with another one in its place."""
    dotted = {f"{name}.": value for name, value in part.items()}
    moved = {name.removeprefix(away): value for name, value in dotted.items() if name.startswith(away)}
    return {f"{instead}{name}".removesuffix("."): value for name, value in moved.items()}


def _uncompiled(name: str) -> str:
    return name.replace("_orig_mod.", "")


def _matching(own: State, saved: State, path: str) -> State:
    """Return what is saved under the network's own names."""
    views = _views(own, saved)
    fitting = {prefix: view for prefix, view in views.items() if shape_mismatch(own, view) is None}
    if len(fitting) > 1 and "" not in fitting:
        raise InputError(
            f"expected the weights of one network, got {path}, in which those under {' and '.join(fitting)} fit; save "
            "the one that is meant alone"
        )
    if fitting:
        return fitting.get("", next(iter(fitting.values())))
    closest = max(views.values(), key=lambda view: len(own.keys() & view.keys()))
    mismatch = shape_mismatch(own, closest)
    assert mismatch is not None
    raise ArchitectureMismatch(mismatch, path)


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
