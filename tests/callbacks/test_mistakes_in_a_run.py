"""Mistakes that show once callbacks, modules and files come together: one line each, before anything is trained."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gradual_net import Net, Record, data
from lightning.pytorch import Callback, LightningModule
from quiet_trainer import quiet_trainer
from torch import Tensor, nn

from lightning_prune import (
    ADMMPruning,
    ExactResume,
    GALPruning,
    GradualPruning,
    KnowledgeDistillation,
    NetworkSlimming,
    QuantizationAwareTraining,
    Regularization,
    SoftFilterPruning,
    SparsityMonitor,
    WeightSharing,
    load_slim,
    prunable_groups,
    save_slim,
    slim,
)
from lightning_prune.errors import InputError
from lightning_prune.models import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.pruning.granularities.n_m import NM
from lightning_prune.pruning.granularities.vector import Vector

IMAGES = torch.zeros(2, 3, 8, 8)


def refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def refused_in_a_fit(message: str, *callbacks: Callback, module: LightningModule | None = None) -> None:
    module, record = module or Net(), Record()
    trainer = quiet_trainer(*callbacks, record, max_epochs=2)
    refused(lambda: trainer.fit(module, data()), message)
    assert not record.weights


# Callbacks --------------------------------------------------------------------------------------------------------

TWICE: dict[str, Callable[[], Callback]] = {
    "gradual": lambda: GradualPruning(0.5),
    "soft": lambda: SoftFilterPruning(0.4),
    "admm": lambda: ADMMPruning(0.5),
    "slimming": lambda: NetworkSlimming(0.4),
    "gal": GALPruning,
    "distillation": KnowledgeDistillation,
    "quantization": lambda: QuantizationAwareTraining(example_input=IMAGES),
    "sharing": WeightSharing,
    "monitor": SparsityMonitor,
    "resume": ExactResume,
}


@pytest.mark.parametrize("name", TWICE)
def test_two_of_a_kind_are_refused(name: str) -> None:
    one, two = TWICE[name](), TWICE[name]()
    refused_in_a_fit(
        f"expected one {type(one).__name__} of a kind, got two|without {type(one).__name__} beside", one, two
    )


@pytest.mark.parametrize("name", [*TWICE, "regularization"])
def test_one_callback_is_in_the_list_once(name: str) -> None:
    one = TWICE.get(name, lambda: Regularization(1e-3))()
    refused_in_a_fit(f"the same {type(one).__name__} twice|without {type(one).__name__} beside", one, one)


def test_penalties_and_pruners_of_different_kinds_work_beside_each_other(tmp_path: Path) -> None:
    def callbacks() -> list[Callback]:
        pruners = [GradualPruning(0.5), GradualPruning(granularity=NM(2, 4))]
        return [*pruners, Regularization(1e-3), Regularization(1e-4, granularity=Element())]

    trainer, module = quiet_trainer(*callbacks(), max_epochs=1), Net()
    trainer.fit(module, data())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]
    assert sorted(key for key in saved if key.startswith("GradualPruning")) == sorted(
        f"GradualPruning{ {'granularity': one, 'criterion': callbacks()[0].criterion, 'rewind': None}!r}"  # type: ignore[attr-defined]
        for one in (Element(), NM(2, 4))
    )
    assert set(saved) == {key for key in saved if key.startswith(("GradualPruning", "Regularization"))}


# Moments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (GradualPruning, "end"),
        (ADMMPruning, "end"),
        (GALPruning, "end"),
        (NetworkSlimming, "prune_at"),
        (WeightSharing, "begin"),
        (KnowledgeDistillation, "warm_up"),
        (KnowledgeDistillation, "decay"),
        *((QuantizationAwareTraining, name) for name in ("activations_from", "freeze_ranges", "freeze_batch_norm")),
    ],
)
def test_a_single_step_is_refused_where_it_makes_no_sense(build: Any, name: str) -> None:
    needed = {"sparsity": 0.4} if build in (GradualPruning, ADMMPruning, NetworkSlimming) else {}
    refused(
        lambda: build(**needed, **{name: 1}), f"expected {name}=1.0 for the end .*, or {name}=2 or more in .*{name}=1,"
    )
    for moment in (1.0, 2):
        build(**needed, **{name: moment})


@pytest.mark.parametrize("name", ["begin", "every", "rewind_to"])
def test_a_single_step_is_fine_for_beginnings_and_intervals(name: str) -> None:
    GradualPruning(0.5, **{name: 1})  # type: ignore[arg-type]


# Modules ----------------------------------------------------------------------------------------------------------


class Deciding(Net):
    """A module whose code looks at numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.mean() > 0 else -x)


DECISION = r"same whatever the numbers .* in Deciding, line \d+ of test_mistakes_in_a_run.py, `return super\(\)"


