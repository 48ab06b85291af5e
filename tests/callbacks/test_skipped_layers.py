"""Which layers stay dense, in networks of all kinds."""

from typing import Any

import pytest
import torch
from gradual_net import Net, fitted
from lightning.pytorch import LightningModule
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import ADMMPruning, GradualPruning
from lightning_prune.errors import InputError
from lightning_prune.models import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.pruning.finding import skipped_layers
from lightning_prune.pruning.granularities.channel import Channel

DEFAULT = ("first", "depthwise")


def encoder(width: int = 8) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, 2, 16, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class Words(nn.Module):
    """A transformer on words: an embedding, blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.encoder, self.head = nn.Embedding(20, 8), encoder(), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(x)).mean(1))


class Series(Words):
    """A transformer on numbers: a linear layer reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(3, 8)


class Raw(nn.Module):
    """A transformer whose first block reads the input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = encoder(), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


class SelfAttention(nn.Module):
    """Attention as people write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        return x + self.out((query @ key.mT).softmax(-1) @ value)


class Vision(nn.Module):
    """A vision transformer: patches, a class token, positions, blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.zeros(1, 17, 8))
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.blocks = nn.Sequential(SelfAttention(8), SelfAttention(8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.positions
        return self.head(self.blocks(tokens)[:, 0])


class AttentionNet(nn.Module):
    """A network that is called by what it has, all of it directly."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.query, self.key = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 8)


class Lit(LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


@pytest.mark.parametrize("wrap", [lambda net: net, Lit], ids=["alone", "in a LightningModule"])
@pytest.mark.parametrize(
    ("build", "first"),
    [
        (Words, None),
        (Series, "embedding"),
        (Raw, None),
        (Vision, "patches"),
        (lambda: nn.Sequential(SelfAttention(8), nn.Linear(8, 2)), None),
        (AttentionNet, "embed"),
        (digits_resnet, "conv1"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 2)), "1"),
    ],
)
def test_the_first_layer_is_what_reads_the_input(build: Any, first: str | None, wrap: Any) -> None:
    model = wrap(build())
    prefix = "net." if isinstance(model, Lit) else ""
    assert skipped_layers(model, DEFAULT, coupled=False) == (set() if first is None else {prefix + first})


@pytest.mark.parametrize(
    ("net", "inputs"),
    [(Words(), torch.randint(20, (8, 5))), (Vision(), torch.randn(8, 3, 8, 8))],
)
def test_the_first_attention_of_a_transformer_is_pruned_like_the_others(net: nn.Module, inputs: Tensor) -> None:
    module = Lit(net)
    data = DataLoader(TensorDataset(inputs, torch.randint(2, (8,))), batch_size=4)
    quiet_trainer(GradualPruning(0.5), max_epochs=4).fit(module, data)
    weights = {name: p for name, p in module.named_parameters() if p.ndim > 1 and "weight" in name}
    dense = {name for name, weight in weights.items() if (weight != 0).all()}
    assert dense == ({"net.embedding.weight"} if isinstance(net, Words) else {"net.patches.weight"})


@pytest.mark.parametrize(
    ("skip", "expected"),
    [
        (("layer2.*",), {"network.layer2.0.conv1", "network.layer2.0.conv2", "network.layer2.0.downsample.0"}),
        (("network.fc",), {"network.fc"}),
        (("first", "fc", "*2.*.downsample.*"), {"network.conv1", "network.fc", "network.layer2.0.downsample.0"}),
        (("last",), {"network.fc"}),
        ((), set()),
    ],
)
def test_layers_are_skipped_by_their_names(skip: tuple[str, ...], expected: set[str]) -> None:
    assert skipped_layers(ImageClassifier(digits_resnet(), 10), skip, coupled=False) == expected


@pytest.mark.parametrize("method", [GradualPruning, ADMMPruning])
def test_skipped_by_name_stays_dense(method: Any) -> None:
    module = fitted(method(0.5, skip=["mid*", "head"]))
    zeros = {
        name: bool((module.get_parameter(f"{name}.weight") == 0).any()) for name in ("stem", "middle", "last", "head")
    }
    assert zeros == {"stem": True, "middle": False, "last": True, "head": False}


def test_channels_coupled_with_a_skipped_layer_stay() -> None:
    module = fitted(GradualPruning(0.5, granularity=Channel(), skip=["middle"], example_input=torch.zeros(2, 3, 8, 8)))
    assert (module.middle.weight != 0).flatten(1).any(1).all()
    assert not (module.stem.weight != 0).flatten(1).any(1).all()


@pytest.mark.parametrize("skip", [["midle"], ["middle.weight"], ["first", "layer1.*"]])
def test_a_pattern_of_no_layer_is_refused_before_training(skip: list[str]) -> None:
    with pytest.raises(
        InputError, match=r"skip\[.*\] to match first, last, depthwise or .*, got no match among .*middle"
    ):
        fitted(GradualPruning(0.5, skip=skip), module=Net())
