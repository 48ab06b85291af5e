"""`python scripts/export.py` as a person uses it, and what other programs find in the files that it writes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_prune.data.digits import digits
from lightning_prune.errors import InputError
from lightning_prune.export.int8 import calibrated, integer_network
from lightning_prune.models.digits import digits_resnet
from lightning_prune.quantization import quantization_of
from lightning_prune.quantizers.affine import Affine
from lightning_prune.quantizers.dorefa import DoReFa
from lightning_prune.quantizing import quantize

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
runtime = pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("export_script", ROOT / "scripts" / "export.py")
assert SPEC is not None
assert SPEC.loader is not None
SCRIPT = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(SCRIPT)


def python(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "HYDRA"))}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cwd,
        env=environment | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs that learned something: quantized, pruned and quantized, plain, and in few bits."""
    folder = tmp_path_factory.mktemp("runs")
    for name, strategy in {
        "quantized": ["strategy=qat"],
        "pruned": ["strategy=[sfp,qat]"],
        "plain": ["strategy=none"],
        "few": ["strategy=qat", "quantizer=twn"],
    }.items():
        short = ["trainer.max_epochs=4", "logger=csv", f"hydra.run.dir={folder / name}"]
        result = python("train.py", *strategy, *short, cwd=folder)
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
    result = python("scripts/export.py", name, "format=onnx-int8", f"output={file}", *options, cwd=runs)
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
    result = python("scripts/export.py", "few", cwd=runs)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"quantized.pt as {Path('few', 'model.onnx')}, ")
    found, labels = classes(runs / "few" / "model.onnx")
    assert (found == labels).mean() > 0.5
    SCRIPT.export(runs / "few", SCRIPT.options_of(["format=exported-program"]))
    state = torch.export.load(runs / "few/model.pt2").state_dict
    middle = next(tensor for name, tensor in state.items() if name.endswith("layer2.0.conv1.weight"))
    assert len(middle.unique()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plain", "format=onnx-int8"], "expected a run with strategy=qat, got strategy=[none]; calibrate=32"),
        (["few", "format=onnx-int8"], "expected integer weights and inputs of network.layer1.0.conv1"),
        (["quantized", "format=onnx-int8", "calibrate=4"], "expected calibrate for a float network"),
        (["plain", "format=tflite"], "expected format to be one of onnx, onnx-int8, exported-program, got tflite"),
        (["plain", "calibrate=4"], "expected calibrate with format=onnx-int8, got format=onnx"),
        (["plain", "fromat=onnx"], "expected options format=..., output=..., calibrate=..."),
        (["plain", "threads=0"], "expected threads to be a whole number of at least 1, got 0"),
        (["nowhere"], "expected the folder of a run, with a config.yaml in it, got "),
    ],
)
def test_what_cannot_be_exported_is_said(runs: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError) as raised:
        SCRIPT.export(runs / arguments[0], SCRIPT.options_of(arguments[1:]))
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    result = python("scripts/export.py", "nowhere", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "Error: expected the folder of a run, with a config.yaml in it, got nowhere\n"


def test_help_lists_the_formats(tmp_path: Path) -> None:
    printed = python("scripts/export.py", "--help", cwd=tmp_path).stdout
    assert all(f"    {name} " in printed for name in ("onnx", "onnx-int8", "exported-program"))


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
    assert float(quantization.activations()["1"].limit()) == pytest.approx(high, rel=1e-5)


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
