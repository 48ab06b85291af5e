"""Time training steps with rounded weights and activations against plain ones, and against torchao's PT2E.

All train the same network on the same batches, in turn, round after round; a figure is the median step of a run's
second epoch, and ratios are taken within a round, so that they hold on a machine whose speed drifts. Everything that a
step can have to do is on from the first one: ranges are observed, tensors are rounded, batch norms train. Before and
after that phase a step costs less.

PT2E takes part if torchao is installed. It is no dependency of this package.

    python scripts/benchmark_quantization.py --model resnet20 --quantizer affine lsq --batches 10 --threads 1
"""

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from benchmarking import (
    DEVICE,
    classifier,
    interleaved,
    parse_options,
    print_medians,
    random_images,
    ratio,
    step_seconds,
)
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from lightning_prune.callbacks import QuantizationAwareTraining
from lightning_prune.data import InMemoryImages
from lightning_prune.models.densenet import densenet40
from lightning_prune.models.googlenet import googlenet
from lightning_prune.models.mobilenet_v2 import mobilenet_v2
from lightning_prune.models.resnet import resnet20, resnet32, resnet56, resnet110
from lightning_prune.models.vgg import vgg16_bn
from lightning_prune.quantization import Quantizer

MODELS = {
    build.__name__: build
    for build in (resnet20, resnet32, resnet56, resnet110, mobilenet_v2, vgg16_bn, densenet40, googlenet)
}
CONF = Path(__file__).parents[1] / "conf" / "quantizer"
QUANTIZERS = sorted(path.stem for path in CONF.glob("*.yaml"))


def quantizer_named(name: str) -> Quantizer:
    """Return a quantizer as the command line has it."""
    built: Quantizer = instantiate(OmegaConf.load(CONF / f"{name}.yaml"))
    return built


def all_at_once(quantizer: Quantizer) -> QuantizationAwareTraining:
    """Return the callback that observes, rounds and lets batch norms train in every step."""
    return QuantizationAwareTraining(quantizer, activations_from=0, freeze_ranges=1.0, freeze_batch_norm=1.0)


def pt2e(network: nn.Module, data: InMemoryImages) -> nn.Module:
    """Return the network as torchao prepares it for quantization-aware training, with 8 bits throughout.

    Weights have one scale for each channel, activations one each, as `Affine` has them.
    """
    from torchao.quantization.pt2e import (  # type: ignore[import-not-found, unused-ignore]
        allow_exported_model_train_eval,
    )
    from torchao.quantization.pt2e.quantize_pt2e import (  # type: ignore[import-not-found, unused-ignore]
        prepare_qat_pt2e,
    )
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (  # type: ignore[import-not-found, unused-ignore]
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    example = data.example_input(data.batch_size).to(DEVICE)
    # Not strict, it would leave out which module an operator comes from, by which the quantizer finds what to fuse.
    exported = torch.export.export(network.to(DEVICE).train(), (example,), strict=True).module()
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(is_qat=True))
    prepared: nn.Module = allow_exported_model_train_eval(prepare_qat_pt2e(exported, quantizer))
    return prepared


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20", choices=MODELS)
    parser.add_argument("--quantizer", nargs="+", default=["affine"], choices=QUANTIZERS, help="one or several")
    parser.add_argument("--batches", type=int, default=10, help="in an epoch")
    parser.add_argument("--batch-size", type=int, default=128)
    options = parse_options(parser)
    data, build = random_images(options.batches, options.batch_size), MODELS[options.model]

    def quantized(name: str) -> Callable[[], float]:
        return lambda: step_seconds(classifier(build(), data), data, all_at_once(quantizer_named(name)))

    runs: dict[str, Callable[[], float]] = {"float": lambda: step_seconds(classifier(build(), data), data)}
    runs |= {name: quantized(name) for name in options.quantizer}
    if find_spec("torchao") is None:
        print("PT2E is left out: torchao is not installed")
    else:
        runs["PT2E"] = lambda: step_seconds(classifier(pt2e(build(), data), data), data)
    times = interleaved(runs, options.rounds)
    print_medians(times, f"a step of {options.model} with {options.batch_size} images")
    for name in list(runs)[1:]:
        print(f"{name} / float: {ratio(times[name], times['float'])}")


if __name__ == "__main__":
    main()
