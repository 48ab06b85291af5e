"""Distillation in whole runs: interruptions, other callbacks, refusals."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from quiet_trainer import quiet_trainer
from taught import HINT, Plain, distillation, fit, same, seeded, wide
from torch import Tensor

from lightning_prune.callbacks.exact_resume import ExactResume
from lightning_prune.callbacks.knowledge_distillation import KnowledgeDistillation
from lightning_prune.callbacks.regularization import Regularization
from lightning_prune.callbacks.soft_filter_pruning import SoftFilterPruning
from lightning_prune.data.digits import digits
from lightning_prune.distillation.losses.attention import Attention
from lightning_prune.distillation.losses.hint import Hint
from lightning_prune.distillation.losses.match import Match
from lightning_prune.errors import InputError
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet


class Stops(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:Checkpoint directory", "ignore:You're resuming from a checkpoint that ended before")
@pytest.mark.parametrize("step", [4, 6])  # of 4 in an epoch
def test_a_run_stopped_anywhere_ends_with_the_same_bits(step: int, tmp_path: Path) -> None:
    def callbacks() -> list[Callback]:
        file = ModelCheckpoint(tmp_path, "last", every_n_train_steps=1, enable_version_counter=False)
        return [distillation(features=HINT, warm_up=3, decay=0.6), ExactResume(), file]

    whole, stopped, resumed = seeded(), seeded(), seeded()
    run = callbacks()
    expected = fit(whole, *run[:-1], max_epochs=2)
    with pytest.raises(SystemExit):
        fit(stopped, *callbacks(), Stops(step), max_epochs=2)
    again = callbacks()
    trainer = fit(resumed, *again, path=tmp_path / "last.ckpt", max_epochs=2)
    assert same(resumed, whole)
    assert not same(resumed, stopped)
    states = [callback.state_dict()["adapters"] for callback in (run[0], again[0])]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert {name: float(value) for name, value in trainer.callback_metrics.items()} == {
        name: float(value) for name, value in expected.callback_metrics.items()
    }
    torch.load(tmp_path / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("interrupted", [False, True])
def test_module_and_teacher_are_left_as_they_were_and_the_callback_can_be_used_again(interrupted: bool) -> None:
    callback = distillation(features=HINT)
    if interrupted:
        stopped = seeded()
        with pytest.raises(SystemExit):
            fit(stopped, callback, Stops(6))
        assert not any(len(part._forward_hooks) for part in stopped.modules())
        assert "training_step" not in vars(stopped)
    else:
        fit(seeded(), callback)
    again, once = seeded(), seeded()
    fit(again, callback)
    fit(once, distillation(features=HINT))
    assert same(again, once)


def test_the_order_in_the_list_does_not_matter() -> None:
    class Foreign(Callback):
        def on_fit_start(self, trainer: Trainer, *args: Any) -> None:
            self.order = [type(callback).__name__ for callback in trainer.callbacks]  # type: ignore[attr-defined]

    ends = []
    for turned in (False, True):
        torch.manual_seed(0)
        module, foreign = ImageClassifier(digits_resnet(), 10), Foreign()
        kd = KnowledgeDistillation(weight=0.5, features=[Match("layer1", "layer1", Attention())], student="network")
        callbacks: list[Callback] = [kd, Regularization(1e-3), SoftFilterPruning(0.4)]
        callbacks = [*reversed(callbacks)] if turned else callbacks
        callbacks.insert(1, foreign)
        trainer = quiet_trainer(*callbacks, limit_train_batches=3)
        trainer.fit(module, datamodule=digits())
        assert foreign.order[:4] == ["KnowledgeDistillation", "Foreign", "Regularization", "SoftFilterPruning"]
        ends.append(module)
    assert same(*ends)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1}, "expected weight in [0, inf), got -1"),
        ({"task_weight": float("nan")}, "expected task_weight in [0, inf), got nan"),
        (
            {"loss": "hinton"},
            "expected loss to be a function of (student, teacher, labels) such as Hinton(), got 'hinton'; write: from "
            "lightning_prune.distillation.losses.hinton import Hinton, and pass Hinton()",
        ),
        ({"features": ["layer1"]}, "expected an entry of features to be a Match, got 'layer1'"),
        (
            {"features": HINT * 2},
            "expected every layer once for each loss in features, got two of distillation/hint[0]",
        ),
        (
            {"warm_up": -1},
            "expected warm_up in optimizer steps (a whole number) or as a fraction of the run in [0.0, 1.0], got -1",
        ),
        (
            {"decay": 1.5},
            "expected decay in optimizer steps (a whole number) or as a fraction of the run in [0.0, 1.0], got 1.5",
        ),
    ],
)
def test_bad_arguments_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        KnowledgeDistillation(**options)
    assert str(caught.value) == message


def test_a_match_without_a_loss_or_of_a_negative_weight_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"expected the loss of a match to be a function of \(student, teacher\) such as Attention"
    ):
        Match("layer1", "layer1", None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected the weight of a match in \[0, inf\), got -1"):
        Match("layer1", "layer1", Hint(), weight=-1)


class Manual(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (
            Plain,
            {"features": [Match("0", "0", Hint())]},
            "expected features of one shape (adapt=True makes them so), got student (2, 8) and teacher (2, 12), in the "
            "match of 0 with 0",
        ),
        (Plain, {"features": [Match("9", "0", Hint())]}, "expected the name of a layer of the student, got '9'; there"),
        (Plain, {"warm_up": 100}, "expected warm_up within the 8 optimizer steps of this run, got 100"),
        (Manual, {}, "expected a module with automatic optimization, got Manual with automatic_optimization=False;"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(cls: type[Plain], options: Any, message: str) -> None:
    class Known(cls):  # type: ignore[valid-type, misc]
        def forward(self, x: Tensor) -> Any:
            return self.net(x)

    module = seeded(Known)
    module.example_input_array = torch.zeros(2, 5)
    before = copy.deepcopy(module.net)
    with pytest.raises(InputError) as caught:
        fit(module, distillation(**options))
    assert str(caught.value).replace("Known", "Manual").startswith(message)
    assert "\n" not in str(caught.value)
    assert same(module.net, before)


def test_two_of_a_kind_are_refused() -> None:
    class Another(KnowledgeDistillation):
        pass

    message = "expected KnowledgeDistillation without Another beside it: each would weigh the step's own loss"
    with pytest.raises(InputError, match=message):
        fit(seeded(), distillation(), Another(wide()))
    with pytest.raises(InputError, match="expected KnowledgeDistillation without KnowledgeDistillation beside it"):
        fit(seeded(), distillation(), distillation())
    with pytest.raises(
        InputError, match=r"expected ExactResume without .* beside it: one saves the state of the whole run"
    ):
        fit(seeded(), distillation(), ExactResume(), ExactResume())
