"""What a user of SoftFilterPruning relies on, seen from outside through a real Trainer."""

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import SoftFilterPruning, SparsityMonitor, slim
from lightning_prune.errors import InputError
from lightning_prune.pruning.criteria.geometric_median import GeometricMedian
from lightning_prune.pruning.schedules.asymptotic import Asymptotic

BATCHES = 5
CONVOLUTIONS = ("stem.0", "block.0", "block.3", "head.0")


class Foreign(LightningModule):
    """A LightningModule from outside: a residual block in functional style, nothing known of this package."""

    def __init__(self, lr: float = 0.05, dropout: float = 0.0) -> None:
        super().__init__()
        self.lr = lr
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.block = nn.Sequential(
            nn.Conv2d(16, 20, 3, padding=1, bias=False),
            nn.BatchNorm2d(20),
            nn.ReLU(),
            nn.Conv2d(20, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.head = nn.Sequential(nn.Conv2d(16, 12, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout))
        self.out = nn.Linear(12 * 9, 4)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.stem(image))
        x = F.relu(x + self.block(x))
        logits: Tensor = self.out(self.head(x))
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, label = batch
        return F.cross_entropy(self(image), label)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        image, label = batch
        self.log("val_loss", F.cross_entropy(self(image), label))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def loader(seed: int = 0) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(BATCHES * 8, 3, 8, 8, generator=generator)
    return DataLoader(TensorDataset(images, images.mean(dim=(1, 2, 3)).mul(20).long().clamp(-2, 1) + 2), batch_size=8)


def fit(module: LightningModule, *callbacks: Callback, epochs: int = 4, **options: Any) -> Trainer:
    resume = options.pop("ckpt_path", None)
    trainer = quiet_trainer(*callbacks, max_epochs=epochs, num_sanity_val_steps=0, **options)
    trainer.fit(module, loader(), loader(1), ckpt_path=resume, weights_only=True)
    return trainer


def module(seed: int = 0, **options: Any) -> Foreign:
    torch.manual_seed(seed)
    return Foreign(**options)


def zero_filters(model: nn.Module) -> dict[str, list[int]]:
    weights = {name: model.get_submodule(name).weight.detach() for name in CONVOLUTIONS}
    return {name: (w.flatten(1) == 0).all(dim=1).nonzero().reshape(-1).tolist() for name, w in weights.items()}


class Watch(Callback):
    """Record what the weights are when the Trainer calls its other parts."""

    def __init__(self) -> None:
        self.before_reset: list[dict[str, Tensor]] = []
        self.batches: list[dict[str, list[int]]] = []
        self.validations: list[dict[str, list[int]]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.batches.append(zero_filters(pl_module))
        if trainer.is_last_batch:
            self.before_reset.append({k: v.clone() for k, v in pl_module.state_dict().items()})

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validations.append(zero_filters(pl_module))


def counts(zeros: dict[str, list[int]]) -> list[int]:
    return [len(zeros[name]) for name in CONVOLUTIONS]


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


def test_resets_every_n_epochs() -> None:
    watch = Watch()
    fit(module(), SoftFilterPruning(0.4, residual="inner", every_n_epochs=3, hard_from=0.8), watch, epochs=9)
    assert [len(zeros["block.0"]) > 0 for zeros in watch.validations] == [False, False, True] * 2 + [True] * 3


def test_prune_before_training() -> None:
    watch, model = Watch(), module()
    start = copy.deepcopy(model)

    class First(Callback):
        seen: ClassVar[list[dict[str, list[int]]]] = []

        def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
            self.seen.append(zero_filters(pl_module))

    first = First()
    fit(model, SoftFilterPruning(0.4, residual="inner", prune_before_training=True), first, watch)
    norms = start.block[0].weight.detach().flatten(1).norm(dim=1)
    assert first.seen[0]["block.0"] == sorted(norms.argsort()[:8].tolist())


def test_paper_behaviour_resets_last_and_warns() -> None:
    model = module()
    with pytest.warns(UserWarning, match="hard_from=None"):
        fit(model, SoftFilterPruning(0.4, hard_from=None))
    assert counts(zero_filters(model)) == [6, 8, 6, 4]
    assert slim(model, torch.randn(2, 3, 8, 8)).block[0].out_channels == 12


def test_run_that_stops_in_its_soft_phase_ends_pruned_and_warns() -> None:
    class StopSoon(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.should_stop = True

    model = module()
    with pytest.warns(UserWarning, match="soft phase"):
        fit(model, SoftFilterPruning(0.4), StopSoon(), epochs=10)
    assert slim(model, torch.randn(2, 3, 8, 8)).block[0].out_channels == 12


def test_run_of_one_epoch_is_hard_from_the_start() -> None:
    model, watch = module(), Watch()
    with pytest.warns(UserWarning, match="no soft phase"):
        fit(model, SoftFilterPruning(0.4), watch, epochs=1)
    assert [counts(zeros) for zeros in watch.batches] == [[6, 8, 6, 4]] * BATCHES


def test_run_limited_by_steps() -> None:
    model, watch = module(), Watch()
    fit(model, SoftFilterPruning(0.4, hard_from=0.5), watch, epochs=-1, max_steps=4 * BATCHES)
    assert [counts(zeros) for zeros in watch.batches[2 * BATCHES :]] == [[6, 8, 6, 4]] * (2 * BATCHES)


def test_one_callback_can_prune_one_module_after_another() -> None:
    pruner = SoftFilterPruning(0.4)
    first, second = module(), module(seed=1)
    fit(first, pruner)
    fit(second, pruner)
    assert counts(zero_filters(first)) == counts(zero_filters(second)) == [6, 8, 6, 4]
    assert zero_filters(first) != zero_filters(second)


def test_dense_state_is_the_one_before_the_last_reset() -> None:
    watch, pruner = Watch(), SoftFilterPruning(0.4, hard_from=0.5, keep_dense=True)
    fit(module(), watch, pruner)
    assert pruner.dense_state is not None
    assert all(torch.equal(pruner.dense_state[name], tensor) for name, tensor in watch.before_reset[1].items())


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_module_that_takes_a_dictionary() -> None:
    class Dictionary(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step((batch["image"], batch["label"]), batch_idx)

    torch.manual_seed(0)
    model = Dictionary()
    data = [{"label": label, "image": image} for image, label in loader().dataset]
    trainer = quiet_trainer(SoftFilterPruning(0.4), limit_val_batches=0)
    trainer.fit(model, DataLoader(data, batch_size=8))  # type: ignore[arg-type]
    assert counts(zero_filters(model)) == [6, 8, 6, 4]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SoftFilterPruning(1.2), r"expected sparsity in \[0, 1\), got 1.2"),
        (lambda: SoftFilterPruning(-0.1), r"expected sparsity in \[0, 1\), got -0.1"),
        (lambda: SoftFilterPruning(float("nan")), r"expected sparsity in \[0, 1\), got nan"),
        (lambda: SoftFilterPruning("0.4"), r"expected sparsity in \[0, 1\), got '0.4'"),  # type: ignore[arg-type]
        (lambda: SoftFilterPruning({"stem": 2.0}), r"expected sparsity\[stem\] in \[0, 1\), got 2.0"),
        (lambda: SoftFilterPruning({}), "at least one layer pattern"),
        (lambda: SoftFilterPruning(0.4, residual="some"), "residual to be one of coupled, inner, independent"),  # type: ignore[arg-type]
        (lambda: SoftFilterPruning(0.4, hard_from=1.0), r"hard_from to be None or in \[0, 1\), got 1.0"),
        (lambda: SoftFilterPruning(0.4, every_n_epochs=1.5), "whole number of at least 1, got 1.5"),  # type: ignore[arg-type]
        (lambda: SoftFilterPruning(0.4, hard_from="x"), "hard_from to be None or in"),  # type: ignore[arg-type]
        (lambda: SoftFilterPruning(0.4, criterion="magnitude"), "criterion to be a criterion such as"),  # type: ignore[arg-type]
        (lambda: SoftFilterPruning(0.4, schedule="x"), "schedule to be a function"),  # type: ignore[arg-type]
        (lambda: SoftFilterPruning(0.4, max_regrowth=0), "max_regrowth to be None or greater than 0, got 0"),
        (lambda: SoftFilterPruning(0.4, every_n_epochs=0), "every_n_epochs to be a whole number of at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused_with_one_line(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pruner", "message"),
    [
        (lambda: SoftFilterPruning({"nothing*": 0.5}), r"sparsity\[nothing\*\] to match a prunable layer"),
        (lambda: SoftFilterPruning({"stem*": 0.5}), "whose layers are all coupled with layers that it does not match"),
        (lambda: SoftFilterPruning(0.4, example_input=torch.randn(2, 1, 8, 8)), "traceable by torch.export"),
        (lambda: SoftFilterPruning(0.4, example_input="images"), "example_input to be a tensor or a tuple"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(pruner: Callable[[], Callback], message: str) -> None:
    model = module()
    start = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=message) as caught:
        fit(model, pruner())
    assert "\n" not in str(caught.value)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in start.items())


def test_frozen_layers_stay_as_they_are() -> None:
    model = module()
    model.block[0].requires_grad_(False)
    start = model.block[0].weight.clone()
    fit(model, SoftFilterPruning(0.4))
    assert torch.equal(model.block[0].weight, start)
    assert counts(zero_filters(model)) == [6, 0, 6, 4]


def test_forward_with_two_inputs_and_a_monitor_beside() -> None:
    class Two(Foreign):
        def forward(self, image: Tensor, scale: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(image * scale[:, None, None, None])

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self(*batch[:2]).square().mean()  # type: ignore[no-any-return]

        validation_step = training_step  # type: ignore[assignment]

    torch.manual_seed(0)
    model = Two()
    data = DataLoader(TensorDataset(torch.randn(16, 3, 8, 8), torch.rand(16), torch.zeros(16)), batch_size=8)
    quiet_trainer(SoftFilterPruning(0.4), SparsityMonitor()).fit(model, data, data)
    assert counts(zero_filters(model)) == [6, 8, 6, 4]


def test_module_without_convolutions_is_refused() -> None:
    class Linear(Foreign):
        def __init__(self) -> None:
            LightningModule.__init__(self)
            self.lr = 0.1
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))

        def forward(self, image: Tensor) -> Tensor:
            logits: Tensor = self.net(image)
            return logits

    with pytest.raises(InputError, match="with layers that train and whose channels can be removed, found none"):
        fit(Linear(), SoftFilterPruning(0.4))


def test_endless_run_is_refused() -> None:
    with pytest.raises(InputError, match="expected a run of known length in epochs"):
        fit(module(), SoftFilterPruning(0.4), epochs=-1)


def test_diverged_run_is_stopped() -> None:
    with pytest.raises(InputError, match="diverged"):
        fit(module(lr=1e30), SoftFilterPruning(0.4))


def test_state_of_another_module_is_refused() -> None:
    pruner = SoftFilterPruning(0.4)

    class Load(Callback):
        def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pruner.load_state_dict(
                {"masks": {"other.weight": torch.ones(3, 1, 1, 1).bool()}, "dense_state": None, "limits": {}}
            )

    with pytest.raises(InputError, match=r"other\.weight that does not fit"):
        fit(module(), Load(), pruner)


def test_optimizers_are_left_alone_after_the_run_and_after_an_error() -> None:
    trainer = fit(module(), SoftFilterPruning(0.4))
    assert not trainer.optimizers[0]._optimizer_step_post_hooks

    class Fail(Callback):
        optimizer: Any = None

        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            self.optimizer = trainer.optimizers[0]
            raise RuntimeError("boom")

    fail = Fail()
    with pytest.raises(RuntimeError, match="boom"):
        fit(module(), SoftFilterPruning(0.4), fail)
    assert not fail.optimizer._optimizer_step_post_hooks
