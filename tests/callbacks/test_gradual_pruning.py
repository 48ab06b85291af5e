"""When pruning happens, what holds, and what goes on after an interruption."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from gradual_net import BATCHES, WEIGHTS, Net, Record, data, fitted
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from quiet_trainer import quiet_trainer

from lightning_prune import GradualPruning
from lightning_prune.pruning.criteria.apoz import APoZ
from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.pruning.criteria.movement import Movement
from lightning_prune.pruning.criteria.optimal_brain_damage import OptimalBrainDamage
from lightning_prune.pruning.criteria.taylor import Taylor
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.kernel import Kernel
from lightning_prune.pruning.granularities.pattern import Pattern
from lightning_prune.pruning.schedules.cubic import Cubic
from lightning_prune.pruning.schedules.iterative import Iterative
from lightning_prune.pruning.schedules.one_shot import OneShot
from lightning_prune.training.process_agreement import check_agreement
from lightning_prune.training.timeline import Timeline


def test_every_step_has_exactly_the_zeros_of_the_cubic_schedule() -> None:
    record = Record()
    fitted(GradualPruning(0.9, begin=3, end=15, every=4), record)
    n = 16 * 8 * 9
    wanted, current = [], 0
    for step in range(1, 21):
        if step in (3, 7, 11, 15):
            current = round(n * (0.9 - 0.9 * (1 - (step - 3) / 12) ** 3))
        wanted.append(current)
    assert record.zeros("middle.weight") == wanted
    assert record.zeros("stem.weight") == [0] * 20  # the first layer is skipped
    assert record.zeros("middle.bias") == [0] * 20


def test_masks_only_grow_and_hold_weights_and_momentum() -> None:
    for optimizer in ("sgd", "adam"):
        record = Record()
        fitted(GradualPruning(0.8, begin=0.1, end=0.6, every=2), record, module=Net(optimizer))
        for before, after in pairwise(record.weights):
            assert ((before["last.weight"] == 0) <= (after["last.weight"] == 0)).all()
        for weights, momenta in zip(record.weights, record.momenta, strict=True):
            zero = weights["last.weight"] == 0
            assert (momenta["last.weight"][zero] == 0).all()
        assert record.zeros("last.weight")[-1] == round(0.8 * 12 * 16 * 9)


def test_gradient_accumulation_counts_optimizer_steps() -> None:
    record = Record()
    fitted(GradualPruning(0.5, begin=2, end=4, every=1, schedule=OneShot()), record, accumulate_grad_batches=3)
    zeros = record.zeros("head.weight")
    assert zeros[:5] == [0] * 5  # five batches are one step
    assert zeros[5:] == [24] * 15


def test_an_end_off_the_grid_still_gets_its_choice() -> None:
    assert [Timeline(0, 7, 3).choices(step) for step in range(-1, 9)] == [0, 1, 1, 1, 2, 2, 2, 3, 4, 4]
    for timeline in (Timeline(5, 5, 3), Timeline(0, 100, 7), Timeline(3, 10, 100)):
        moments = [s for s in range(101) if timeline.choices(s) > timeline.choices(s - 1)]
        assert moments == sorted({*range(timeline.begin, timeline.end, timeline.every), timeline.end})
        for step in range(101):
            assert timeline.upcoming(step) == next((m for m in moments if m >= step), None)


def test_fractions_of_the_run_are_steps() -> None:
    one, two = Record(), Record()
    fitted(GradualPruning(0.9, begin=0.25, end=0.75, every=0.1), one)
    fitted(GradualPruning(0.9, begin=5, end=15, every=2), two)
    assert one.zeros("last.weight") == two.zeros("last.weight")


def test_soft_pruning_lets_weights_grow_back_until_its_end() -> None:
    record = Record()
    callback = GradualPruning(0.5, begin=2, end=10, every=4, schedule=OneShot(), soft=True)
    fitted(callback, record)
    zeros = record.zeros("last.weight")
    half = 12 * 16 * 9 // 2
    assert zeros[1] == zeros[5] == half
    assert zeros[2] < half
    assert zeros[9:] == [half] * 11
    assert callback.is_final


def test_a_lottery_ticket_goes_back_to_its_early_weights() -> None:
    record = Record()
    callback = GradualPruning(
        1 - 0.8**3,
        schedule=Iterative(3),
        scope="global",
        begin=5,
        end=15,
        every=5,
        skip=(),
        rewind="weights",
        rewind_to=2,
    )
    fitted(callback, record)
    total = 3144
    names = [f"{name}.weight" for name in WEIGHTS]
    for step, density in ((5, 0.8), (10, 0.64), (15, 0.512)):
        weights = record.weights[step - 1]
        kept = sum(int((weights[name] != 0).sum()) for name in names)
        assert kept == pytest.approx(density * total, abs=1)
        for name in names:
            alive = weights[name] != 0
            assert torch.equal(weights[name][alive], record.weights[1][name][alive])
        assert torch.equal(weights["norm.bias"], record.weights[1]["norm.bias"])
        alive = weights["last.weight"] != 0
        assert torch.equal(
            record.momenta[step - 1]["last.weight"], torch.where(alive, record.momenta[1]["last.weight"], 0.0)
        )


def test_the_learning_rate_alone_goes_back() -> None:
    record = Record()
    callback = GradualPruning(
        0.5, schedule=Iterative(2), begin=15, end=25, every=10, rewind="learning_rate", rewind_to=1
    )
    fitted(callback, record, max_epochs=4)
    rates = [0.05] * 9 + [0.045] * 5 + [0.05] * 5 + [0.045] * 5 + [0.05] * 5
    assert record.rates[:29] == pytest.approx(rates)
    changed = (record.weights[14]["middle.bias"] - record.weights[0]["middle.bias"]).abs().max()
    assert changed > 1e-3
    assert (record.momenta[14]["middle.bias"] == 0).all()


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize(
    "options",
    [
        {"criterion": Taylor(), "gather": 5},
        {"criterion": Movement()},
        {"criterion": OptimalBrainDamage(), "gather": 5},
        {"criterion": APoZ(), "granularity": Channel(), "gather": 5},
        {"granularity": Pattern(), "sparsity": None},
        {"schedule": Iterative(3), "rewind": "weights", "rewind_to": 1},
    ],
    ids=lambda options: next(iter(options)) + str(next(iter(options.values()))),
)
def test_a_run_resumes_within_a_window_to_the_same_bits(options: dict[str, Any], tmp_path: Path) -> None:
    # The checkpoint after 20 of 40 steps falls within the gathering before the choice at step 24.
    options = {"sparsity": 0.6, "begin": 12, "end": 36, "every": 12, **options}
    whole = fitted(GradualPruning(**options), max_epochs=4)
    checkpoint = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1)
    fitted(GradualPruning(**options), checkpoint, max_epochs=4)
    module = Net()
    quiet_trainer(GradualPruning(**options), ModelCheckpoint(tmp_path), max_epochs=4).fit(
        module, data(), ckpt_path=tmp_path / "step=20.ckpt", weights_only=True
    )
    for name, tensor in whole.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor), name


def test_two_prunings_in_one_run_keep_their_states_apart() -> None:
    one, two = GradualPruning(granularity=Pattern()), GradualPruning(0.5, granularity=Kernel())
    assert one.kind != two.kind


@pytest.mark.filterwarnings("ignore")
def test_processes_that_disagree_fail_loudly(tmp_path: Path) -> None:
    quiet_trainer(Disagree(tmp_path), devices=2, strategy="ddp_spawn", max_epochs=1, limit_train_batches=1).fit(
        Net(), data()
    )
    assert {file.name for file in tmp_path.iterdir()} == {"0", "1"}


class Disagree(Callback):
    """Compare masks that are the same in both processes, then masks that differ; a file says which process is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        masks = {"a": torch.tensor([True, False]), "b": torch.ones(3, dtype=torch.bool)}
        check_agreement(trainer, masks)
        masks["b"] = torch.tensor([True, True, trainer.global_rank == 0])
        with pytest.raises(RuntimeError, match="got different ones of b"):
            check_agreement(trainer, masks)
        (self.folder / str(trainer.global_rank)).touch()


