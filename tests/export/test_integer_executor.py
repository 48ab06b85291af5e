"""The integer executor against onnxruntime, layer by layer, in whole networks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lightning_prune.export.int8 import calibrated, integer_network
from lightning_prune.export.integer_executor import IntegerExecutor
from lightning_prune.export.onnx_file import write_onnx
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.quantization.quantizers.affine import Affine

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

CPU = Path("/proc/cpuinfo")
EXACT = CPU.exists() and "vnni" in CPU.read_text()
"""Whether onnxruntime's integer kernels do not saturate sums of two products at int16, as they do without VNNI."""


class Written:
    """A network on digits as a file, and what onnxruntime makes of it."""

    def __init__(self, path: Path, bits: int) -> None:
        torch.manual_seed(0)
        images = torch.from_numpy(load_digits().images).float()[:, None] / 16
        model = digits_resnet()
        model(images[:256])  # statistics of the batch norms
        quantized = calibrated(model.eval(), [images[:256]], Affine(weight_bits=bits, activation_bits=bits))
        write_onnx(integer_network(quantized), images[:2], path)
        self.images = images[256:456].numpy()
        self.executor = IntegerExecutor(path)
        self.file = onnx.load(path)
        self.output = self.file.graph.output[0].name
        quantizing = [node.output[0] for node in self.file.graph.node if node.op_type == "QuantizeLinear"]
        for name in quantizing:
            self.file.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))

    def run(self, level: Any) -> dict[str, np.ndarray]:
        """Return the output and the codes of all rounded tensors."""
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.intra_op_num_threads = level, 1
        session = onnxruntime.InferenceSession(
            self.file.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [value.name for value in session.get_outputs()]
        return dict(zip(names, session.run(None, {session.get_inputs()[0].name: self.images}), strict=True))


@pytest.fixture(scope="module", params=[8, 4], ids=["8 bits", "4 bits"])
def written(request, tmp_path_factory):
    return Written(tmp_path_factory.mktemp("digits") / "digits.onnx", request.param)


@pytest.mark.parametrize(
    "level",
    [
        pytest.param("ORT_DISABLE_ALL", id="float layers"),
        pytest.param("ORT_ENABLE_ALL", id="integer layers", marks=pytest.mark.skipif(not EXACT, reason="no VNNI")),
    ],
)
def test_network_agrees_with_onnxruntime(written, level):
    theirs = written.run(getattr(onnxruntime.GraphOptimizationLevel, level))
    output, executor = theirs.pop(written.output), written.executor
    entry = executor.rounded({written.file.graph.input[0].name: written.images})
    assert all(np.array_equal(codes, theirs[name]) for name, codes in entry.items())
    layers = theirs.keys() - entry.keys()
    assert len(layers) == 13
    for name in layers:  # each on the codes of onnxruntime
        given = {other: codes for other, codes in theirs.items() if other != name}
        found = executor.run(given, [name])[name].codes
        steps = np.abs(found.astype(int) - theirs[name])
        assert found.dtype == theirs[name].dtype
        assert steps.max() <= 1, name
        assert (steps == 0).mean() >= 0.999, name
    found = executor.run(entry)[written.output]
    assert found.codes.dtype == np.int32  # the logits' sums of products, each class in steps of its own
    assert np.abs(found.numbers() - output).max() <= 0.01 * np.abs(output).max()
    assert (found.numbers().argmax(1) == output.argmax(1)).all()


class IntegersOnly(np.ndarray):
    """An array of integers or truth values, as is everything that is computed from it."""

    def __array_finalize__(self, made_from: Any) -> None:
        assert self.dtype.kind in "iub"

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        result = super().__array_function__(function, types, args, kwargs)
        return result.view(IntegersOnly) if isinstance(result, np.ndarray) else result


def test_network_runs_without_floats(written):
    executor = written.executor
    entry = executor.rounded({written.file.graph.input[0].name: written.images})
    watched = {name: codes.view(IntegersOnly) for name, codes in entry.items()}
    found = executor.run(watched, executor.tensors)
    assert len(found) > 40
    assert all(type(each.codes) is IntegersOnly for each in found.values())
    assert {str(each.codes.dtype) for each in found.values()} == {"uint8", "int32"}
