"""Networks of other libraries: what reaches their constructors, and what is said when they cannot be had."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.models.huggingface_network import huggingface_network
from lightning_prune.models.timm_network import timm_network
from lightning_prune.models.torchvision_network import torchvision_network

LIBRARIES: list[tuple[Callable[..., nn.Module], str, str]] = [
    (torchvision_network, "torchvision", "torchvision"),
    (timm_network, "timm", "timm"),
    (huggingface_network, "transformers", "huggingface"),
]
every_library = pytest.mark.parametrize(("build", "library", "extra"), LIBRARIES, ids=[row[1] for row in LIBRARIES])


def refusal(build: Callable[..., nn.Module], *args: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        build(*args, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@every_library
def test_a_missing_library_is_named_with_the_extra_that_installs_it(
    build: Callable[..., nn.Module], library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    expected = (
        f'library {library}, got none in this environment; install it with pip install "lightning-prune[{extra}]"'
    )
    assert expected in refusal(build, "resnet18")


@every_library
def test_a_library_that_cannot_be_imported_is_named_with_the_reason(
    build: Callable[..., nn.Module], library: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / f"{library}.py").write_text("raise RuntimeError('operator nms does not exist\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    text = refusal(build, "resnet18")
    assert "got RuntimeError: operator nms does not exist more;" in text
    assert f"[{extra}]" in text


# Stand-ins, so that this is tested where the libraries are not installed


class Net(nn.Module):
    """Map images of three channels, or as many as timm is told, to classes; remember what else came."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, **others: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_chans, 4, 3, padding=1)
        self.head = nn.Linear(4, num_classes)
        self.others = others

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stem(x).mean((2, 3)))
        return logits


def get_model(name: str, weights: str | None, **options: Any) -> Net:
    net = Net(**options)
    if weights is not None:
        for parameter in net.parameters():
            nn.init.constant_(parameter, {"IMAGENET1K_V1": 1.0, "DEFAULT": 2.0}[weights])
    return net


class Weights:
    """As torchvision's enumerations are: names in `__members__`, and looked up by name."""

    __members__ = ("IMAGENET1K_V1", "DEFAULT")

    def __getitem__(self, name: str) -> str:
        return name


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    names = ["resnet18", "resnet34", "vgg11"]
    models = SimpleNamespace(
        list_models=lambda module: names, get_model=get_model, get_model_weights=lambda name: Weights()
    )
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    return models


@pytest.mark.usefixtures("torchvision")
def test_torchvision_gets_its_arguments_under_its_own_names() -> None:
    network = torchvision_network("resnet18", 5, dropout=0.25)
    assert isinstance(network, Net)
    assert network.head.out_features == 5
    assert network.others == {"dropout": 0.25}


@pytest.mark.usefixtures("torchvision")
def test_a_gray_image_gives_what_it_gives_in_three_equal_channels() -> None:
    images = torch.randn(2, 1, 6, 6)
    torch.manual_seed(3)
    gray = torchvision_network("resnet18", 5, in_channels=1)
    torch.manual_seed(3)
    rgb = torchvision_network("resnet18", 5, in_channels=3)
    torch.testing.assert_close(gray(images), rgb(images.expand(-1, 3, -1, -1)))


@pytest.mark.usefixtures("torchvision")
def test_six_channels_that_repeat_three_give_what_those_give() -> None:
    images = torch.randn(2, 3, 6, 6)
    torch.manual_seed(3)
    six = torchvision_network("resnet18", 5, in_channels=6)
    torch.manual_seed(3)
    rgb = torchvision_network("resnet18", 5, in_channels=3)
    torch.testing.assert_close(six(images.repeat(1, 2, 1, 1)), rgb(images))


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(("pretrained", "value"), [(True, 2), ("IMAGENET1K_V1", 1)])
def test_pretrained_weights_are_kept_but_for_a_last_layer_of_other_classes(pretrained: bool | str, value: int) -> None:
    state = torchvision_network("resnet18", 5, pretrained=pretrained).state_dict()
    assert {name for name, tensor in state.items() if (tensor == value).all()} == {"stem.weight", "stem.bias"}
    assert state["head.weight"].shape == (5, 4)
    whole = torchvision_network("resnet18", 1000, pretrained=pretrained)
    assert all((parameter == value).all() for parameter in whole.parameters())


@pytest.mark.usefixtures("torchvision")
def test_torchvision_names_what_is_spelled_nearly_so() -> None:
    assert "got 'resnet3'; near it are resnet34, resnet18" in refusal(torchvision_network, "resnet3")
    assert "got 'zzz'; there are resnet18, resnet34, vgg11, .." in refusal(torchvision_network, "zzz")
    text = refusal(torchvision_network, "vgg11", pretrained="IMAGENET1K_V2")
    assert text.startswith("model.pretrained: expected true, false or weights of vgg11, got 'IMAGENET1K_V2'; near it")


def test_torchvision_without_a_network_says_so(torchvision: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, weights: str | None, **options: Any) -> Net:
        if weights is not None:
            raise URLError("Name or service not known")
        return Net(**options)

    monkeypatch.setattr(torchvision, "get_model", offline)
    text = refusal(torchvision_network, "vgg11", pretrained=True)
    assert text.startswith("model.pretrained: expected to download the weights of vgg11, got Name or service not known")


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    def create_model(name: str, pretrained: bool, **options: Any) -> Net:
        return Net(name=name, pretrained=pretrained, **options)

    library = SimpleNamespace(
        list_models=lambda: ["resnet18", "resnet34"],
        is_model=lambda name: name.partition(".")[0] in ("resnet18", "resnet34"),
        is_model_pretrained=lambda name: name.startswith("resnet18"),
        create_model=create_model,
    )
    monkeypatch.setitem(sys.modules, "timm", library)
    return library


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k", "hf-hub:somebody/something"])
def test_timm_gets_its_arguments_under_its_own_names(name: str) -> None:
    network = timm_network(name, 5, 1, pretrained=True, drop_rate=0.1)
    assert isinstance(network, Net)
    assert network.others == {"name": name, "pretrained": True, "drop_rate": 0.1}
    assert network(torch.zeros(2, 1, 6, 6)).shape == (2, 5)


def test_timm_refuses_in_one_line(timm: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "got 'resnet3'; near it are resnet34, resnet18" in refusal(timm_network, "resnet3")
    assert "timm has no weights of resnet34" in refusal(timm_network, "resnet34", pretrained=True)

    def offline(name: str, pretrained: bool, **options: Any) -> Net:
        raise FileNotFoundError("no cached file\nand no network")

    monkeypatch.setattr(timm, "create_model", offline)
    assert "expected to find hf-hub:a/b" in refusal(timm_network, "hf-hub:a/b")
