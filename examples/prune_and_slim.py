"""Prune a network while it trains, make it really smaller, and save it: `python examples/prune_and_slim.py`."""

import sys

from lightning.pytorch import Trainer, seed_everything

from lightning_prune import SoftFilterPruning, load_slim, profile, save_slim, slim
from lightning_prune.data.digits import digits
from lightning_prune.models import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet


def main(max_epochs: int = 10) -> None:
    """Train with 40 % of the filters going, and print what the network costs before and after it is cut."""
    seed_everything(0, verbose=False)
    data, module = digits(), ImageClassifier(digits_resnet(), num_classes=10)
    pruning = SoftFilterPruning(sparsity=0.4)
    trainer = Trainer(max_epochs=max_epochs, callbacks=[pruning], logger=False, enable_checkpointing=False)
    trainer.fit(module, datamodule=data)

    small = slim(module, data.example_input(2))
    trainer.test(small, datamodule=data)
    for model in (module, small):
        print(profile(model, data.example_input(32)))

    save_slim(small, "slim.pt")
    load_slim(ImageClassifier(digits_resnet(), num_classes=10), "slim.pt")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
