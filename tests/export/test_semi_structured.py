"""2:4 weights are checked, fit torch's own layout, and take it only where that is measured to be faster."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.sparse import SparseSemiStructuredTensorCUSPARSELT, SparseSemiStructuredTensorCUTLASS
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from lightning_prune.errors import InputError
from lightning_prune.export import semi_structured
from lightning_prune.export.semi_structured import (
    FASTER,
    check_n_m,
    record_inputs,
    replace_where_faster,
    to_semi_structured,
)
from lightning_prune.pruning.granularities.n_m import NM

TWO_OF_FOUR = NM(2, 4)


@torch.no_grad()
def prune(model: nn.Module) -> nn.Module:
    """Prune every weight 2:4 by magnitude, with the granularity's own masks."""
    for weight in model.parameters():
        if weight.ndim > 1:
            gone = TWO_OF_FOUR.removable(weight.abs().reshape(-1), weight.shape)
            weight.mul_(~gone.view_as(weight))
    return model


def round_trip(weight: Tensor) -> Tensor:
    return sparse_semi_structured_to_dense_cutlass(*sparse_semi_structured_from_dense_cutlass(weight))


# The check ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pruned_weights_fit_the_layout_of_torch_to_the_last_bit(dtype: torch.dtype) -> None:
    layer = nn.Linear(256, 96).to(dtype)
    assert not torch.equal(round_trip(layer.weight.detach()), layer.weight)  # torch drops what is too much, silently
    with pytest.raises(InputError, match="expected at most 2 non-zeros"):
        check_n_m("weight", layer.weight, TWO_OF_FOUR)
    prune(layer)
    check_n_m("weight", layer.weight, TWO_OF_FOUR)
    assert int(layer.weight.count_nonzero()) == 96 * 256 // 2
    assert torch.equal(round_trip(layer.weight.detach()), layer.weight)


def test_pruned_integers_fit_the_layout_of_torch() -> None:
    weight = (40 * prune(nn.Linear(256, 32)).weight.detach() * 16).round().to(torch.int8)
    check_n_m("weight", weight, TWO_OF_FOUR)
    assert weight.count_nonzero() > 0
    assert torch.equal(round_trip(weight), weight)


@pytest.mark.parametrize("backend", [SparseSemiStructuredTensorCUTLASS, SparseSemiStructuredTensorCUSPARSELT])
def test_every_number_of_non_zeros_up_to_two_passes_the_check_and_torch(backend: type) -> None:
    rows, columns = 32, 64  # the smallest that both take in float16
    sizes = backend._DTYPE_SHAPE_CONSTRAINTS[torch.float16]
    assert rows % sizes.sparse_min_rows == columns % sizes.sparse_min_cols == 0
    patterns = torch.tensor([[int(bit) for bit in f"{number:04b}"] for number in range(16)])
    for pattern in patterns:
        weight = (pattern.repeat(rows, columns // 4) * torch.arange(1.0, 1 + columns)).half()
        if pattern.sum() <= 2:
            check_n_m("weight", weight, TWO_OF_FOUR)
            assert torch.equal(round_trip(weight), weight)
        else:
            with pytest.raises(InputError, match=f"got {int(pattern.sum())} at output 0, inputs 0 to 3;"):
                check_n_m("weight", weight, TWO_OF_FOUR)


def test_the_first_violation_is_named_by_path_and_place() -> None:
    weight = torch.zeros(6, 16, 3, 3)
    weight[4, 8:11, 1, 2] = 1.0
    with pytest.raises(InputError) as caught:
        check_n_m("layer1.conv.weight", weight, TWO_OF_FOUR)
    assert str(caught.value) == (
        "expected at most 2 non-zeros in each 4 consecutive inputs of layer1.conv.weight, got 3 at output 4, inputs "
        "8 to 11, kernel position (1, 2); prune it 2:4 first"
    )
    check_n_m("layer1.conv.weight", weight, NM(4, 8))
    weight[4, 8:11, 1, 2] = torch.tensor([1.0, 0.0, 1.0])
    weight[4, 8:11, 2, 2] = torch.tensor([1.0, 1.0, 0.0])  # neighbours in space are not in one group
    check_n_m("layer1.conv.weight", weight, TWO_OF_FOUR)


def test_weights_without_groups_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"expected stem.weight with a multiple of 4 inputs.*got shape \(16, 3, 3, 3\)"
    ):
        check_n_m("stem.weight", torch.zeros(16, 3, 3, 3), TWO_OF_FOUR)
    with pytest.raises(InputError, match=r"expected bias .*got shape \(4,\)"):
        check_n_m("bias", torch.zeros(4), TWO_OF_FOUR)


# The decision ---------------------------------------------------------------------------------------------------------


class FirstColumns(nn.Module):
    """A linear layer of which only the first inputs count: honestly faster, and exact where the others are zero."""

    def __init__(self, layer: nn.Linear, columns: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(layer.weight[:, :columns].detach().clone()), layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x[..., : self.weight.shape[1]], self.weight, self.bias)


def test_a_layer_is_replaced_where_its_alternative_is_measured_faster_and_stays_where_it_is_slower() -> None:
    model = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024))
    with torch.no_grad():
        model[0].weight[:, 8:] = 0
    dense, x = copy.deepcopy(model), torch.randn(256, 512)

    def alternatives(name: str, layer: nn.Module, x: Tensor) -> list[nn.Module]:
        if name == "0":
            return [nn.Sequential(layer, nn.Identity()), FirstColumns(layer, 8)]
        return [nn.Sequential(layer, nn.Linear(1024, 1024))]

    speedups = replace_where_faster(model, record_inputs(model, x), alternatives, seconds=0)
    assert list(speedups) == ["0", "2"]
    assert speedups["0"] > FASTER
    assert speedups["2"] < 1
    assert [type(layer) for layer in model] == [FirstColumns, nn.ReLU, nn.Linear]
    torch.testing.assert_close(model(x), dense(x))


