"""Integer layers against numbers worked by hand, and files against the models that they were written from."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.errors import InputError
from lightning_prune.export import onnx_session
from lightning_prune.export.onnx_file import write_exported_program, write_onnx
from lightning_prune.export.onnx_session import onnx_latencies_ms, open_onnx, optimized_onnx_ops, run_onnx
from lightning_prune.export.verification import first_difference
from lightning_prune.models.resnet import PaddedShortcut
from lightning_prune.quantization.integer_layers import FrozenActivation, FrozenNorm, IntegerLayer, as_integers
from lightning_prune.quantization.quantizers.rounding import fake_quantize

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

INT32 = 2**31


def codes_of(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.flatten(1).abs().amax(1) / 127
    shape = [-1] + [1] * (weight.ndim - 1)
    return (weight / scale.view(shape)).round().to(torch.int8), scale


def test_fold_of_a_batch_norm_by_hand():
    norm = FrozenNorm.of(*(torch.tensor([v]) for v in (1.5, 0.2, 0.3, 4.0)), 1e-5)
    assert norm.scale.item() == pytest.approx(0.749999, abs=1e-6)
    assert norm.shift.item() == pytest.approx(-0.0249997, abs=1e-6)


def test_product_and_bias_by_hand():
    """The numbers of the specification's example: 18097 + 554 = 18651 steps of 0.0180392157 * 0.01."""
    read = torch.tensor(4.6 / 255)
    x = fake_quantize(torch.tensor([[1.0, -0.5, 2.0]]), read, torch.tensor(67), 0, 255)
    codes = torch.tensor([[60, -25, 127]], dtype=torch.int8)
    layer = IntegerLayer(as_integers(codes, torch.tensor([0.01]), 0, read, bias=torch.tensor([0.1])))
    assert layer.bias_codes is not None
    assert layer.bias_codes.tolist() == [554]
    assert layer(F.linear, None, x, torch.empty(0)).item() == pytest.approx(18651 * 4.6 / 255 * 0.01, rel=1e-6)


def _convolved(layer: IntegerLayer, x: Tensor) -> Tensor:
    out: Tensor = layer(F.conv2d, None, x, torch.empty(0), None, 1, 1)
    return out


