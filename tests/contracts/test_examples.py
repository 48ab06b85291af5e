"""The scripts in examples/ do what they say."""

import functools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import ROOT, run_here

from lightning_prune import load_slim
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
Run = Callable[[str], tuple[Path, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run an example for two epochs, once for all tests, and return its folder and what it printed."""

    @functools.cache
    def once(name: str) -> tuple[Path, str]:
        folder = tmp_path_factory.mktemp(name)
        result = run_here(f"examples/{name}", "2", cwd=folder)
        assert result.returncode == 0, result.stderr
        return folder, result.stdout

    return once


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_run_and_are_short(example: str, run: Run) -> None:
    assert "test/accuracy" in run(example)[1]
    text = (ROOT / "examples" / example).read_text()
    assert len(text.splitlines()) <= 40
    assert f"`python examples/{example}`" in text
    assert f"`examples/{example}`" in (ROOT / "README.md").read_text()


def test_pruned_network_is_saved_smaller(run: Run) -> None:
    folder, _ = run("prune_and_slim.py")
    small = load_slim(ImageClassifier(digits_resnet(), 10), folder / "slim.pt")
    assert small(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (small, digits_resnet())]
    assert sizes[0] < 0.5 * sizes[1]


def test_distilled_network_is_pruned(run: Run) -> None:
    (zeros,) = re.findall(r"(\d+\.\d)% of the weights are zero", run("distil.py")[1])
    assert float(zeros) > 80


def test_quantized_network_is_written_in_integers(run: Run) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(run("quantize_and_export.py")[0] / "int8.onnx")
    weights = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
    assert onnx.TensorProto.INT8 in weights <= {onnx.TensorProto.INT8, onnx.TensorProto.INT64}