def test_a_layer_used_under_two_names_is_replaced_under_both() -> None:
    layer = nn.Linear(512, 512)
    model = nn.Sequential(layer, nn.ReLU(), layer)

    def alternatives(name: str, layer: nn.Module, x: Tensor) -> list[nn.Module]:
        return [FirstColumns(layer, 4)]

    replace_where_faster(model, record_inputs(model, torch.randn(256, 512)), alternatives, seconds=0)
    assert model[0] is model[2]
    assert isinstance(model[0], FirstColumns)


def test_the_reason_is_given_when_no_layer_has_an_alternative() -> None:
    def alternatives(name: str, layer: nn.Module, x: Tensor) -> list[nn.Module]:
        raise InputError(f"expected better of {name}")

    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with pytest.raises(InputError, match="expected better of 0"):
        replace_where_faster(model, record_inputs(model, torch.randn(2, 8)), alternatives, seconds=0)


def test_inputs_of_linear_layers_and_pointwise_convolutions_are_recorded() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)  # reads the weights of its linear layer, never calls it
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(8, 8, 3, padding=1),
            "point": nn.Conv2d(8, 16, 1, stride=2),
            "depth": nn.Conv2d(8, 8, 1, groups=8),
            "padded": nn.Conv2d(8, 8, 1, padding=1),
            "unused": nn.Linear(8, 8),
            "attention": attention,
            "head": nn.Linear(16, 4),
        }
    )

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model

        def forward(self, x: Tensor) -> Tensor:
            x = self.parts["padded"](self.parts["depth"](self.parts["conv"](x)))
            tokens = x.flatten(2).transpose(1, 2)
            self.parts["attention"](tokens, tokens, tokens)
            return self.parts["head"](self.parts["point"](x).mean(dim=(2, 3)))

    net = Net()
    inputs = record_inputs(net, torch.randn(2, 8, 6, 6))
    assert {name: tuple(x.shape) for name, x in inputs.items()} == {"parts.point": (2, 8, 8, 8), "parts.head": (2, 16)}
    assert net.training
    assert not any(module._forward_pre_hooks for module in net.modules())
    with pytest.raises(InputError, match="calls linear layers or 1x1 convolutions, got Sequential"):
        record_inputs(nn.Sequential(nn.Conv2d(8, 8, 3)), torch.randn(2, 8, 6, 6))


# The layers, packed by torch on the CPU, with a dense product in place of the kernel ----------------------------------


