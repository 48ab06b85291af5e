"""Slim models give the outputs of the masked ones and are really smaller, whatever the model is built of."""

import copy
import logging
from dataclasses import dataclass

import pytest
import torch
from attention_networks import ATTENTION
from networks import (
    CONVOLUTIONAL,
    IMAGE,
    Case,
    Inputs,
    Net,
    as_tuple,
    conv,
    conv_bn,
    difference,
    mask,
    outputs,
    randomise,
    shapes,
)  # fmt: skip
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from lightning_prune.errors import InputError
from lightning_prune.models.resnet import ResNet, resnet20
from lightning_prune.slimming import couple
from lightning_prune.slimming.slim import slim
from lightning_prune.slimming.slim_files import load_slim, save_slim

CASES = {**CONVOLUTIONAL, **ATTENTION}


@dataclass(frozen=True)
class Slimmed:
    """A model, what it was before `slim`, and what `slim` made of it."""

    case: Case
    inputs: Inputs
    model: nn.Module
    before: nn.Module
    small: nn.Module
    log: str


@pytest.fixture(params=CASES, scope="module")
def slimmed(request) -> Slimmed:
    torch.manual_seed(0)
    case = CASES[request.param]
    model, inputs = randomise(case.build()), case.inputs()
    mask(model, couple(model, inputs).groups())
    for number, module in enumerate(model.modules()):
        module.training = number % 3 != 0
    before = copy.deepcopy(model)
    records: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("lightning_prune").addHandler(handler)
    small = slim(model, inputs)
    logging.getLogger("lightning_prune").removeHandler(handler)
    return Slimmed(case, inputs, model, before, small, " ".join(records))


def test_slim_model_gives_the_same_outputs(slimmed):
    assert difference(slimmed.model, slimmed.small, slimmed.inputs) < 1e-5
    assert ("relies on" in slimmed.log) == slimmed.case.relies


def test_slim_model_is_smaller(slimmed):
    found = shapes(slimmed.small)
    for name, shape in slimmed.case.expected.items():
        assert found.get(f"{name}.weight", found.get(name))[: len(shape)] == shape, name


def test_slim_model_survives_a_file(slimmed, tmp_path):
    save_slim(slimmed.small, tmp_path / "slim.pt")
    torch.load(tmp_path / "slim.pt", weights_only=True)
    loaded = load_slim(slimmed.case.build(), tmp_path / "slim.pt")
    assert str(loaded) == str(slimmed.small)  # the widths that modules state
    for mine, theirs in zip(outputs(loaded, slimmed.inputs), outputs(slimmed.small, slimmed.inputs), strict=True):
        assert torch.equal(mine, theirs)


def test_slim_model_trains(slimmed):
    small = copy.deepcopy(slimmed.small)
    with torch.compiler.set_stance("force_eager"):
        sum(out.square().sum() for out in tree_leaves(small(*as_tuple(slimmed.inputs)))).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in small.parameters())
    modes = [module.training for module in slimmed.before.modules()]
    assert [module.training for module in slimmed.small.modules()] == modes


def test_original_is_untouched(slimmed):
    model, before = slimmed.model, slimmed.before
    assert str(model) == str(before)
    assert [module.training for module in model.modules()] == [module.training for module in before.modules()]
    ours, theirs = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (model, before))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    mine = {tensor.data_ptr() for tensor in slimmed.small.parameters()}
    assert mine.isdisjoint(parameter.data_ptr() for parameter in model.parameters())


# Inputs, formats and states -------------------------------------------------------------------------------------------


def masked_resnet(fraction: float = 0.5) -> nn.Module:
    model = randomise(ResNet((1, 1, 1), (8, 16, 32), shortcut="B"))
    mask(model, couple(model, IMAGE()).groups(), fraction)
    return model


@pytest.mark.parametrize("example", [torch.zeros(2, 3, 8, 8), torch.randn(1, 3, 8, 8), torch.randn(3, 3, 16, 16)])
def test_any_example_input_serves(example):
    model = masked_resnet()
    small = slim(model, example)
    assert shapes(small)["layer3.0.conv2.weight"] == (16, 16, 3, 3)
    assert difference(model, small, torch.randn(4, 3, 12, 12)) < 1e-5


def test_example_input_for_which_outputs_are_nan_serves():
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.last(F.relu(net.first(x / x.norm())))

    model = Net(forward, first=conv(3, 8), last=conv(8, 4))
    mask(model, couple(model, IMAGE()).groups())
    small = slim(model, torch.zeros(2, 3, 8, 8))
    assert shapes(small)["first.weight"][0] == 4
    assert difference(model, small, IMAGE()) < 1e-5


