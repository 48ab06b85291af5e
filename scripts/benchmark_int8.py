"""Time integer ONNX files against float ones on the CPU, and against torch, with the same network in all three.

Weights are random and batch norms have what random images give them: speed does not depend on them. onnxruntime runs
both files, without threads that wait busily, which would slow down the others; torch runs the float network in eval
mode. They run in turn, round after round, in one order and then the other, and ratios are taken within a round, so that
they hold on a machine whose speed drifts.

    python scripts/benchmark_int8.py --models resnet56 mobilenet_v2 --batch-sizes 1 32 --threads 1 --rounds 10
"""

import argparse
import re
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from benchmarking import interleaved, now, ratio, seconds
from torch import Tensor, nn

from lightning_prune.export import calibrated, integer_network, open_onnx, run_onnx, write_onnx
from lightning_prune.models.densenet import densenet40
from lightning_prune.models.googlenet import googlenet
from lightning_prune.models.mobilenet_v2 import mobilenet_v2
from lightning_prune.models.resnet import resnet20, resnet56, resnet110
from lightning_prune.models.vgg import vgg16_bn

MODELS = {
    build.__name__: build for build in (resnet20, resnet56, resnet110, mobilenet_v2, vgg16_bn, densenet40, googlenet)
}

CPU = torch.device("cpu")

BLOCK_SECONDS = 0.1
"""Time that one runs on end before the next has its turn: one pass would find the other's weights in the cache."""


def images(count: int) -> Tensor:
    """Return random images of the size of CIFAR-10's, normalized."""
    return torch.randn(count, 3, 32, 32)


def network(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a network in eval mode that is no special case: no batch norm in it leaves numbers as they are."""
    model = build().train()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
            norm.momentum = None  # takes the mean over all batches
    with torch.no_grad():
        for _ in range(2):
            model(images(32))
    return model.eval()


def write(model: nn.Module, folder: Path) -> dict[str, Path]:
    """Write a network as a float and as an integer file, with ranges from random images."""
    files = {name: folder / f"{name}.onnx" for name in ("float", "int8")}
    write_onnx(model, images(2), files["float"])
    write_onnx(integer_network(calibrated(model, [images(32) for _ in range(4)])), images(2), files["int8"])
    return files


def in_blocks(once: Callable[[], object]) -> Callable[[], float]:
    """Return what measures the seconds of a call in a block of calls that takes `BLOCK_SECONDS`, at least one call."""
    once()  # allocates memory
    calls = max(1, round(BLOCK_SECONDS / seconds(once, CPU)))

    def block() -> float:
        start = now(CPU)
        for _ in range(calls):
            once()
        return (now(CPU) - start) / calls

    return block


def latencies(
    model: nn.Module, files: dict[str, Path], batch_size: int, threads: int, rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of a forward pass in each round, by what makes it: torch, float or int8."""
    torch.set_num_threads(threads)
    batch = images(batch_size)
    sessions = {name: open_onnx(path, threads) for name, path in files.items()}
    runs: dict[str, Callable[[], object]] = {"torch": partial(model, batch)}
    runs |= {name: partial(run_onnx, opened, [batch]) for name, opened in sessions.items()}
    with torch.no_grad():
        return interleaved({name: in_blocks(once) for name, once in runs.items()}, rounds)


def has_vnni() -> bool:
    """Return whether the CPU adds products of 8-bit integers in one instruction."""
    return re.search(r"\bavx(512)?_vnni\b", Path("/proc/cpuinfo").read_text()) is not None


def main() -> None:
    """Print one line for each model, number of threads and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet56", "mobilenet_v2", "vgg16_bn"], choices=MODELS)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 32, 128], help="images in a forward pass")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="that an operator may use")
    parser.add_argument("--rounds", type=int, default=15, help="turns that each takes")
    options = parser.parse_args()
    if has_vnni():
        print("this CPU has VNNI, instructions that add products of 8-bit integers")
    else:
        print("this CPU has no VNNI, without which integers are hardly faster than floats")
    print(f"{'model':>12} {'threads':>7} {'batch':>5} {'torch ms':>9} {'float ms':>9} {'int8 ms':>9}  float / int8")
    for name in options.models:
        torch.manual_seed(0)
        model = network(MODELS[name])
        with TemporaryDirectory() as folder:
            files = write(model, Path(folder))
            for threads in options.threads:
                for batch_size in options.batch_sizes:
                    times = latencies(model, files, batch_size, threads, options.rounds)
                    medians = " ".join(f"{1000 * statistics.median(taken):9.2f}" for taken in times.values())
                    gain = ratio(times["float"], times["int8"])
                    print(f"{name:>12} {threads:>7} {batch_size:>5} {medians}  {gain}", flush=True)


if __name__ == "__main__":
    main()