def test_folded_layer_is_the_layer_and_its_batch_norm():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4).double().eval()
    for values, low in ((norm.weight, -2.0), (norm.bias, -1.0), (norm.running_mean, -1.0), (norm.running_var, 0.5)):
        assert values is not None
        values.data.uniform_(low, 2.0)
    norm.weight.data[1] = -1.5
    codes, scale = codes_of(torch.randn(4, 3, 3, 3))
    bias, x, read = torch.randn(4), torch.randn(2, 3, 8, 8), torch.tensor(0.01)
    frozen = FrozenNorm.of(norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
    layer = IntegerLayer(as_integers(codes, scale, 0, read, bias, frozen))
    rounded = codes.double() * scale.double().view(-1, 1, 1, 1)
    expected = norm(F.conv2d(x.double(), rounded, bias.double(), 1, 1))
    assert layer.codes.dtype == torch.int8
    assert torch.equal(layer.codes[1], -codes[1])
    # A bias is off by half a step at most.
    torch.testing.assert_close(_convolved(layer, x).double(), expected, rtol=1e-5, atol=float(layer.bias_scale.max()))


def test_weight_that_was_rounded_as_folded_is_not_folded_twice():
    codes = torch.tensor([[100, -7], [3, 9]], dtype=torch.int8)
    norm = FrozenNorm(torch.tensor([-2.0, 0.5]).double(), torch.tensor([1.0, -1.0]).double())
    layer = IntegerLayer(
        as_integers(codes, torch.tensor(0.01), 0, torch.tensor(0.1), None, norm, torch.tensor([-2.0, 0.5]))
    )
    assert torch.equal(layer.codes, codes)
    assert layer.scale.tolist() == pytest.approx([0.01, 0.01])
    assert layer.bias_codes is not None
    assert layer.bias_codes.tolist() == [1000, -1000]


def test_channel_that_the_batch_norm_turns_off_keeps_its_shift():
    codes = torch.full((2, 3), 127, dtype=torch.int8)
    norm = FrozenNorm(torch.tensor([0.0, 0.0]).double(), torch.tensor([3.0, 0.0]).double())
    layer = IntegerLayer(as_integers(codes, torch.tensor([0.1, 0.1]), 0, torch.tensor(0.02), None, norm))
    assert not layer.codes.any()
    assert bool((layer.scale > 0).all())
    out = layer(F.linear, None, torch.ones(1, 3), torch.empty(0))
    torch.testing.assert_close(out, torch.tensor([[3.0, 0.0]]))


def test_bias_that_is_no_int32_gets_a_larger_step():
    codes = torch.tensor([[127, -127, 60]], dtype=torch.int8)
    read, scale, bias = torch.tensor(1e-4), torch.tensor([1e-7]), torch.tensor([5.0])  # 5e11 steps
    layer = IntegerLayer(as_integers(codes, scale, 0, read, bias))
    assert layer.bias_codes is not None
    products = 255 * int(layer.codes.abs().sum())
    assert int(layer.bias_codes.abs().max()) + products < INT32
    out = layer(F.linear, None, torch.full((1, 3), 0.0255), torch.empty(0))
    assert out.item() == pytest.approx(5.0, rel=1e-6)


def test_diverged_training_is_refused():
    with pytest.raises(InputError, match="the training has diverged"):
        IntegerLayer(as_integers(torch.ones(1, 1), torch.tensor([torch.nan]), 0, torch.tensor(0.1)))


class Residual(nn.Module):
    """A convolution, a depthwise one, a padded shortcut, a sum, an average and a linear layer, all rounded."""

    def __init__(self, most: int = 255) -> None:
        super().__init__()
        torch.manual_seed(0)

        def activation(size: float, zero_point: int) -> FrozenActivation:
            return FrozenActivation(torch.tensor(size / most), torch.tensor(zero_point), 0, most)

        def layer(weight: Tensor, read: FrozenActivation) -> IntegerLayer:
            return IntegerLayer(as_integers(*codes_of(weight), 0, read.scale, torch.randn(len(weight))))

        half = (most + 1) // 2
        # No simple ratios, with which many sums would lie exactly between two codes.
        self.read, self.hidden, self.branch = activation(5.83, half), activation(11.7, 0), activation(15.1, half)
        self.summed, self.averaged = activation(20.9, 0), activation(7.3, 0)
        self.conv1 = layer(torch.randn(8, 3, 3, 3) / 2, self.read)
        self.conv2 = layer(torch.randn(8, 1, 3, 3) / 2, self.hidden)
        self.shortcut = PaddedShortcut(3, 8, 2)
        self.fc = layer(torch.randn(5, 8), self.averaged)

    def forward(self, images: Tensor) -> Tensor:
        x, empty = self.read(images), images
        hidden = self.hidden(F.relu(self.conv1(F.conv2d, None, x, empty, None, 2, 1)))
        branch = self.branch(self.conv2(F.conv2d, None, hidden, empty, None, 1, 1, 1, 8))
        summed = self.summed(F.relu(branch + self.shortcut(x)))
        averaged = self.averaged(F.adaptive_avg_pool2d(summed, 1))
        out: Tensor = self.fc(F.linear, None, averaged.flatten(1), empty)
        return out


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "residual.onnx"
    write_onnx(Residual(), torch.randn(1, 3, 8, 8), path)
    return path


def test_file_holds_integers_only(written):
    graph = onnx.load(written).graph
    kinds = {tensor.name: onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name for tensor in graph.initializer}
    assert kinds["conv1.codes"] == kinds["fc.codes"] == "int8"
    assert kinds["conv1.bias_codes"] == "int32"
    assert all(len(tensor.dims) < 2 for tensor in graph.initializer if kinds[tensor.name] == "float32")
    assert [value.name for value in (*graph.input, *graph.output)] == ["images", "output"]


def test_everything_runs_in_integers(written):
    ops = optimized_onnx_ops(written)
    # The third convolution is what the index of the shortcut has become.
    assert {name: ops[name] for name in ops if name.startswith("QL") or name == "QGemm"} == {
        "QLinearConv": 3,
        "QLinearAdd": 1,
        "QLinearGlobalAveragePool": 1,
        "QGemm": 1,
    }
    assert not ops.keys() & {"Conv", "FusedConv", "Gemm", "Add", "Relu", "ReduceMean", "DequantizeLinear"}


@pytest.mark.parametrize("most", [255, 15])
def test_integers_agree_with_the_model(most, tmp_path):
    model, path = Residual(most).eval(), tmp_path / "a.onnx"
    write_onnx(model, torch.randn(2, 3, 8, 8), path)
    images = torch.randn(200, 3, 8, 8)
    with torch.no_grad():
        expected = model(images)
    (found,) = run_onnx(open_onnx(path), [images])
    step = float(model.averaged.scale) * 3  # a code of the average, times a large weight
    assert ((found - expected).abs() <= 1e-4).float().mean() > 0.97
    assert ((found - expected).abs() <= step).float().mean() > 0.999


class Plain(nn.Sequential):
    def __init__(self, width: int = 6) -> None:
        norm = nn.BatchNorm2d(width)
        norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
        super().__init__(nn.Conv2d(3, width, 3), norm, nn.ReLU(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


def test_float_file(tmp_path):
    model, path = Plain(), tmp_path / "new" / "plain.onnx"
    write_onnx(model, torch.randn(1, 3, 9, 9), path)
    assert model.training
    assert [file.name for file in path.parent.iterdir()] == ["plain.onnx"]
    images = torch.randn(7, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(run_onnx(open_onnx(path), [images])[0], model.eval()(images), rtol=1e-4, atol=1e-5)


class OneSize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(4, -1)


def test_model_for_one_batch_size_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_text("old")
    with pytest.raises(InputError, match=r"expected OneSize.forward to be traceable .* for batches of any size"):
        write_onnx(OneSize(), torch.randn(4, 3), path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_layer_that_is_off_is_found():
    model = Residual().eval()
    images = torch.randn(2, 3, 8, 8)
    program = torch.export.export(model, (images,))
    with torch.no_grad():
        output = model(images)
        hidden = model.hidden(F.relu(model.conv1(F.conv2d, None, model.read(images), images, None, 2, 1)))
    (name,) = program.graph_signature.user_outputs
    rounded = [node.name for node in program.graph.nodes if "fake_quantize" in node.name]
    assert first_difference(program, lambda inputs: {name: output, rounded[1]: hidden}, [images]) == ""
    off = hidden + 2 * model.hidden.scale
    assert (
        first_difference(program, lambda inputs: {name: output, rounded[1]: off}, [images])
        == "fake_quantize_1 is up to 2 steps off"
    )
    assert "is off by" in first_difference(program, lambda inputs: {name: output + 0.1}, [images])


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_session, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(
        InputError, match=r"onnxruntime missing; install them with pip install \"lightning-prune\[onnx\]\""
    ):
        write_onnx(Plain(), torch.randn(1, 3, 9, 9), tmp_path / "a.onnx")


def test_exported_program_needs_only_torch(tmp_path):
    model, path = Residual().eval(), tmp_path / "residual.pt2"
    images = torch.randn(3, 3, 8, 8)
    write_exported_program(model, images[:1], path)
    torch.save(images, tmp_path / "images.pt")
    code = (
        "import sys, torch; model = torch.export.load('residual.pt2').module(); "
        "torch.save(model(torch.load('images.pt')), 'found.pt'); assert 'lightning_prune' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "found.pt"), model(images))
    codes = torch.export.load(path).state_dict["conv1.codes"]
    assert codes.dtype == torch.int8


def test_exported_program_has_its_ending(tmp_path):
    with pytest.raises(InputError, match=r"expected a path that ends in \.pt2"):
        write_exported_program(Plain(), torch.randn(1, 3, 9, 9), tmp_path / "a.pth")


def test_latencies_are_in_the_order_of_the_files(tmp_path):
    images = torch.randn(8, 3, 32, 32)
    paths = [tmp_path / "large.onnx", tmp_path / "small.onnx"]
    for path, width in zip(paths, (256, 4), strict=True):
        write_onnx(Plain(width), images, path)
    large, small = onnx_latencies_ms(paths, [images], seconds=0.1)
    assert large > 2 * small > 0
