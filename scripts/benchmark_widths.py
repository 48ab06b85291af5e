"""Time networks that lost the same fraction of their channels, with the widths that leaves and with rounded ones.

Every layer, or group of coupled layers, loses the filters with the lowest norm of random weights; `slim` cuts them out.
torch runs the networks in eval mode, and onnxruntime, where it is installed, their ONNX files. They run in turn, round
after round, in one order and then the other, and ratios are taken within a round, so that they hold on a machine whose
speed drifts. Look at the multiply-accumulates too: rounding changes them, and narrow layers stay whole.

    python scripts/benchmark_widths.py --models mobilenet_v2 --batch-sizes 64 --round-to 8 16 --threads 1
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from benchmark_int8 import MODELS, images, in_blocks, network
from benchmarking import interleaved, parse_options, ratio
from torch import nn

from lightning_prune.export import open_onnx, run_onnx, write_onnx
from lightning_prune.pruning import Goal, HeldMasks
from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.reporting import macs
from lightning_prune.slimming import TracedModel, slim


def pruned(build: Callable[[], nn.Module], sparsity: float, round_to: int) -> nn.Module:
    """Return a network without a fraction of its channels, always of the same weights."""
    torch.manual_seed(0)
    model = network(build)
    competition = Goal(Channel(round_to=round_to), sparsity).find(model, TracedModel(model, (images(2),)))
    assert competition is not None
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    HeldMasks(model, competition.choose(Magnitude(), weights)).enforce()
    return slim(model, images(2))


def measured(models: dict[str, nn.Module], batch_size: int, threads: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a forward pass in each round, by what runs which model."""
    batch = images(batch_size)
    runs: dict[str, Callable[[], object]] = {f"torch {name}": partial(model, batch) for name, model in models.items()}
    if find_spec("onnxruntime"):
        with TemporaryDirectory() as folder:
            for name, model in models.items():
                write_onnx(model, images(2), Path(folder) / f"{name}.onnx")
                opened = open_onnx(Path(folder) / f"{name}.onnx", threads)
                runs[f"onnxruntime {name}"] = partial(run_onnx, opened, [batch])
    with torch.no_grad():
        return interleaved({name: in_blocks(once) for name, once in runs.items()}, rounds)


def main() -> None:
    """Print one line for each model, batch size, runtime and rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mobilenet_v2", "vgg16_bn", "resnet56"], choices=MODELS)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 64], help="images in a forward pass")
    parser.add_argument("--sparsity", type=float, default=0.4, help="fraction of the channels that every layer loses")
    parser.add_argument("--round-to", nargs="+", type=int, default=[8, 16, 32], help="beside 1, any width")
    options = parse_options(parser, rounds=9)
    print(f"{'model':>12} {'batch':>5} {'runtime':>11} {'round_to':>8} {'MMACs':>7} {'ms':>8}  ms over those of 1")
    for name in options.models:
        models = {"dense": pruned(MODELS[name], 0.0, 1)}
        models |= {str(number): pruned(MODELS[name], options.sparsity, number) for number in [1, *options.round_to]}
        work = {label: macs(model, images(2)) / 1e6 for label, model in models.items()}
        for batch_size in options.batch_sizes:
            times = measured(models, batch_size, options.threads, options.rounds)
            for run_of, taken in times.items():
                runtime, label = run_of.split()
                line = f"{name:>12} {batch_size:>5} {runtime:>11} {label:>8} {work[label]:>7.1f}"
                reference = times[f"{runtime} 1"]
                print(f"{line} {1000 * statistics.median(taken):>8.2f}  {ratio(taken, reference)}", flush=True)


if __name__ == "__main__":
    main()
