"""`python scripts/export.py` as a person uses it, and what other programs find in the files that it writes."""

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import ROOT, run_here, run_process

from lightning_prune import load_slim, slim
from lightning_prune.commands import export as export_command
from lightning_prune.data.digits import digits
from lightning_prune.errors import InputError
from lightning_prune.export import formats
from lightning_prune.export.formats import lpz
from lightning_prune.export.int8 import calibrated, integer_network
from lightning_prune.export.network_files import EXPORT_FORMATS, open_network, write_network
from lightning_prune.export.packed import load_packed, read_packed
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.models.resnet import ResNet
from lightning_prune.quantization.quantization_interceptor import quantization_of
from lightning_prune.quantization.quantize import quantize
from lightning_prune.quantization.quantizers.affine import Affine
from lightning_prune.quantization.quantizers.dorefa import DoReFa
from lightning_prune.slimming.zero_modules import ZeroOutput

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
runtime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs that learned something, each in a way of its own."""
    folder = tmp_path_factory.mktemp("runs")
    for name, strategy in {
        "quantized": ["strategy=qat"],
        "pruned": ["strategy=[sfp,qat]"],
        "plain": ["strategy=none"],
        "few": ["strategy=qat", "quantizer=twn"],
        "shared": ["strategy=[gmp,weight_sharing]", "sparsity=0.8"],
    }.items():
        short = ["trainer.max_epochs=4", "logger=csv", "export=null", "baseline=none", f"hydra.run.dir={folder / name}"]
        result = run_here("train.py", *strategy, *short, cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


def classes(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """What onnxruntime predicts of the test images, and what they are."""
    data = digits()
    images, labels = data.example_input(1), []
    parts = []
    for batch in data.test_dataloader():
        images, targets = data.on_after_batch_transfer(batch, 0)
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        parts.append(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0].argmax(1))
        labels.append(targets.numpy())
    return np.concatenate(parts), np.concatenate(labels)


@pytest.mark.parametrize(("name", "options"), [("quantized", []), ("pruned", []), ("plain", ["calibrate=4"])])
def test_int8_file(runs: Path, name: str, options: list[str], tmp_path: Path) -> None:
    file = tmp_path / "there" / "int8.onnx"
    result = run_here("scripts/export.py", name, "format=onnx-int8", f"output={file}", *options, cwd=runs)
    assert result.returncode == 0, result.stderr
    assert "10 of 10 layers run in integers" in result.stdout
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) > 1]
    assert weights
    assert {tensor.data_type for tensor in weights} <= {onnx.TensorProto.INT8, onnx.TensorProto.INT64}
    assert str(ROOT).encode() not in file.read_bytes()
    found, labels = classes(file)
    assert (found == labels).mean() > 0.5
    summary = json.loads((runs / name / "summary.json").read_text())
    last = list(summary["rows"].values())[-1]["accuracy"]
    assert (found == labels).mean() == pytest.approx(last, abs=0.03 if name == "plain" else 0.006)


def test_float_files_of_few_bits_hold_the_rounded_weights(runs: Path) -> None:
    result = run_here("scripts/export.py", "few", cwd=runs)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"quantized.pt as {Path('few', 'model.onnx')}, ")
    found, labels = classes(runs / "few" / "model.onnx")
    assert (found == labels).mean() > 0.5
    export_command.export(runs / "few", export_command.options_of(["format=exported-program"]))
    state = torch.export.load(runs / "few/model.pt2").state_dict
    middle = next(tensor for name, tensor in state.items() if name.endswith("layer2.0.conv1.weight"))
    assert len(middle.unique()) == 3


def test_packed_file_of_shared_weights(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_command.export(runs / "shared", export_command.options_of(["format=lpz"]))
    printed = capsys.readouterr().out
    assert "Nothing is shared" not in printed
    network = digits_resnet(num_classes=10, in_channels=1)
    dense = sum(tensor.nbytes for tensor in network.state_dict().values())
    file = runs / "shared" / "model.lpz"
    lines = [line.split() for line in printed.splitlines() if line.strip()]
    parts = {words[0]: int(words[1].replace(",", "")) for words in lines if len(words) == 3 and words[2].endswith("%")}
    assert parts.keys() == {"codebook", "tables", "codes", "indices", "raw", "header"}
    assert sum(parts.values()) == file.stat().st_size < dense / 6
    ratio = dense / file.stat().st_size
    assert f"{ratio:.1f} x smaller than the {dense:,} bytes of the dense network in float32" in printed
    loaded = load_packed(ImageClassifier(network, 10), file)
    expected = load_slim(ImageClassifier(digits_resnet(num_classes=10, in_channels=1), 10), runs / "shared" / "slim.pt")
    state = expected.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


def test_packed_file_says_what_it_could_not_make_small(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_command.export(runs / "plain", export_command.options_of(["format=lpz", f"output={runs / 'raw.lpz'}"]))
    printed = capsys.readouterr().out
    assert "Nothing is shared in most of it, network.layer3.0.conv2.weight for example: train with strategy=" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plain", "format=onnx-int8"], "expected a run with strategy=qat, got strategy=[none]; calibrate=32"),
        (["few", "format=onnx-int8"], "expected integer weights and inputs of network.layer1.0.conv1"),
        (["quantized", "format=onnx-int8", "calibrate=4"], "expected calibrate for a float network"),
        (["plain", "format=tflite"], f"expected format to be one of {', '.join(EXPORT_FORMATS)}, got tflite"),
        (["plain", "calibrate=4"], "expected calibrate with format=onnx-int8, got format=onnx"),
        (["plain", "fromat=onnx"], "expected options format=..., output=..., calibrate=..."),
        (["plain", "threads=0"], "expected threads to be a whole number of at least 1, got 0"),
        (["nowhere"], "expected the folder of a run, with a config.yaml in it, got "),
    ],
)
def test_what_cannot_be_exported_is_said(runs: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError) as raised:
        export_command.export(runs / arguments[0], export_command.options_of(arguments[1:]))
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    result = run_process("scripts/export.py", "nowhere", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "Error: expected the folder of a run, with a config.yaml in it, got nowhere\n"


def test_help_lists_the_formats(tmp_path: Path) -> None:
    printed = run_here("scripts/export.py", "--help", cwd=tmp_path).stdout
    assert all(f"\n  {name}\n" in printed for name in EXPORT_FORMATS)
    assert all(text in printed for one in EXPORT_FORMATS.values() for text in (one.use, one.needs))


def test_formats_are_listed_from_that_which_most_programs_open() -> None:
    known = [name for name in EXPORT_FORMATS if name in ("onnx", "onnx-int8", "exported-program", "lpz")]
    assert known == ["onnx", "onnx-int8", "exported-program", "lpz"]
    modules = {path.stem.replace("_", "-") for path in Path(formats.__path__[0]).glob("*.py")} - {"--init--"}
    assert modules == EXPORT_FORMATS.keys()
    assert len({one.file for one in EXPORT_FORMATS.values()}) == len(EXPORT_FORMATS)
    assert [name for name in known if EXPORT_FORMATS[name].integer] == ["onnx-int8"]


# The table under it ---------------------------------------------------------------------------------------------------


class Several(torch.nn.Module):
    """One with two inputs, of which one has no batch, and outputs of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> dict[str, object]:
        y = self.layer(x) * scale
        return {"logits": y, "more": (y.argmax(1), y > 0, None)}


