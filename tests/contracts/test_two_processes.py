"""Two processes end with the same weights and the same masks, whatever the method."""

import multiprocessing
import os
import socket
import traceback
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest
import torch
from configured import FILTERS, composed, looks_at_weights, options, pieces, trainer
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_prune import SparsityMonitor
from lightning_prune.callbacks.pruner import Pruner
from lightning_prune.quantization.quantization_interceptor import quantization_of


class SaveState(Callback):
    """Write what each process ends with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        parameters = {name: parameter.detach() for name, parameter in pl_module.named_parameters()}
        masks = [getattr(callback, "masks", None) for callback in trainer.callbacks]  # type: ignore[attr-defined]
        quantization = quantization_of(pl_module)
        parameters |= {} if quantization is None else quantization.rounding.state_dict()
        torch.save({"parameters": parameters, "masks": masks}, self.folder / f"{trainer.global_rank}.pt")


CRITERIA = [name for name in options("criterion") if not looks_at_weights(name)]
TOGETHER = (
    [f"strategy={name}" for name in options("strategy")]
    + [f"strategy=gmp granularity={FILTERS} criterion={name}" for name in CRITERIA]
    + [f"strategy=qat quantizer={name}" for name in options("quantizer")]
)


def train_on_request(rank: int, port: int, requests: Connection) -> None:
    """Train as one of two processes whatever is asked for, and answer with what went wrong."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", message=".*'(train|val|test)/.*sync_dist")
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {name: str(value) for name, value in (address | ranks).items()} | {"TORCHELASTIC_RUN_ID": "tests"}
    while True:
        overrides, folder = requests.recv()
        try:
            module, data, callbacks = pieces(composed(overrides))
            save = SaveState(folder)
            trainer(*callbacks, SparsityMonitor(), save, devices=2, strategy="ddp").fit(module, datamodule=data)
            requests.send("")
        except BaseException:
            requests.send(traceback.format_exc())


class Pair:
    """Two processes that train together, one case after the other, since a new pair costs seconds of imports."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        self.ends, self.processes = [], []
        for rank in range(2):
            end, other = context.Pipe()
            process = context.Process(target=train_on_request, args=(rank, port, other), daemon=True)
            process.start()
            other.close()
            self.ends.append(end)
            self.processes.append(process)

    def train(self, overrides: str, folder: Path) -> None:
        """Train one case; fail where one of the processes does, without waiting for the other."""
        waiting = list(self.ends)
        for end in waiting:
            end.send((overrides, folder))
        while waiting:
            ready = wait(waiting, timeout=300)
            assert ready, "no answer within 300 seconds"
            for end in ready:
                problem = end.recv()
                assert not problem, problem
                waiting.remove(end)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


@pytest.fixture(scope="module")
def pairs() -> Iterator[list[Pair]]:
    """The pair that is at work, if there is one: none before the first case, nor after one that failed."""
    at_work: list[Pair] = []
    yield at_work
    for pair in at_work:
        pair.end()


@pytest.mark.parametrize("overrides", TOGETHER)
def test_every_method_is_the_same_in_two_processes(overrides: str, pairs: list[Pair], tmp_path: Path) -> None:
    pair = pairs.pop() if pairs else Pair()
    try:
        pair.train(overrides, tmp_path)
    except BaseException:
        pair.end()
        raise
    pairs.append(pair)
    _, _, callbacks = pieces(composed(overrides))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert any(first["masks"]) == any(isinstance(callback, Pruner) for callback in callbacks)
    for one, other in zip(first["masks"], second["masks"], strict=True):
        assert one is None or all(torch.equal(mask, other[name]) for name, mask in one.items())
    assert all(torch.equal(tensor, second["parameters"][name]) for name, tensor in first["parameters"].items())
