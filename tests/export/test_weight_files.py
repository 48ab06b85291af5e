"""Weights come out of every kind of checkpoint, and files that do not fit are refused in one line."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_prune.distillation.teacher import Teacher
from lightning_prune.errors import InputError
from lightning_prune.export.weight_files import load_weights


def network(classes: int = 3, width: int = 8) -> nn.Sequential:
    layers = [nn.Linear(5, width), nn.BatchNorm1d(width), nn.Dropout(0.2), nn.Linear(width, classes)]
    return nn.Sequential(*layers)


class Wrapped(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(t, states[1][n]) for n, t in states[0].items())


def saved(value: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)
    return path


def test_weights_come_out_of_every_kind_of_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = Wrapped()
    plain, prefixed = module.net.state_dict(), module.state_dict()
    run = tmp_path / "run"
    files = [
        saved(plain, tmp_path / "plain.pt"),
        saved(prefixed, tmp_path / "prefixed.pt"),
        saved({"state_dict": prefixed | {"metric.total": torch.zeros(1)}}, tmp_path / "lightning.ckpt"),
        saved({f"model._orig_mod.{name}": tensor for name, tensor in plain.items()}, tmp_path / "compiled.pt"),
    ]
    for file in files:
        loaded = network()
        load_weights(loaded, file)
        assert same(loaded, module.net), file
    whole = Wrapped()
    load_weights(whole, str(files[0]))
    assert same(whole, module)
    saved({"state_dict": network().state_dict()}, run / "checkpoints" / "last.ckpt")
    load_weights(loaded, run)
    assert not same(loaded, module.net)
    saved({"state_dict": prefixed}, run / "checkpoints" / "best.ckpt")
    load_weights(loaded, run)
    assert same(loaded, module.net)
    teacher = network()
    Teacher(teacher, files[2])
    assert same(teacher, module.net)


def damaged(path: Path) -> Path:
    file = saved(network().state_dict(), path / "damaged.pt")
    file.write_bytes(file.read_bytes()[:100])
    return file


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda path: path / "none.ckpt",
            "expected the file of a checkpoint or the folder of a run, got {}, which does not exist",
        ),
        (
            lambda path: path,
            "expected a run with checkpoints/best.ckpt or checkpoints/last.ckpt, got {} without them",
        ),
        (
            damaged,
            "expected a checkpoint of tensors and plain values, got {}, which is damaged or holds other objects; save "
            "the state_dict of the network alone",
        ),
        (
            lambda path: saved([1, 2], path / "list.pt"),
            "expected a state dict or a Lightning checkpoint, got {}, which holds no weights by name",
        ),
        (
            lambda path: saved(network(width=9).state_dict(), path / "wide.pt"),
            "expected 0.weight of (8, 5), got (9, 5) in {}: it is of another architecture",
        ),
        (
            lambda path: saved({"state_dict": {f"net.{n}": t for n, t in network(7).state_dict().items()}}, path / "c"),
            "expected 3.weight of (3, 8), got (7, 8) in {}: it is of another architecture",
        ),
        (
            lambda path: saved(network()[:3].state_dict(), path / "short.pt"),
            "expected 3.weight of (3, 8), got no such tensor in {}: it is of another architecture",
        ),
        (
            lambda path: saved(nn.Sequential(*network(), nn.Linear(3, 3)).state_dict(), path / "long.pt"),
            "expected 4.weight of no such tensor, got (3, 3) in {}: it is of another architecture",
        ),
        (
            lambda path: saved(nn.ModuleDict({"a": network(), "b": network()}).state_dict(), path / "two.pt"),
            "expected the weights of one network, got {}, in which those under a. and b. fit; save the one that is "
            "meant alone",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    file, net = make(tmp_path), network()
    before = copy.deepcopy(net)
    with pytest.raises(InputError) as caught:
        load_weights(net, file)
    assert str(caught.value) == message.format(file)
    assert same(net, before)
