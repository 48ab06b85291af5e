"""What is measured of int8 files, and which are refused."""

from pathlib import Path

import pytest
import torch
from quantization_networks import branches

from lightning_prune.export.int8 import calibrated, integer_network
from lightning_prune.export.int8_check import (
    measure_int8,
    predicted_classes,
    quantized_layers,
    refuse_float_layers,
    refuse_other_predictions,
)
from lightning_prune.export.onnx_file import write_onnx
from lightning_prune.quantization.quantize import dequantize

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


def test_measures_of_a_file_are_those_of_its_network(tmp_path: Path) -> None:
    plain, path = branches(), tmp_path / "int8.onnx"
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    quantized = calibrated(plain, [images])
    write_onnx(integer_network(quantized), images[:2], path)
    with torch.no_grad():
        labels = quantized(images).argmax(1)
        right = float((plain(images).argmax(1) == labels).double().mean())
    labels[:4] = (labels[:4] + 1) % 3
    threads = torch.get_num_threads()
    labelled = zip(images.split(16), labels.split(16), strict=True)
    found = measure_int8(quantized, path, images[:2], images[:8], labelled, threads + 1)
    assert torch.get_num_threads() == threads
    assert found.layers == found.integer_layers == len(quantized_layers(quantized)) == 4
    assert quantized_layers(plain) == []
    assert found.images == 40
    assert found.quantized_accuracy == pytest.approx(0.9)
    assert found.float_accuracy == pytest.approx(right - 0.1, abs=0.1)
    assert abs(found.int8_accuracy - found.quantized_accuracy) <= 1 - found.same_predictions <= 0.05
    assert min(found.float_ms, found.int8_ms, found.torch_ms) > 0
    assert found.float_bytes > sum(4 * getattr(plain, name).weight.numel() for name in quantized_layers(quantized))


def test_a_float_file_runs_no_layer_in_integers(tmp_path: Path) -> None:
    plain, path = branches(), tmp_path / "float.onnx"
    images = torch.randn(8, 3, 8, 8)
    quantized = calibrated(plain, [images])
    write_onnx(dequantize(quantized), images[:2], path)
    labelled = [(images, torch.zeros(8, dtype=torch.int64))]
    found = measure_int8(quantized, path, images[:2], images, labelled, torch.get_num_threads())
    assert (found.layers, found.integer_layers) == (4, 0)
    with pytest.raises(RuntimeError, match=r"expected 4 layers in integers, got 0: \{.*\}; the file is right"):
        refuse_float_layers(path, found.integer_layers, 4)
    refuse_float_layers(path, 4, 4)


@pytest.mark.parametrize(("same", "accuracy"), [(0.994, 0.9), (1.0, 0.9021), (1.0, 0.8979)])
def test_other_predictions_are_refused(same: float, accuracy: float) -> None:
    refuse_other_predictions(0.995, 0.902 - 1e-9, 0.9)
    with pytest.raises(RuntimeError, match=r"expected at least 99\.5% equal predictions and accuracies within 0\.2 "):
        refuse_other_predictions(same, accuracy, 0.9)


def test_predictions_of_several_networks_are_of_the_same_images() -> None:
    batches = [(torch.eye(3)[:2], torch.tensor([0, 1])), (torch.eye(3)[2:], torch.tensor([2]))]
    labels, classes = predicted_classes({"same": lambda x: x, "next": lambda x: x.roll(1, 1)}, batches)
    assert labels.tolist() == classes["same"].tolist() == [0, 1, 2]
    assert classes["next"].tolist() == [1, 2, 0]
