"""A run exports its module once, and follows the graph only where that is not known already."""

from typing import Any

import pytest
import torch
from attention_networks import ATTENTION
from lightning.pytorch import LightningModule
from networks import CONVOLUTIONAL, as_tuple, difference, randomise, shapes
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_prune import GALPruning, GradualPruning, SoftFilterPruning, SparsityMonitor, slim
from lightning_prune.models.resnet import ResNet
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.runs.end_models import end_models
from lightning_prune.slimming import TracedModel, couple, prunable_groups
from lightning_prune.slimming.channels import coupling
from lightning_prune.slimming.channels.coupling import follow_channels
from lightning_prune.slimming.slim import slimmed

IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Residual(LightningModule):
    def __init__(self, example: Tensor | None) -> None:
        super().__init__()
        self.network = ResNet((1, 1, 1), (4, 8, 8))
        self.example_input_array = example

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)  # type: ignore[no-any-return]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Return how often a graph is exported, and how often one is followed."""
    found = {"exported": 0, "followed": 0}
    export, walk = torch.export.export, coupling.follow

    def exporting(*arguments: Any, **keywords: Any) -> Any:
        found["exported"] += 1
        return export(*arguments, **keywords)

    def walking(*arguments: Any) -> Any:
        found["followed"] += 1
        return walk(*arguments)

    monkeypatch.setattr(torch.export, "export", exporting)
    monkeypatch.setattr(coupling, "follow", walking)
    return found


RUNS = {
    # Labels do not depend on weights, and are followed once. Zeros do: those behind masked first units, by which
    # groups are tried, and those of the end, are with weights of other moments.
    "filters": (lambda: SoftFilterPruning(0.5), IMAGES[:2], 3),
    "filters, from the first batch": (lambda: SoftFilterPruning(0.5), None, 3),
    "blocks": (GALPruning, IMAGES[:2], 2),
    "weights": (lambda: GradualPruning(0.5, granularity=Element(), end=1.0), IMAGES[:2], 2),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_exports_its_module_once(name: str, counts: dict[str, int]) -> None:
    build, example, followed = RUNS[name]
    pruner, module = build(), Residual(example)
    trainer = quiet_trainer(SparsityMonitor(), pruner, max_epochs=2)
    trainer.fit(module, DataLoader(list(zip(IMAGES, torch.arange(8), strict=True)), batch_size=8))
    end = end_models(module, [pruner], IMAGES[:2])
    assert counts == {"exported": 1, "followed": followed}
    assert shapes(end.models["slim"]) == shapes(slim(module, IMAGES[:2]))
    assert difference(module, end.models["slim"], IMAGES[:2]) < 1e-5


def test_one_call_exports_and_follows_no_more_than_it_needs(counts: dict[str, int]) -> None:
    model = ResNet((1, 1, 1), (4, 8, 8))
    for call, followed in ((couple, 1), (slim, 1), (prunable_groups, 2)):
        counts.update(exported=0, followed=0)
        call(model, IMAGES[:2])
        assert counts == {"exported": 1, "followed": followed}


def test_a_model_traced_before_it_is_masked_is_slimmed_as_one_traced_then() -> None:
    model = ResNet((1, 1, 1), (4, 8, 8))
    traced = TracedModel(model, (IMAGES[:2],))
    for group in traced.coupling.groups():
        group.zero(model, range(group.size // 2))
    early, late = slimmed(model, traced), slimmed(model, TracedModel(model, (IMAGES[:2],)))
    assert shapes(early.model) == shapes(late.model) != shapes(model)
    assert all(
        torch.equal(early.kept[name][dim], positions)
        for name, dims in late.kept.items()
        for dim, positions in dims.items()
    )
    assert early.kept.keys() == late.kept.keys()


@pytest.mark.parametrize("name", ["resnet20-A", "densenet", "norms", "shuffle", "ghost", "packed", "biased", "vision"])
def test_which_channels_belong_together_does_not_depend_on_weights(name: str) -> None:
    case = {**CONVOLUTIONAL, **ATTENTION}[name]
    model = randomise(case.build())
    traced = TracedModel(model, as_tuple(case.inputs()))
    for fraction in (0.5, 1.0):
        for group in traced.coupling.groups():
            group.zero(model, range(int(fraction * group.size)))
        masked, _ = follow_channels(model, traced.program)
        assert torch.equal(masked.channel, traced.coupling.channel)
        assert masked.reasons == traced.coupling.reasons
        assert {kind: [one.name for one in found] for kind, found in masked.blocks_and_branches.items()} == {
            kind: [one.name for one in found] for kind, found in traced.coupling.blocks_and_branches.items()
        }


def test_a_traced_model_is_of_the_very_model_and_tensors() -> None:
    model, images = nn.Linear(8, 2), IMAGES[:2]
    traced = TracedModel(model, (images,))
    assert traced.is_of(model, (images,))
    assert not traced.is_of(nn.Linear(8, 2), (images,))
    assert not traced.is_of(model, (images.clone(),))
    assert not traced.is_of(model, (images, images))
