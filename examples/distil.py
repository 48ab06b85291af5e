"""Train a teacher, then a pruned network that learns from it: `python examples/distil.py`."""

import sys

from lightning.pytorch import Callback, Trainer, seed_everything

from lightning_prune import GradualPruning, KnowledgeDistillation, SparsityMonitor
from lightning_prune.data.digits import digits
from lightning_prune.distillation.losses.hinton import Hinton
from lightning_prune.models import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet


def main(max_epochs: int = 10) -> None:
    """Train both, the second with 90 % of its weights going."""
    seed_everything(0, verbose=False)
    data = digits()
    teacher, student = (ImageClassifier(digits_resnet(), num_classes=10) for _ in range(2))
    Trainer(max_epochs=max_epochs, logger=False, enable_checkpointing=False).fit(teacher, datamodule=data)

    distillation = KnowledgeDistillation(teacher, loss=Hinton(temperature=4.0), weight=0.9, task_weight=0.1)
    callbacks: list[Callback] = [GradualPruning(sparsity=0.9), distillation, SparsityMonitor()]
    trainer = Trainer(max_epochs=max_epochs, callbacks=callbacks, logger=False, enable_checkpointing=False)
    trainer.fit(student, datamodule=data)
    print(f"{float(trainer.callback_metrics['sparsity/total']):.1%} of the weights are zero")
    for module in (teacher, student):
        trainer.test(module, datamodule=data)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