def test_training_mode_and_random_state_stay():
    model = nn.Sequential(conv_bn(3, 8), nn.Dropout(0.5), conv(8, 4)).train()
    mask(model, couple(model, IMAGE()).groups())
    inputs = IMAGE()
    state = torch.get_rng_state()
    small = slim(model, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert small.training
    assert small[1].training
    assert difference(model, small, IMAGE()) < 1e-5


def test_slim_model_stays_as_it_is():
    small = slim(masked_resnet(), IMAGE())
    again = slim(small, IMAGE())
    assert shapes(again) == shapes(small)
    assert difference(small, again, IMAGE()) == 0


def test_dense_model_stays_as_it_is():
    model = randomise(resnet20())
    small = slim(model, IMAGE())
    assert shapes(small) == shapes(model)
    assert difference(model, small, IMAGE()) == 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 0.1)])
def test_number_formats(dtype, tolerance):
    model = masked_resnet().to(dtype)
    small = slim(model, IMAGE(dtype=dtype))
    assert shapes(small)["layer3.0.conv2.weight"] == (16, 16, 3, 3)
    assert {tensor.dtype for tensor in small.parameters()} == {dtype}
    assert difference(model, small, IMAGE(dtype=dtype)) < tolerance


def test_outputs_of_any_kind_are_compared():
    def forward(net: Net, x: Tensor) -> dict[str, object]:
        logits = net.last(F.relu(net.first(x)))
        limited = logits.masked_fill(logits > 0, float("-inf"))
        return {"class": logits.argmax(1), "sure": logits > 0, "limited": limited, "none": None, "number": 3}

    model = Net(forward, first=conv(3, 8), last=conv(8, 4))
    mask(model, couple(model, IMAGE()).groups())
    assert shapes(slim(model, IMAGE()))["first.weight"][0] == 4


def test_frozen_parameters_stay_frozen():
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 4))
    model[0].weight.requires_grad_(False)
    mask(model, couple(model, IMAGE()).groups())
    small = slim(model, IMAGE())
    assert [parameter.requires_grad for parameter in small.parameters()] == [False, True, True, True]
    assert isinstance(small[0].weight, nn.Parameter)


class Rounded(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return (weight * 16).round() / 16


def test_parametrized_weights_are_cut_where_they_are_stored():
    model = randomise(nn.Sequential(conv_bn(3, 8), conv_bn(8, 8, groups=8), conv(8, 4)))
    for layer in (model[0][0], model[1][0]):
        nn.utils.parametrize.register_parametrization(layer, "weight", Rounded())
    groups = couple(model, IMAGE()).groups()
    assert [group.layers for group in groups] == [["0.0", "1.0"]]
    mask(model, groups)
    small = slim(model, IMAGE())
    assert shapes(small)["1.0.parametrizations.weight.original"] == (4, 1, 3, 3)
    assert difference(model, small, IMAGE()) < 1e-5


def test_masks_of_torch_prune_are_understood():
    model = randomise(nn.Sequential(conv_bn(3, 8), conv(8, 4)))
    nn.utils.prune.ln_structured(model[0][0], "weight", amount=4, n=2, dim=0)
    gone = ~model[0][0].weight_mask.bool().flatten(1).any(1)
    with torch.no_grad():
        model[0][1].weight[gone] = model[0][1].bias[gone] = 0
    small = slim(model, IMAGE())
    assert shapes(small)["0.0.weight_orig"] == (4, 3, 3, 3)
    with torch.no_grad():
        assert torch.allclose(small.eval()(IMAGE()) * 0 + 1, torch.ones(2, 4, 8, 8))


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["conv1", "layer2.0.bn1", "fc"])
def test_diverged_weights_are_refused(layer):
    model = masked_resnet()
    with torch.no_grad():
        model.get_submodule(layer).weight[-1] = float("nan")
    with pytest.raises(InputError, match="finite outputs, got NaN"):
        slim(model, IMAGE())


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(2, 4, 8, 8), r"ResNet.forward to be traceable .* shape \(2, 4, 8, 8\)"),
        ([torch.zeros(2, 3, 8, 8)], "a tensor or a tuple of tensors, got list"),
        ((torch.zeros(2, 3, 8, 8), 1), "got Tensor, int"),
        ((), "got an empty tuple"),
    ],
)
def test_wrong_example_input_is_refused(example, message):
    with pytest.raises(InputError, match=message) as error:
        slim(ResNet((1, 1, 1)), example)
    assert "\n" not in str(error.value)


def test_model_without_parameters_is_refused():
    with pytest.raises(InputError, match="a model with parameters, got ReLU without any"):
        slim(nn.ReLU(), IMAGE())


def test_control_flow_on_values_is_refused():
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.layer(x) if x.sum() > 0 else x

    with pytest.raises(InputError, match=r"Net\.forward to do the same whatever .* in Net, line \d+ of test_slim.py"):
        slim(Net(forward, layer=conv(3, 3)), IMAGE())
