"""Networks by name: this package's own, and those of torchvision and timm where these are installed.

To be imported before Lightning, which imports torchvision when it finds it: that fails beside a build of torch for
which torchvision's compiled operators are not made, unless somebody has said what these operators are called.
"""

from importlib.util import find_spec
from inspect import signature
from pathlib import Path

import torch


def declare_operators() -> torch.library.Library | None:
    """Name the operators of torchvision that its Python code needs, if its compiled code does not load."""
    found = find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        return None
    try:
        for library in Path(found.submodule_search_locations[0]).glob("_C*.so"):
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        operators = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        return operators
    return None


TORCHVISION_OPERATORS = declare_operators()
"""Alive as long as the operators shall be."""

from benchmark_int8 import MODELS  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from lightning_prune.errors import InputError  # noqa: E402


def architecture(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network in eval mode, with random weights, and two images of the size that it is made for.

    Args:
        name: `resnet56` for one of this package, `torchvision:resnet50` or `timm:resnet50d`.

    Raises:
        InputError: If there is none of this name.
    """
    library, _, its_name = name.rpartition(":")
    if library and (library not in ("torchvision", "timm") or find_spec(library) is None):
        raise InputError(f"expected torchvision:NAME or timm:NAME, of what is installed, got {name}")
    if not library and name not in MODELS:
        raise InputError(f"expected torchvision:NAME, timm:NAME or one of {', '.join(MODELS)}, got {name}")
    torch.manual_seed(0)
    size = (3, 32, 32)
    if library == "torchvision":
        import torchvision

        size = (3, 299, 299) if its_name == "inception_v3" else (3, 224, 224)
        build = torchvision.models.get_model_builder(its_name)
        none_of = {"weights", "weights_backbone"} & set(signature(build).parameters)
        model = build(**dict.fromkeys(none_of))
    elif library == "timm":
        import timm

        model = timm.create_model(its_name)
        size = model.default_cfg["input_size"]
    else:
        model = MODELS[its_name]()
    enliven(model)
    return model.eval(), torch.randn(2, *size)


@torch.no_grad()
def enliven(model: nn.Module) -> None:
    """Make a fresh network no special case: none of its normalizations, biases and layer scales leave all as it is."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine and module.track_running_stats:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for parameter in model.parameters():
        if parameter.numel() and float(parameter.abs().max()) < 1e-2:
            nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.1)