@pytest.mark.parametrize("known", [True, False], ids=["known before", "from the first batch"])
@pytest.mark.parametrize(
    "build",
    [
        lambda **options: SoftFilterPruning(0.4, **options),
        lambda **options: NetworkSlimming(0.4, **options),
        lambda **options: GradualPruning(0.4, granularity=Channel(), **options),
        GALPruning,
    ],
)
def test_decisions_by_numbers_are_refused_before_training(build: Any, known: bool) -> None:
    refused_in_a_fit(DECISION, build(**({"example_input": IMAGES} if known else {})), module=Deciding())


def test_decisions_by_numbers_are_refused_without_a_trainer(capfd: pytest.CaptureFixture[str]) -> None:
    refused(lambda: slim(Deciding(), IMAGES), DECISION)
    refused(lambda: prunable_groups(Deciding(), IMAGES), DECISION)
    refused_in_a_fit(DECISION, QuantizationAwareTraining(example_input=IMAGES), module=Deciding())
    assert "def forward" not in "".join(capfd.readouterr())  # the graph, which torch prints


def test_decisions_by_numbers_are_told_by_a_monitor_that_only_sees_batches(caplog: pytest.LogCaptureFixture) -> None:
    refused_in_a_fit(DECISION, SparsityMonitor(IMAGES), module=Deciding())
    quiet_trainer(SparsityMonitor(), max_epochs=1).fit(Deciding(), data())
    assert re.search(DECISION, caplog.text)


def test_decisions_by_numbers_do_not_matter_for_single_weights() -> None:
    module = Deciding()
    quiet_trainer(GradualPruning(0.5), max_epochs=1).fit(module, data())
    assert (module.middle.weight == 0).float().mean() == 0.5


class Narrow(nn.Module):
    """A teacher of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


class Wide(Narrow):
    """A teacher of other classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 7, 3)


@pytest.mark.parametrize(
    ("teacher", "message"), [(Narrow(), "takes what the student is given, got a Narrow"), (Wide(), r"logits.*\(4, 7\)")]
)
def test_a_teacher_that_does_not_fit_is_refused(teacher: nn.Module, message: str) -> None:
    module = Net()
    module.example_input_array = torch.zeros(4, 3, 8, 8)
    refused_in_a_fit(message, KnowledgeDistillation(teacher), module=module)
    refused_in_a_fit(message, KnowledgeDistillation(teacher))  # in the first step
    refused_in_a_fit("another architecture", GALPruning(teacher))


@pytest.mark.parametrize("pruner", [SoftFilterPruning, NetworkSlimming, GradualPruning, ADMMPruning])
def test_a_sparsity_is_asked_for(pruner: Any) -> None:
    refused(pruner, r"expected a sparsity in \[0, 1\) for granularity .*, got None; give sparsity=0.4")


# Files ------------------------------------------------------------------------------------------------------------


def test_swapped_arguments_and_files_that_cannot_be_written(tmp_path: Path) -> None:
    model, path = Net(), tmp_path / "slim.pt"
    refused(lambda: save_slim(path, model), r"save_slim\(model, path\), got them the other way round")  # type: ignore[arg-type]
    refused(lambda: load_slim(path, model), r"load_slim\(model, path\), got them the other way round")  # type: ignore[arg-type,type-var]
    refused(lambda: load_slim(model, path), "slim.pt, which does not exist")
    refused(lambda: load_slim(model, tmp_path), "which is a folder")
    refused(lambda: save_slim(model, tmp_path), "expected a file that can be written, got .*: Is a directory")
    save_slim(model, tmp_path / "new" / "folder" / "slim.pt")
    load_slim(Net(), tmp_path / "new" / "folder" / "slim.pt")
    below = tmp_path / "new" / "folder" / "slim.pt" / "other.pt"
    refused(lambda: save_slim(model, below), "expected a file that can be written, got .*other.pt: ")


def test_a_slim_checkpoint_says_how_it_is_opened(tmp_path: Path) -> None:
    dense = ImageClassifier(digits_resnet(), 10).eval()
    for group in prunable_groups(dense, torch.zeros(2, 1, 8, 8)):
        group.zero(dense, [0])
    save_slim(slim(dense, torch.zeros(2, 1, 8, 8)), tmp_path / "slim.pt")
    arguments = {"network": digits_resnet(), "num_classes": 10}
    opened = lambda: ImageClassifier.load_from_checkpoint(tmp_path / "slim.pt", **arguments)  # noqa: E731
    refused(opened, r"got that of a slim one; open it by lightning_prune.load_slim\(module, path\)")
    save_slim(dense, tmp_path / "dense.pt")
    ImageClassifier.load_from_checkpoint(tmp_path / "dense.pt", **arguments)


# Reports ----------------------------------------------------------------------------------------------------------


def test_a_report_says_what_zeros_do_for_speed() -> None:
    module = copy.deepcopy(Net())
    assert "granularity=output_channel" in GradualPruning(0.5).report(module)["speed"]
    assert "granularity=n_m" in GradualPruning(0.5, granularity=Vector()).report(module)["speed"]
    assert "to_semi_structured" in GradualPruning(granularity=NM(2, 4)).report(module)["speed"]
    assert GradualPruning(0.5, granularity=Channel()).report(module) == {}
    assert SoftFilterPruning(0.5).report(module) == {}
