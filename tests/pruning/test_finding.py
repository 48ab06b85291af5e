"""Which of a model can be pruned."""

from torch import nn
from torch.nn.utils import parametrizations

from lightning_prune.pruning.finding import weight_prunables
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.pruning.granularities.kernel import Kernel
from lightning_prune.pruning.layer_weights import trained_weights


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


def test_what_cannot_be_cut_is_told_with_the_reason() -> None:
    prunables, uncut = weight_prunables(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 2)), Kernel())
    assert [name for one in prunables for name in one.filters] == ["0.weight"]
    assert list(uncut) == ["2"]
    assert "(2, 3)" in uncut["2"]