def test_a_further_fit_goes_on_with_the_masks() -> None:
    for same in (True, False):
        callback, record = GradualPruning(0.8), Record()
        module = fitted(callback)
        gone = module.last.weight == 0
        fit = quiet_trainer(callback, record, max_epochs=2)
        if same:
            fit.fit(module, data())
            fit.fit_loop.max_epochs = 4
        fit.fit(module, data())
        assert callback.is_final
        assert all(torch.equal(weights["last.weight"] == 0, gone) for weights in record.weights)
        other = Net()
        quiet_trainer(callback, max_epochs=2, limit_train_batches=1, fast_dev_run=True).fit(other, data())
        assert (other.last.weight != 0).any()  # masks of one module are not those of another


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_layers_that_no_longer_compete_stay_pruned(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, "first")
    module = fitted(GradualPruning(0.5, begin=2, end=4, skip=()), checkpoint)
    gone = module.stem.weight == 0
    again = Net()
    callback = GradualPruning(0.8, begin=25, end=30)
    quiet_trainer(callback, checkpoint, max_epochs=4).fit(
        again, data(), ckpt_path=tmp_path / "first.ckpt", weights_only=True
    )
    assert torch.equal(again.stem.weight == 0, gone)


def test_averaged_weights_meet_the_masks_before_batch_norm_does() -> None:
    class Check(Callback):
        sparsities: list[float]

        def __init__(self) -> None:
            self.sparsities = []

        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            self.sparsities.append(float((pl_module.last.weight == 0).float().mean()))

    check = Check()
    averaging = StochasticWeightAveraging(5e-2, swa_epoch_start=0.2)
    fitted(GradualPruning(0.9, end=0.5), averaging, check, max_epochs=5)
    assert min(check.sparsities[-BATCHES * 2 :]) == pytest.approx(0.9, abs=1e-3)  # with the epoch for batch norm


@pytest.mark.parametrize("criterion", [Magnitude(), Taylor(), Movement()])
def test_a_run_of_one_step_has_a_beginning_and_an_end(criterion: Any) -> None:
    module = fitted(GradualPruning(0.5, criterion=criterion), max_epochs=1, limit_train_batches=1)
    assert (module.last.weight == 0).float().mean() == 0.5
    fitted(GradualPruning(0.5, criterion=criterion, begin=100, end=200), fast_dev_run=True)


def test_a_run_that_ends_early_says_so() -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            trainer.should_stop = trainer.global_step >= 5

    with pytest.warns(UserWarning, match="ended after 5 optimizer steps, before the last choice of what .* at step 18"):
        fitted(GradualPruning(0.5, end=0.9), Stop())


def test_a_schedule_may_start_above_zero() -> None:
    record = Record()
    fitted(GradualPruning(0.8, schedule=Cubic(initial=0.05), begin=1, end=20, every=5), record)
    assert record.zeros("head.weight")[0] == round(0.05 * 48)