class OnCpu(SparseSemiStructuredTensorCUTLASS):
    """Torch's tensor class, packing and dispatch as they are, without the kernel and the check of the device."""

    @classmethod
    def _validate_device_dim_dtype_shape(cls, original_tensor: Tensor) -> None:
        sizes = cls._DTYPE_SHAPE_CONSTRAINTS[original_tensor.dtype]
        if original_tensor.shape[0] % sizes.sparse_min_rows or original_tensor.shape[1] % sizes.sparse_min_cols:
            raise RuntimeError(f"Error original_tensor.shape {original_tensor.shape} is not supported!")

    def _mm(self, B, *, bias=None, should_transpose_dense=False, **_):
        dense = sparse_semi_structured_to_dense_cutlass(self.packed, self.meta)
        product = dense @ (B.t() if should_transpose_dense else B)
        product = product if bias is None else product + bias[:, None]
        return product.t() if should_transpose_dense else product


def pointwise_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(64, 64, 1, stride=2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(2), nn.Linear(64, 32, bias=False),
        nn.Linear(32, 10),
    )  # fmt: skip


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semi_structured, "BACKENDS", (OnCpu,))
    monkeypatch.setattr(semi_structured, "FASTER", 0.0)  # a dense product behind packing is never faster


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_layers_in_the_layout_compute_what_the_dense_ones_do(dtype: torch.dtype) -> None:
    dense = prune(pointwise_net()).to(dtype)
    model, x = copy.deepcopy(dense), torch.randn(2, 64, 20, 20).to(dtype)
    inputs = record_inputs(model, x)
    speedups = replace_where_faster(model, inputs, semi_structured._semi_structured, seconds=0)
    assert list(speedups) == ["0", "4"]  # ten classes are no multiple of what the kernels take
    assert [type(model[i]).__name__ for i in (0, 2, 4, 5)] == ["SparsePointwise", "Conv2d", "SparseLinear", "Linear"]
    assert all(isinstance(model[i].weight, OnCpu) for i in (0, 4))
    assert torch.equal(model[0].weight.to_dense(), dense[0].weight.flatten(1))
    with torch.no_grad():
        torch.testing.assert_close(model(x), dense(x), rtol=0.02, atol=0.02)
        torch.testing.assert_close(model[0](x[0]), dense[0](x[0]), rtol=0.02, atol=0.02)
        channels_last = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(model[0](channels_last), model[0](x))
    assert model[0].weight.dtype == dtype
    assert model.state_dict().keys() == dense.state_dict().keys()


@pytest.mark.usefixtures("on_cpu")
def test_layers_that_are_dense_or_in_float32_are_left_with_a_reason() -> None:
    model, x = pointwise_net(), torch.randn(2, 64, 20, 20)
    with pytest.raises(InputError, match=r"expected at most 2 non-zeros .* of 0.weight, got 4 at output 0"):
        replace_where_faster(model, record_inputs(model, x), semi_structured._semi_structured, seconds=0)
    prune(model)
    with pytest.raises(InputError, match=r"expected 0.weight in float16 or bfloat16, got torch.float32"):
        replace_where_faster(model, record_inputs(model, x), semi_structured._semi_structured, seconds=0)


def test_without_kernels_the_reason_is_that_of_torch() -> None:
    layer = prune(nn.Linear(64, 64)).half()
    with pytest.raises(InputError, match=r"expected 3.weight, of shape \(64, 64\), to suit .* on cpu, got: .*CUDA"):
        semi_structured._semi_structured("3", layer, torch.randn(2, 64).half())


def test_a_model_on_a_device_without_sparse_tensor_cores_is_refused() -> None:
    model = prune(nn.Sequential(nn.Linear(64, 64))).half()
    with pytest.raises(InputError, match=r"CUDA device of compute capability 8.0 or higher.*got one on cpu") as caught:
        to_semi_structured(model, torch.randn(8, 64).half())
    assert "\n" not in str(caught.value)


# The device -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with sparse tensor cores")
def test_on_a_gpu_large_layers_run_in_the_layout_and_small_ones_only_if_faster() -> None:
    model = nn.Sequential(nn.Linear(4096, 16384), nn.ReLU(), nn.Linear(16384, 4096), nn.ReLU(), nn.Linear(4096, 32))
    model = prune(model).half().cuda().eval()
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(8192, 4096, device="cuda").half()
    result = to_semi_structured(model, x)
    assert set(result.converted) == {name for name, speedup in result.speedups.items() if speedup >= FASTER}
    assert {"0", "2"} <= set(result.speedups)
    with torch.no_grad():
        torch.testing.assert_close(result.model(x), model(x), rtol=0.02, atol=0.02)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
