"""A teacher sees what the student sees, changes nothing, and what does not fit is refused in one line."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune.distillation.teacher import Teacher
from lightning_prune.errors import InputError
from lightning_prune.training.loss_terms import Term, add_term


def network(classes: int = 3, width: int = 8) -> nn.Sequential:
    layers = [nn.Linear(5, width), nn.BatchNorm1d(width), nn.Dropout(0.2), nn.Linear(width, classes)]
    return nn.Sequential(*layers)


class Plain(LightningModule):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.net = network(classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Mixing(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        with torch.no_grad():
            self(batch[0])  # as for pseudo labels
        mixed = 0.7 * batch[0] + 0.3 * batch[0].flip(0)
        self.mixed = mixed
        return F.cross_entropy(self(x=mixed), batch[1])


class Drawing(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.rand(()))


class Copying(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        logits = self(batch[0])
        copy.deepcopy(self)
        return F.cross_entropy(logits, batch[1])


class Inner(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.net(batch[0]), batch[1])


class Twice(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self(batch[0]), batch[1]) + self(-batch[0]).sum()


class Pair(Plain):
    def forward(self, x: Tensor) -> Any:
        return {"logits": self.net(x)}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self(batch[0])["logits"], batch[1])


class Compares(Callback):
    """Add the squared distance of the logits to the loss, as the callbacks of this package use a teacher."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.term: Term | None = None
        self.seen: list[tuple[Tensor, Tensor]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.teacher.setup(trainer, pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.teacher.start(trainer, pl_module)
        self.term = add_term(pl_module, self._value)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.teacher.begin_step(trainer, batch)

    def _value(self, loss: Tensor) -> Tensor:
        student, teacher = self.teacher.logits()
        assert student.requires_grad
        assert not teacher.requires_grad
        self.seen.append((student.detach().clone(), teacher.clone()))
        return F.mse_loss(student, teacher)

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        self.teacher.stop()
        assert self.term is not None
        self.term.remove()

    def on_exception(self, *args: Any) -> None:
        self.teacher.stop()
        if self.term is not None:
            self.term.remove()

    def state_dict(self) -> dict[str, Any]:
        return self.teacher.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.teacher.load_state_dict(state_dict)


DATA = torch.randn(24, 5, generator=torch.Generator().manual_seed(1))


def loader() -> DataLoader:
    return DataLoader(TensorDataset(DATA, DATA[:, :3].argmax(dim=1)), batch_size=8)


def fit(module: Any, *callbacks: Callback, path: Path | None = None, **options: Any) -> Trainer:
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=saves,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    torch.manual_seed(7)  # of dropout
    trainer.fit(module, loader(), loader(), ckpt_path=path)
    return trainer


def seeded(cls: type[Plain] = Plain, *arguments: Any, seed: int = 0) -> Plain:
    torch.manual_seed(seed)
    return cls(*arguments)


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


# What the teacher sees ------------------------------------------------------------------------------------------------


def test_a_copy_of_the_student_answers_what_the_student_was_given() -> None:
    module = seeded()
    dense = copy.deepcopy(module).eval()
    callback = Compares(Teacher(None))
    fit(module, callback)
    assert len(callback.seen) == 6
    with torch.no_grad():
        for index, (_, teacher) in enumerate(callback.seen):
            assert torch.equal(teacher, dense(DATA[8 * (index % 3) :][:8]))
    assert not torch.equal(*callback.seen[-1])
    assert hooks(module) == 0


def test_inputs_mixed_in_the_step_reach_the_teacher_mixed_and_calls_without_gradients_do_not_count() -> None:
    module = seeded(Mixing)
    dense = copy.deepcopy(module).eval()
    callback = Compares(Teacher(None))
    fit(module, callback)
    with torch.no_grad():
        assert torch.equal(callback.seen[-1][1], dense(module.mixed))


def test_a_teacher_is_frozen_given_back_as_it_was_and_in_no_checkpoint(tmp_path: Path) -> None:
    class Disturb(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            teacher.train()

    torch.manual_seed(5)
    teacher = network(width=16)
    teacher[1].eval()
    before, modes = copy.deepcopy(teacher), [module.training for module in teacher.modules()]
    module, plain = seeded(), seeded()
    file = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
    callback = Compares(Teacher(teacher))
    fit(module, callback, Disturb(), file)
    assert same(teacher, before)
    assert [module.training for module in teacher.modules()] == modes
    with torch.no_grad():
        assert torch.equal(callback.seen[-1][1], before.eval()(DATA[16:]))
    fit(plain, ModelCheckpoint(tmp_path / "plain", "last", enable_version_counter=False))
    written, without = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("", "plain"))
    assert written["state_dict"].keys() == without["state_dict"].keys()
    (state,) = (state for key, state in written["callbacks"].items() if "Compares" in key)
    assert list(state) == ["fingerprint", "direct"]


def test_true_half_precision_rounds_a_copy_and_not_the_teacher_that_was_passed_in() -> None:
    torch.manual_seed(5)
    teacher = network()
    before = copy.deepcopy(teacher)
    callback = Compares(Teacher(teacher))
    module = seeded()
    module.example_input_array = DATA[:2]
    fit(module, callback, precision="bf16-true")
    assert callback.seen[0][1].dtype == torch.bfloat16
    assert teacher[0].weight.dtype == torch.float32
    assert same(teacher, before)


def counting(graphs: list[Any]) -> Callable[..., Any]:
    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    return backend


@pytest.mark.parametrize("part", ["", "net"])
def test_compiled_networks_and_modules_are_recorded_even_if_they_ran_before(part: str) -> None:
    expected = seeded()
    fit(expected, Compares(Teacher(None, part=part)))
    graphs: list[Any] = []
    inner = seeded()
    inner.net = torch.compile(inner.net, backend=counting(graphs))  # type: ignore[assignment]
    inner(DATA)  # compiles it without hooks
    inner.get_submodule("net.1").reset_running_stats()  # type: ignore[operator]
    layer = "0" if part else "net.0"
    fit(inner, Compares(Teacher(None, part=part, layers=[(layer, layer)])))
    assert graphs
    whole = seeded()
    compiled = torch.compile(whole, backend=counting(graphs))
    fit(compiled, Compares(Teacher(None, part=part)))
    for module in (inner, whole):
        for one, other in zip(module.parameters(), expected.parameters(), strict=True):
            assert torch.equal(one, other)


def test_copies_of_a_module_in_mid_fit_record_nothing_and_averaged_weights_work() -> None:
    class Copies(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            for twin in (copy.deepcopy(pl_module), pickle.loads(pickle.dumps(pl_module))):
                twin(DATA)
                twin.training_step((DATA, torch.zeros(24, dtype=torch.long)), 0)

    module = seeded(Copying)
    fit(module, Compares(Teacher(None)), Copies())
    averaged = seeded()
    fit(averaged, Compares(Teacher(None)), EMAWeightAveraging(decay=0.5))
    assert all(parameter.isfinite().all() for parameter in averaged.parameters())
    assert hooks(module) == hooks(averaged) == 0


def test_an_example_input_leaves_no_trace() -> None:
    module, without = seeded(Drawing), seeded(Drawing)
    module.example_input_array = DATA[:2]
    fit(without, Compares(Teacher(None)))
    fit(module, Compares(Teacher(None, layers=[("net.0", "net.0")])))
    assert same(module, without)


class Recalls(nn.Module):
    """Note whether the student's graph is there when the teacher is asked."""

    def __init__(self, module: Plain) -> None:
        super().__init__()
        self.inner = network()
        self.calls: list[str] = []
        module.net.register_forward_hook(lambda net, *rest: self.calls.append("student") if net.training else None)

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append("teacher")
        logits: Tensor = self.inner(x)
        return logits


def test_the_teacher_answers_ahead_what_the_student_is_given_as_it_is() -> None:
    for kind, ahead in ((Plain, True), (Mixing, False)):
        module = seeded(kind)
        teacher = Recalls(module)
        callback = Compares(Teacher(teacher))
        fit(module, callback)
        assert teacher.calls[0] == "student"
        assert teacher.calls[-1] == ("student" if ahead else "teacher")
        assert teacher.calls.count("teacher") == len(callback.seen)


def test_a_teacher_in_training_mode_keeps_its_buffers() -> None:
    torch.manual_seed(5)
    teacher = network()
    before = copy.deepcopy(teacher)

    callback = Compares(Teacher(teacher, evaluating=False))
    fit(seeded(), callback)
    assert same(teacher, before)
    before[2].p = 0.0
    assert not torch.equal(callback.seen[0][1], before.eval()(DATA[:8]))


# What is refused ------------------------------------------------------------------------------------------------------


def shares(module: Plain) -> Teacher:
    teacher = network()
    teacher[0].weight = module.net[0].weight
    return Teacher(teacher)


@pytest.mark.parametrize(
    ("cls", "make", "message"),
    [
        (
            Plain,
            lambda module: Teacher(module),
            "expected a teacher apart from the module in training, got one that sh",
        ),
        (Plain, shares, "expected a teacher apart from the module in training, got one that shares 0.weight with it;"),
        (
            Plain,
            lambda module: Teacher(network(7)),
            "expected a teacher with the 3 classes of the student, got 7: logits (8, 3) and (8, 7)",
        ),
        (
            Inner,
            lambda module: Teacher(network()),
            "expected one call of the module itself with gradients in a training step, got 0; name the part that "
            "training_step calls once, such as student='net'",
        ),
        (Twice, lambda module: Teacher(network()), "expected one call of the module itself with gradients in a tr"),
        (
            Pair,
            lambda module: Teacher(network()),
            "expected logits (n, classes) from the student, got a dict; name the part of the module that gives them, "
            "such as student='net'",
        ),
        (
            Plain,
            lambda module: Teacher(network()[:2]),
            "expected a teacher with the 3 classes of the student, got 8: logits (8, 3) and (8, 8)",
        ),
        (
            Plain,
            lambda module: Teacher(network(), part="nett"),
            "expected the name of the student, got 'nett'; there are net, ",
        ),
        (
            Plain,
            lambda module: Teacher(network(), layers=[("0", "0")]),
            "expected the name of a layer of the student, got '0'; there are net.0, ",
        ),
        (
            Plain,
            lambda module: Teacher(network(), layers=[("net.0", "net.0")]),
            "expected the name of a layer of the teacher, got 'net.0'; there are 0, ",
        ),
    ],
)
def test_what_does_not_fit_is_refused(cls: type[Plain], make: Callable[[Plain], Teacher], message: str) -> None:
    module = seeded(cls)
    teacher = make(module)
    with pytest.raises(InputError) as caught:
        fit(module, Compares(teacher), num_sanity_val_steps=0)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert hooks(module) == hooks(teacher.network) == 0
    assert "training_step" not in vars(module)


def test_another_number_of_classes_is_refused_before_training_if_an_example_is_known() -> None:
    module = seeded()
    module.example_input_array = DATA[:2]
    callback = Compares(Teacher(network(7)))
    with pytest.raises(InputError, match="expected a teacher with the 3 classes of the student, got 7"):
        fit(module, callback)
    assert callback.term is None
    assert module.training


def test_a_student_that_is_built_later_cannot_be_copied() -> None:
    class Late(Plain):
        def __init__(self) -> None:
            super().__init__()
            del self.net

        def configure_model(self) -> None:
            self.net = network()

    with pytest.raises(InputError, match="expected a student with weights when the fit is set up, got Late without"):
        fit(Late(), Compares(Teacher(None)))
    fit(Late(), Compares(Teacher(network(), layers=[("net.0", "0")])))


def test_a_run_is_resumed_with_the_same_teacher_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    fit(seeded(), Compares(Teacher(None))).save_checkpoint(path)
    fit(seeded(), Compares(Teacher(None)), path=path)
    with pytest.raises(InputError) as caught:
        fit(seeded(seed=1), Compares(Teacher(None)), path=path)
    assert str(caught.value) == (
        "expected the teacher that the run to resume began with, got one with other weights; build the module with the "
        "same initial weights"
    )
