"""The algorithm of SFP: what is reset, what grows back, and what is held at last."""

from typing import Any, ClassVar

import pytest
import torch
from foreign_module import BATCHES, CONVOLUTIONS, Foreign, Watch, counts, fit, module, zero_filters
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor

from lightning_prune import SoftFilterPruning, SparsityMonitor, slim
from lightning_prune.pruning.criteria.geometric_median import GeometricMedian
from lightning_prune.pruning.schedules.asymptotic import Asymptotic


def test_resets_zero_the_exact_filters_with_the_lowest_norm_and_nothing_else() -> None:
    model, watch = module(), Watch()

    class After(Callback):
        states: ClassVar[list[dict[str, Tensor]]] = []

        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            if trainer.is_last_batch:
                self.states.append({k: v.clone() for k, v in pl_module.state_dict().items()})

    after = After()
    fit(model, watch, SoftFilterPruning(0.3, residual="independent", hard_from=0.75), after, epochs=4)
    before, state = watch.before_reset[0], after.states[0]
    for name in CONVOLUTIONS:
        weight = before[f"{name}.weight"].double()
        norms = weight.pow(2).sum(dim=(1, 2, 3)).sqrt()
        expected = set(norms.argsort()[: int(len(norms) * 0.3 + 1e-9)].tolist())
        found = state[f"{name}.weight"]
        assert {j for j in range(len(found)) if not found[j].any()} == expected
        kept = [j for j in range(len(found)) if j not in expected]
        assert torch.equal(found[kept], before[f"{name}.weight"][kept])
    others = [name for name in state if name.removesuffix(".weight") not in CONVOLUTIONS]
    assert all(torch.equal(state[name], before[name]) for name in others)


def test_zeroed_filters_grow_back_in_the_soft_phase_and_stay_zero_in_the_hard_phase() -> None:
    model, watch = module(), Watch()
    fit(model, SoftFilterPruning(0.4, residual="independent", hard_from=0.5), watch, epochs=4)
    pruned = [6, 8, 6, 4]
    ends = [counts(zeros) for zeros in watch.batches[BATCHES - 1 :: BATCHES]]
    assert ends == [pruned] * 4
    assert sum(counts(watch.batches[BATCHES])) < sum(pruned)  # the first step after the first reset
    hard = watch.batches[2 * BATCHES - 1 :]
    assert all(zeros == hard[0] for zeros in hard)
    assert watch.validations == [zeros for i, zeros in enumerate(watch.batches) if i % BATCHES == BATCHES - 1]


def test_hard_phase_holds_everything_a_channel_owns_and_its_momentum() -> None:
    model = module()
    pruner = SoftFilterPruning(0.5, hard_from=0.5)
    trainer = fit(model, pruner, epochs=4)
    assert pruner.masks is not None
    assert set(pruner.masks) >= {"stem.0.weight", "stem.1.weight", "stem.1.bias", "block.4.weight", "head.0.bias"}
    momentum = trainer.optimizers[0].state
    for name, mask in pruner.masks.items():
        parameter = model.get_parameter(name)
        gone = ~mask.expand_as(parameter)
        assert gone.any()
        assert not parameter.detach()[gone].any()
        assert not momentum[parameter]["momentum_buffer"][gone].any()
        assert parameter.detach()[~gone].any()


@pytest.mark.parametrize("residual", ["coupled", "inner", "independent"])
def test_slim_model_is_smaller_and_gives_the_same_outputs(residual: Any) -> None:
    model = module()
    fit(model, SoftFilterPruning(0.4, residual=residual), SparsityMonitor())
    images = torch.randn(6, 3, 8, 8)
    small = slim(model, images)
    model.eval()
    small.eval()
    torch.testing.assert_close(small(images), model(images), rtol=0, atol=1e-5)
    widths = {name: small.get_submodule(name).out_channels for name in CONVOLUTIONS}
    assert (widths["block.0"], widths["head.0"]) == (12, 8)
    # a channel of the stream goes only when both layers that write to it have lost it
    lost = set(zero_filters(model)["stem.0"]) & set(zero_filters(model)["block.3"])
    assert widths["stem.0"] == widths["block.3"] == 16 - len(lost)
    assert residual == "independent" or len(lost) == {"coupled": 6, "inner": 0}[residual]


@pytest.mark.parametrize("limit", [0.5, None])
def test_reset_filters_grow_back_to_their_former_norm_at_most(limit: float | None) -> None:
    watch = Watch()

    class Norms(Callback):
        seen: ClassVar[list[Tensor]] = []

        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            self.seen.append(pl_module.get_parameter("block.0.weight").detach().flatten(1).norm(dim=1))

    norms = Norms()
    pruner = SoftFilterPruning(0.4, residual="inner", hard_from=0.75, max_regrowth=limit)
    fit(module(), watch, pruner, norms, epochs=4)
    before = watch.before_reset[0]["block.0.weight"].flatten(1).norm(dim=1)
    reset = torch.tensor(watch.validations[0]["block.0"])
    for step in range(BATCHES, 2 * BATCHES - 1):
        bounded = norms.seen[step][reset] <= (limit or 1.0) * before[reset] + 1e-6
        assert bounded.all() if limit else not bounded.all()
        assert norms.seen[step][reset].all()


