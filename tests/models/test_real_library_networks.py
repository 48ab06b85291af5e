"""Networks of torchvision, timm and transformers, where they are installed: built, trained, pruned and slimmed."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import difference, randomise
from quiet_trainer import quiet_trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import QuantizationAwareTraining, SoftFilterPruning, prunable_groups, slim
from lightning_prune.errors import InputError
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.huggingface_network import huggingface_network
from lightning_prune.models.timm_network import timm_network
from lightning_prune.models.torchvision_network import torchvision_network
from lightning_prune.quantization import dequantize
from lightning_prune.reporting.profiling import profile

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
]

VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 4,
}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic"}
CONVNEXT = {"hidden_sizes": [8, 16], "depths": [1, 1], "patch_size": 2, "num_stages": 2}

HUGGINGFACE: dict[str, dict[str, Any]] = {"vit": VIT, "resnet": RESNET, "convnext": CONVNEXT}


def network_of(library: str, name: str, **options: Any) -> nn.Module:
    """Build a small network of a library for seven classes and images of one channel."""
    if library == "huggingface":
        pytest.importorskip("transformers")
        return huggingface_network(name, 7, 1, **{**HUGGINGFACE[name], **options})
    pytest.importorskip(library)
    return {"torchvision": torchvision_network, "timm": timm_network}[library](name, 7, 1, **options)


CASES = [
    ("torchvision", "mobilenet_v3_small"),
    ("timm", "resnet10t"),
    *(("huggingface", name) for name in HUGGINGFACE),
]
every_network = pytest.mark.parametrize(("library", "name"), CASES)


def size_of(library: str) -> int:
    return 16 if library == "huggingface" else 32


@every_network
def test_channels_that_are_masked_can_be_cut_out(library: str, name: str) -> None:
    network = network_of(library, name).eval()
    images = torch.randn(2, 1, size_of(library), size_of(library))
    masked = randomise(copy.deepcopy(network))
    groups = prunable_groups(network, images)
    assert len(groups) > 0
    for group in groups:
        group.zero(masked, torch.randperm(group.size)[: max(1, group.size // 2)])
    small = slim(masked, images)
    assert difference(masked, small, torch.randn_like(images)) < 1e-5
    assert profile(small, images).parameters < profile(network, images).parameters


@every_network
def test_a_callback_prunes_it_while_it_trains(library: str, name: str) -> None:
    module = ImageClassifier(network_of(library, name), 7)
    images = torch.randn(8, 1, size_of(library), size_of(library))
    module.example_input_array = images[:2]
    loader = DataLoader(TensorDataset(images, torch.arange(8) % 7), batch_size=4)
    quiet_trainer(SoftFilterPruning(sparsity=0.5)).fit(module, loader, loader)
    masked = profile(module, images[:2])
    assert masked.nonzeros < masked.parameters
    assert profile(slim(module, images[:2]), images[:2]).parameters < masked.parameters


@pytest.mark.parametrize("name", HUGGINGFACE)
def test_models_of_transformers_learn_with_rounded_numbers(name: str) -> None:
    module = ImageClassifier(network_of("huggingface", name), 7)
    images = torch.randn(8, 1, 16, 16)
    module.example_input_array = images[:2]
    loader = DataLoader(TensorDataset(images, torch.arange(8) % 7), batch_size=4)
    quiet_trainer(QuantizationAwareTraining()).fit(module, loader, loader)
    assert len(dequantize(module).state_dict()) == len(ImageClassifier(network_of("huggingface", name), 7).state_dict())


def test_torchvision_builds_what_torchvision_builds() -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    ours = torchvision_network("mobilenet_v3_small", 7, dropout=0.3)
    torch.manual_seed(0)
    theirs = models.mobilenet_v3_small(num_classes=7, dropout=0.3)
    assert str(ours) == str(theirs)
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small"])
def test_pretrained_torchvision_networks_differ_in_the_classes_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pytest.importorskip("torchvision.models")
    published = models.get_model(name, weights=None)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: published.state_dict())
    ours = torchvision_network(name, 7, pretrained=True)
    state, other = ours.state_dict(), published.state_dict()
    assert list(state) == list(other)
    changed = [key for key, tensor in state.items() if not torch.equal(tensor, other[key])]
    assert len(changed) == 2
    assert {len(state[key]) for key in changed} == {7}
    assert ours.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 7)


def test_every_classifier_of_torchvision_reads_its_images_with_its_first_convolution() -> None:
    models = pytest.importorskip("torchvision.models")
    for name in ("alexnet", "convnext_tiny", "densenet121", "mnasnet0_5", "squeezenet1_1", "efficientnet_b0"):
        with torch.device("meta"):
            network = models.get_model(name, weights=None)
        convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
        assert [layer.in_channels == 3 for layer in convolutions] == [True] + [False] * (len(convolutions) - 1), name


@pytest.mark.parametrize("name", HUGGINGFACE)
def test_models_of_transformers_give_their_logits(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    network = network_of("huggingface", name).eval()
    images = torch.randn(2, 1, 16, 16)
    logits = network(images)
    assert logits.shape == (2, 7)
    network.model.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(theirs(pixel_values=images).logits, logits)
    again = huggingface_network(str(tmp_path), 7, 1, pretrained=True)
    assert all(module.training for module in again.modules())
    assert torch.equal(again.eval()(images), logits)
    again.load_state_dict(network.state_dict())


def test_pretrained_weights_of_transformers_stay_but_for_other_classes(tmp_path: Path) -> None:
    network = network_of("huggingface", "vit")
    network.model.half().save_pretrained(tmp_path)
    other = huggingface_network(str(tmp_path), 5, 1, pretrained=True)
    kept = {
        key: torch.equal(tensor, network.state_dict()[key].float())
        for key, tensor in other.state_dict().items()
        if tensor.shape == network.state_dict()[key].shape
    }
    assert all(kept.values())
    assert {*other.state_dict()} - {*kept} == {"model.classifier.weight", "model.classifier.bias"}
    assert {parameter.dtype for parameter in other.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"name": "vit", "hidden_sizes": 3},
            "model.hidden_sizes: expected an entry .* of vit, .*near it are hidden_size",
        ),
        (
            {"name": "vit", "auto_class": "AutoModelForImageClasification"},
            "model.auto_class: .*AutoModelForImageClassification",
        ),
        ({"name": "bert"}, "model.name: .* says: Unrecognized configuration class"),
        ({"name": "vit", "image_size": "large"}, "model.name: .* 'vit', of which .* says: .*image_size"),
        (
            {"name": "bert", "in_channels": 1},
            "model: expected a model that says how many channels it reads, got 'bert'",
        ),
    ],
)
def test_what_transformers_cannot_build_is_refused_in_one_line(arguments: dict[str, Any], expected: str) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(InputError, match=expected) as caught:
        huggingface_network(**arguments)
    assert "\n" not in str(caught.value)


def test_folders_without_a_model_are_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(InputError, match=r"model\.name: expected a model on huggingface.co, a folder") as caught:
        huggingface_network(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_networks_that_timm_does_not_know_are_refused_in_one_line() -> None:
    pytest.importorskip("timm")
    with pytest.raises(InputError, match=r"model\.name: .*got 'resnet5'; near it are resnet50") as caught:
        timm_network("resnet5")
    assert "\n" not in str(caught.value)
