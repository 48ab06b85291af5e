"""Which layers are meant by a pattern, with and without the modules around everything."""

import pytest
from torch import nn

from lightning_prune.errors import InputError
from lightning_prune.graph import LayerPatterns, by_layer
from lightning_prune.models import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet


def around(**modules: nn.Module) -> nn.Module:
    model = nn.Module()
    for name, module in modules.items():
        model.add_module(name, module)
    return model


BODY = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("model", "layer", "meant", "others"),
    [
        (ImageClassifier(digits_resnet(), 10), "network.layer1.0.conv1", ("layer1.*", "network.layer1.*"), ("1.*",)),
        (around(outer=around(net=BODY)), "outer.net.0", ("0", "net.0", "outer.net.0", "net.*"), ("1", "outer.0")),
        (around(net=BODY, relu=nn.ReLU()), "net.1", ("1",), ("0",)),  # what has no parameters is not looked at
        (around(net=BODY, head=nn.Linear(2, 2)), "net.1", ("net.1", "*.1"), ("1",)),
        (BODY, "0", ("0", "*"), ("1",)),
    ],
)
def test_what_tells_no_layer_from_another_can_be_left_out(
    model: nn.Module, layer: str, meant: tuple[str, ...], others: tuple[str, ...]
) -> None:
    patterns = LayerPatterns(model)
    assert [patterns.match(pattern, layer) for pattern in meant] == [True] * len(meant)
    assert [patterns.match(pattern, layer) for pattern in others] == [False] * len(others)


def test_the_first_pattern_counts_however_it_is_written() -> None:
    layers = ["net.0", "net.1"]
    patterns = LayerPatterns(around(net=BODY))
    assert by_layer("sparsity", {"0": 0.1, "net.*": 0.2}, layers, patterns) == {"net.0": 0.1, "net.1": 0.2}
    assert by_layer("sparsity", {"net.*": 0.2, "0": 0.1}, layers, patterns) == {"net.0": 0.2, "net.1": 0.2}


def test_a_pattern_of_no_layer_is_refused_with_the_names_most_like_it() -> None:
    layers = [f"network.layer{stage}.0.conv{number}" for stage in range(1, 7) for number in (1, 2)]
    with pytest.raises(InputError, match=r"strength\[layr6.*conv2\] to match a layer, got .* network.layer6.0.conv2, "):
        LayerPatterns(nn.Module()).check("strength[layr6*conv2]", "layr6*conv2", layers)
