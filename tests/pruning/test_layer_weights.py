"""Which tensors count as weights, on layers of every kind."""

import torch
from torch import nn
from torch.nn.utils import parametrizations

from lightning_prune.pruning.layer_weights import depthwise_layers, layer_weights, trained_weights


def test_weights_of_all_layers_and_nothing_else() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 4))
            self.position = nn.Parameter(torch.zeros(1, 7, 4))

    model = nn.ModuleDict(
        {
            "conv": nn.Conv1d(3, 4, 3),
            "transposed": nn.ConvTranspose2d(3, 4, 3),
            "norm": nn.LayerNorm((4, 4)),
            "batch": nn.BatchNorm2d(4),
            "slope": nn.PReLU(4),
            "attention": nn.MultiheadAttention(4, 2),
            "recurrent": nn.LSTM(4, 5),
            "words": nn.Embedding(9, 4),
            "own": Own(),
            "frozen": nn.Linear(4, 4).requires_grad_(False),
        }
    )
    trained = [
        "conv.weight",
        "transposed.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "recurrent.weight_ih_l0",
        "recurrent.weight_hh_l0",
        "own.weight",
    ]
    assert list(trained_weights(model)) == trained
    assert list(layer_weights(model)) == [*trained, "frozen.weight"]


def test_what_is_tied_to_an_embedding_is_none() -> None:
    model = nn.ModuleDict({"head": nn.Linear(4, 9, bias=False), "words": nn.Embedding(9, 4)})
    model["head"].weight = model["words"].weight
    assert trained_weights(model) == {}


def test_looking_for_weights_changes_no_parametrization() -> None:
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 3)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert list(layer_weights(model)) == ["0.parametrizations.weight.original"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_depthwise_layers_are_known() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3, groups=2))
    assert depthwise_layers(model) == {"1"}