class Tokens(torch.nn.Module):
    """A transformer over tokens, which come as whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.place = torch.nn.Embedding(11, 8), torch.nn.Parameter(torch.randn(1, 6, 8))
        layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers, self.head = torch.nn.TransformerEncoder(layer, 2), torch.nn.Linear(8, 3)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embedding(numbers) + self.place).mean(1))


def without_a_block() -> torch.nn.Module:
    model = ResNet((1, 1, 1), (8, 16, 32))
    with torch.no_grad():
        for parameter in (*model.layer2[0].bn2.parameters(), *model.layer1[0].bn1.parameters()):
            parameter[:9] = 0
        for parameter in model.layer2[0].bn2.parameters():
            parameter.zero_()
    small = slim(model, torch.randn(2, 3, 8, 8)).eval()
    assert any(isinstance(module, ZeroOutput) for module in small.modules())
    return small


@torch.no_grad()
def with_other_weights(network: torch.nn.Module) -> torch.nn.Module:
    """Return a copy into which a file is opened, so that what it computes is the file's."""
    other = copy.deepcopy(network)
    for parameter in other.parameters():
        parameter.add_(1)
    return other


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_slim_networks_of_any_batch_size_in_every_format(format: str, tmp_path: Path) -> None:
    module, images, path = without_a_block(), torch.randn(2, 3, 8, 8), tmp_path / EXPORT_FORMATS[format].file
    integer = EXPORT_FORMATS[format].integer
    if integer:
        module = calibrated(module, [images])
    write_network(module, images, path, format)
    network = open_network(path, format, with_other_weights(module))
    for size in (1, 7):
        batch = torch.randn(size, 3, 8, 8)
        with torch.no_grad():
            expected = module(batch)
        step = 0.05 * float(expected.abs().max()) if integer else 1e-5
        torch.testing.assert_close(network(batch), expected, rtol=0, atol=step)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("format", [name for name, one in EXPORT_FORMATS.items() if not one.integer])