def test_checkpoint_holds_the_weights_that_were_validated(tmp_path: Any) -> None:
    checkpoints = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    watch = Watch()
    fit(module(), SoftFilterPruning(0.4), watch, checkpoints, epochs=3)
    for epoch in range(3):
        saved = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)
        plain = Foreign()
        plain.load_state_dict(saved["state_dict"])
        assert zero_filters(plain) == watch.validations[epoch]
        assert sum(counts(watch.validations[epoch])) > 0


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_resumed_run_ends_at_the_same_bits(tmp_path: Any, stop_after: int) -> None:
    options: dict[str, Any] = {"epochs": 6}
    whole = module()
    pruner = SoftFilterPruning(0.4, hard_from=0.6, keep_dense=True)
    fit(whole, pruner, **options)

    saving = ModelCheckpoint(tmp_path, "epoch", enable_version_counter=False)
    with pytest.raises(SystemExit):
        fit(module(), SoftFilterPruning(0.4, hard_from=0.6, keep_dense=True), saving, StopLater(stop_after), **options)
    again, resumed = module(seed=7), SoftFilterPruning(0.4, hard_from=0.6, keep_dense=True)
    fit(again, resumed, saving, **options, ckpt_path=tmp_path / "epoch.ckpt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert pruner.masks is not None
    assert resumed.masks is not None
    assert resumed.masks.keys() == pruner.masks.keys()
    assert all(torch.equal(resumed.masks[name], mask) for name, mask in pruner.masks.items())
    assert pruner.dense_state is not None
    assert resumed.dense_state is not None
    assert all(torch.equal(resumed.dense_state[name], tensor) for name, tensor in pruner.dense_state.items())


class StopLater(Callback):
    """Interrupt the run in the epoch after the given number of epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == self.epochs and batch_idx == 2:
            raise KeyboardInterrupt


def test_pruning_nothing_trains_to_the_same_bits_as_no_callback() -> None:
    """The example input is the first batch itself: neither data nor random state notice the callbacks."""
    plain, pruned = module(dropout=0.5), module(dropout=0.5)
    torch.manual_seed(1)
    fit(plain, epochs=2)
    torch.manual_seed(1)
    fit(pruned, SoftFilterPruning(0.0), SparsityMonitor(), epochs=2)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(pruned.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16-mixed"},
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 0.1},
        {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))]},
    ],
)
def test_masks_hold_under_every_way_to_step(options: dict[str, Any]) -> None:
    model, watch = module(), Watch()
    fit(model, SoftFilterPruning(0.4, residual="independent", hard_from=0.5), watch, **options)
    assert [counts(zeros) for zeros in watch.batches[2 * BATCHES :]] == [[6, 8, 6, 4]] * (2 * BATCHES)


def test_manual_optimization_with_two_optimizers() -> None:
    class Manual(Foreign):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(super().training_step(batch, batch_idx))
                optimizer.step()

        def configure_optimizers(self) -> Any:
            first = torch.optim.AdamW([*self.stem.parameters(), *self.block.parameters()], lr=1e-2)
            return first, torch.optim.SGD([*self.head.parameters(), *self.out.parameters()], lr=1e-2)

    torch.manual_seed(0)
    model, watch = Manual(), Watch()
    fit(model, SoftFilterPruning(0.4, residual="independent", hard_from=0.5), watch)
    assert [counts(zeros) for zeros in watch.batches[2 * BATCHES :]] == [[6, 8, 6, 4]] * (2 * BATCHES)


def test_compiled_module() -> None:
    model = module()
    fit(torch.compile(model, backend="eager"), SoftFilterPruning(0.4), SparsityMonitor())  # type: ignore[arg-type]
    assert counts(zero_filters(model)) == [6, 8, 6, 4]
    assert slim(model, torch.randn(2, 3, 8, 8)).head[0].out_channels == 8


@pytest.mark.parametrize("first", [True, False])
def test_averaged_weights_are_pruned_too(first: bool, tmp_path: Any) -> None:
    model, watch = module(), Watch()
    callbacks: list[Callback] = [SoftFilterPruning(0.4, residual="independent", hard_from=0.5)]
    callbacks.insert(0 if first else 1, EMAWeightAveraging(decay=0.9))
    fit(model, *callbacks, watch, ModelCheckpoint(tmp_path, "last"))
    assert counts(zero_filters(model)) == [6, 8, 6, 4]
    plain = Foreign()
    plain.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"])
    assert counts(zero_filters(plain)) == [6, 8, 6, 4]


def test_sparsity_by_pattern() -> None:
    model = module()
    fit(model, SoftFilterPruning({"head*": 0.5, "block.0": 0.25}))
    assert counts(zero_filters(model)) == [0, 5, 0, 6]


def test_coupled_group_takes_the_lowest_sparsity_of_its_layers() -> None:
    model = module()
    fit(model, SoftFilterPruning({"stem*": 0.25, "*": 0.5}))
    assert counts(zero_filters(model)) == [4, 10, 4, 6]


def test_asymptotic_schedule_prunes_a_growing_number_of_filters() -> None:
    watch = Watch()
    fit(
        module(),
        SoftFilterPruning(0.5, schedule=Asymptotic(knee=0.3), residual="inner", hard_from=0.5),
        watch,
        epochs=8,
    )
    found = [len(zeros["block.0"]) for zeros in watch.validations]
    # 0.5 * (1 - exp(-k * t)) / (1 - exp(-k)) reaches 0.375 at t = 0.3, so k = 4.4995; t = 1/4, 2/4, 3/4, 1
    assert found == [6, 9, 9, 10, 10, 10, 10, 10]


def test_geometric_median_criterion_chooses_the_filters_nearest_to_all_others() -> None:
    model, watch = module(), Watch()
    pruner = SoftFilterPruning(0.25, criterion=GeometricMedian(), residual="independent", hard_from=0.5)
    fit(model, watch, pruner, epochs=2)
    weight = watch.before_reset[0]["block.0.weight"].double().flatten(1)
    distances = (weight[:, None] - weight[None]).pow(2).sum(-1).sqrt().sum(1)
    assert set(zero_filters(model)["block.0"]) == set(distances.argsort()[:5].tolist())
