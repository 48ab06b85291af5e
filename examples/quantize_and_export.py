"""Train a network for 8-bit integers and write them as ONNX: `python examples/quantize_and_export.py`."""

import sys

from lightning.pytorch import Trainer, seed_everything

from lightning_prune import QuantizationAwareTraining
from lightning_prune.data.digits import digits
from lightning_prune.export import integer_network, write_onnx
from lightning_prune.models import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet


def main(max_epochs: int = 10) -> None:
    """Train with all numbers rounded to 8 bits, test that, and write the file."""
    seed_everything(0, verbose=False)
    data, module = digits(), ImageClassifier(digits_resnet(), num_classes=10)
    quantization = QuantizationAwareTraining(example_input=data.example_input(2))  # which it follows through `forward`
    trainer = Trainer(max_epochs=max_epochs, callbacks=[quantization], logger=False, enable_checkpointing=False)
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data)  # still with rounded numbers

    write_onnx(integer_network(module), data.example_input(2), "int8.onnx")  # compared with the module, layer by layer


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