def test_networks_of_any_kind_in_every_float_format(format: str, tmp_path: Path) -> None:
    path = tmp_path / EXPORT_FORMATS[format].file
    tokens, numbers = Tokens().eval(), torch.randint(0, 11, (5, 6))
    write_network(tokens, numbers[:2], path, format)
    with torch.no_grad():
        torch.testing.assert_close(open_network(path, format, with_other_weights(tokens))(numbers), tokens(numbers))
    write_network(Several(), (torch.randn(2, 4), torch.randn(3)), path, format)


def test_quantized_network_is_written_with_its_rounded_weights(tmp_path: Path) -> None:
    network = digits_resnet(num_classes=10, in_channels=1).eval()
    module = calibrated(network, [torch.rand(4, 1, 8, 8)], Affine(3, 8))
    write_network(module, torch.rand(2, 1, 8, 8), tmp_path / "a.lpz", "lpz")
    weight = read_packed(tmp_path / "a.lpz")["state_dict"]["layer2.0.conv1.weight"]
    assert max(len(channel.unique()) for channel in weight) <= 2**3


def test_file_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, images, path = torch.nn.Linear(4, 3), torch.randn(2, 4), tmp_path / "a.lpz"
    path.write_text("old")
    monkeypatch.setattr(lpz, "load_packed", lambda model, path: torch.nn.Linear(4, 3))
    with pytest.raises(RuntimeError, match="the file was not written, since the network in it computes something else"):
        write_network(network, images, path, "lpz")
    assert path.read_text() == "old"
    assert len(os.listdir(tmp_path)) == 1
    wrong = torch.export.export(torch.nn.Linear(4, 3), (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    monkeypatch.setattr(torch.export, "load", lambda path: wrong)
    with pytest.raises(RuntimeError, match="computes something else for a batch of 1: linear is off by"):
        write_network(network, images, tmp_path / "a.pt2", "exported-program")
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_damaged_files_are_refused(format: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(b"nothing that any program has written")
    with pytest.raises(InputError, match=r"expected .*damaged") as error:
        open_network(path, format, torch.nn.Linear(4, 3))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=f"expected format to be one of {', '.join(EXPORT_FORMATS)}, got pt"):
        open_network(path, "pt", torch.nn.Linear(4, 3))


# The functions under it -----------------------------------------------------------------------------------------------


def test_integers_compute_what_the_quantized_network_does() -> None:
    torch.manual_seed(0)
    network = digits_resnet(num_classes=10, in_channels=1).eval()
    images = torch.rand(32, 1, 8, 8)
    for quantizer in (Affine(), Affine(per_channel=False), Affine(4, 6)):
        quantized = calibrated(network, [images], quantizer)
        integers = integer_network(quantized)
        with torch.no_grad():
            ours, theirs = integers(images), quantized(images)
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(quantized(images), theirs, rtol=0, atol=0.02 * float(theirs.abs().max()))
        assert quantization_of(network) is None


def test_calibration_takes_the_mean_of_the_batches() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    batches = [torch.rand(8, 1, 8, 8) * scale for scale in (1.0, 2.0, 6.0)]
    quantization = quantization_of(calibrated(network, batches))
    assert quantization is not None
    high = sum(float(batch.max()) for batch in batches) / 3
    assert float(quantization.rounding.activations()["1"].limit()) == pytest.approx(high, rel=1e-5)


def test_what_is_not_integer_is_refused() -> None:
    network, images = digits_resnet(num_classes=10, in_channels=1), torch.rand(2, 1, 8, 8)
    with pytest.raises(InputError, match="expected a quantized ResNet, got a float one"):
        integer_network(network)
    with pytest.raises(InputError, match="expected at least one batch to calibrate with"):
        calibrated(network, [])
    with pytest.raises(InputError, match="expected a float ResNet to calibrate"):
        calibrated(calibrated(network, [images]), [images])
    quantize(network, images, DoReFa())
    with pytest.raises(InputError, match=r"quantizer affine.* got DoReFa|quantizer affine"):
        integer_network(network)
    unseen = digits_resnet(num_classes=10, in_channels=1)
    quantize(unseen, images, Affine())
    with pytest.raises(InputError, match="expected a range of the numbers in conv1, got none"):
        integer_network(unseen)
