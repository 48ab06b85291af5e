"""Which tensors count as weights, on layers of every kind."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lightning_prune.errors import InputError
from lightning_prune.pruning.finding import weight_prunables
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.pruning.granularities.kernel import Kernel
from lightning_prune.pruning.layer_weights import depthwise_layers, layer_weights, trained_weights
from lightning_prune.pruning.selection import put_first, select_alone, select_together


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


def test_parametrized_layers_give_the_stored_tensor_of_the_weight_s_shape() -> None:
    model = nn.ModuleDict(
        {
            "normed": parametrizations.weight_norm(nn.Linear(4, 3)),
            "spectral": parametrizations.spectral_norm(nn.Conv2d(2, 3, 3)),
        }
    )
    assert list(trained_weights(model)) == [
        "normed.parametrizations.weight.original1",
        "spectral.parametrizations.weight.original",
    ]
    prunables, _ = weight_prunables(model, Element())
    assert [one.layers for one in prunables] == [["normed"], ["spectral"]]


def test_looking_for_weights_changes_no_parametrization() -> None:
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 3)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert list(layer_weights(model)) == ["0.parametrizations.weight.original"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_depthwise_layers_are_known() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3, groups=2))
    assert depthwise_layers(model) == {"1"}


def test_what_cannot_be_cut_is_told_with_the_reason() -> None:
    prunables, uncut = weight_prunables(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 2)), Kernel())
    assert [name for one in prunables for name in one.filters] == ["0.weight"]
    assert list(uncut) == ["2"]
    assert "(2, 3)" in uncut["2"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_gone_goes_first_and_other_scores_stay_bit_by_bit(dtype: torch.dtype) -> None:
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    scores[:4] = torch.tensor([0.0, -1e38, 1e38, 1e-38])
    kept = torch.arange(1000) % 3 > 0
    wanted = scores.masked_fill(~kept, -torch.inf)
    for mask in (kept, kept.float()):
        own = scores.clone()
        put_first(own, mask)
        assert torch.equal(own, wanted)


def test_runs_lose_the_same_and_what_may_not_go_stays() -> None:
    scores = torch.tensor([1.0, 2, 3, 4, 10, 20, 30, 40])
    free = torch.tensor([True, True, True, True, False, False, True, True])
    one = select_alone(scores, 4)
    two = select_alone(scores, 2, runs=2)
    three = select_alone(scores, 6, free)
    four = select_alone(scores, 7, free)
    assert one.int().tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert two.int().tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert three.int().tolist() == [1, 1, 1, 1, 0, 0, 1, 1]
    assert torch.equal(four, three)


def test_a_layer_at_its_floor_leaves_the_rest_to_others() -> None:
    scores = [torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([1.0, 2, 3, 4]), torch.tensor([5.0, 6, 7, 8])]
    pruned = select_together(scores, 0.5, [None] * 3, floor=0.25)
    assert [one.int().tolist() for one in pruned] == [[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    with pytest.raises(InputError, match=r"at most 0\.5000"):
        select_together(scores, 0.6, [None] * 3, floor=0.5)
