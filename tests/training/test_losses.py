"""A term that a callback adds is the same, to the bit, as one that the module's author wrote into the step."""

import copy
import itertools
import pickle
import types
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset, default_collate

from lightning_prune.errors import InputError
from lightning_prune.training.loss_terms import Term, add_term

BATCHES = 4


class Plain(LightningModule):
    """A module from outside, whose step returns a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Dictionary(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": super().training_step(batch, batch_idx), "size": len(batch[0])}


class Skipping(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx == 1 else super().training_step(batch, batch_idx)


class OneArgument(Plain):
    def training_step(self, batch: Any) -> Any:  # type: ignore[override]
        return F.cross_entropy(self.net(batch[0]), batch[1])


def square(module: nn.Module) -> Tensor:
    return 0.03 * module.get_parameter("net.0.weight").square().sum()


def absolute(module: nn.Module) -> Tensor:
    return 0.02 * module.get_parameter("net.2.weight").abs().sum()


Function = Callable[[nn.Module], Tensor]


def with_own_terms(cls: type[Plain], *functions: Function) -> Plain:
    """Return a module of `cls` with the terms written into its training step."""

    class Own(cls):  # type: ignore[valid-type, misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            output = super().training_step(batch, batch_idx)
            loss = output["loss"] if isinstance(output, Mapping) else output
            if loss is None:
                return None
            for function in functions:
                loss = loss + function(self)
            return {**output, "loss": loss} if isinstance(output, Mapping) else loss

    return seeded(Own)


def seeded(cls: type[Plain]) -> Plain:
    torch.manual_seed(0)
    return cls()


class Adds(Callback):
    """Add one term for a fit, as the callbacks of this package do."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.term: Term | None = None
        self.module: nn.Module | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.module = pl_module
        self.term = add_term(pl_module, self._value)

    def _value(self, loss: Tensor) -> Tensor:
        assert self.module is not None
        return self.function(self.module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        assert self.term is not None
        self.term.remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        assert self.term is not None
        self.term.remove()


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(BATCHES * 8, 5, generator=generator)
    return TensorDataset(images, images[:, :3].argmax(dim=1))


def fit(module: Any, *callbacks: Callback, **options: Any) -> dict[str, Tensor]:
    quiet_trainer(*callbacks, **options).fit(module, DataLoader(data(), batch_size=8))
    return {name.replace("_orig_mod.", ""): tensor.clone() for name, tensor in module.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def half_precision() -> dict[str, Any]:
    # precision="16-mixed" on the CPU would silently be bfloat16 without a scaler
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=GradScaler("cpu", init_scale=1024.0))]}


@pytest.mark.filterwarnings("ignore:.*training_step. returned .None")
@pytest.mark.parametrize("cls", [Plain, Dictionary, Skipping])
@pytest.mark.parametrize("functions", [(square,), (square, absolute)], ids=["one", "two"])
def test_a_term_is_as_if_written_into_the_step(cls: type[Plain], functions: tuple[Function, ...]) -> None:
    module = seeded(cls)
    final = fit(module, *map(Adds, functions))
    assert equal(final, fit(with_own_terms(cls, *functions)))
    assert not equal(final, fit(with_own_terms(cls, *functions[:-1])))
    assert "training_step" not in vars(module)


def test_a_step_that_takes_the_batch_alone_is_given_it_alone() -> None:
    assert equal(fit(seeded(OneArgument), Adds(square)), fit(with_own_terms(Plain, square)))


@pytest.mark.parametrize(
    "options",
    [{"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}, half_precision, {"gradient_clip_val": 0.01}],
    ids=["accumulation", "bfloat16", "float16 with a scaler", "clipping"],
)
@pytest.mark.parametrize("cls", [Plain, Dictionary])
def test_lightning_scales_a_term_with_the_loss(cls: type[Plain], options: Any) -> None:
    settings = options if isinstance(options, dict) else options()
    final = fit(seeded(cls), Adds(square), Adds(absolute), **settings)
    settings = options if isinstance(options, dict) else options()
    assert equal(final, fit(with_own_terms(cls, square, absolute), **settings))
    assert all(tensor.isfinite().all() for tensor in final.values())


def counting(graphs: list[Any]) -> Callable[..., Any]:
    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    return backend


def test_a_compiled_network_and_a_compiled_module_get_the_term() -> None:
    expected = fit(with_own_terms(Plain, square))
    graphs: list[Any] = []
    inner = seeded(Plain)
    inner.net = torch.compile(inner.net, backend=counting(graphs))  # type: ignore[assignment]
    term = Adds(lambda module: 0.03 * module.net._orig_mod[0].weight.square().sum())  # type: ignore[union-attr, index]
    assert equal(fit(inner, term), expected)
    assert graphs
    graphs.clear()
    whole = seeded(Plain)
    compiled: list[Any] = []

    class Look(Callback):
        def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            compiled.append(vars(pl_module)["training_step"])

    final = fit(torch.compile(whole, backend=counting(graphs)), Look(), Adds(square))
    assert equal(final, expected)
    assert graphs
    assert vars(whole)["training_step"] is compiled[0]  # where Lightning has put it, and leaves it


def test_two_processes_average_the_gradients_of_loss_and_term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # it would shuffle otherwise than by default
    final = fit(seeded(Plain), Adds(square), devices=2, strategy="ddp_spawn", max_epochs=1)
    # The same by hand in one process.
    reference = seeded(Plain)
    optimizer = reference.configure_optimizers()
    shares = [list(DistributedSampler(data(), 2, rank)) for rank in range(2)]
    for start in range(0, len(shares[0]), 8):
        optimizer.zero_grad()
        for share in shares:
            batch = default_collate([data()[index] for index in share[start : start + 8]])
            ((reference.training_step(batch, 0) + square(reference)) / 2).backward()
        optimizer.step()
    assert equal(final, reference.state_dict())


BATCH = (torch.linspace(-1, 1, 20).view(4, 5), torch.tensor([0, 1, 2, 0]))


def step(module: LightningModule) -> Tensor:
    loss: Tensor = module.training_step(BATCH, 0)
    return loss.detach()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_terms_can_be_removed_in_any_order(order: tuple[int, ...]) -> None:
    module = seeded(Plain)
    plain = step(module)
    values = [1.0, 10.0, 100.0]
    terms = [add_term(module, lambda loss, value=value: loss.new_tensor(value)) for value in values]  # type: ignore[misc]
    left = set(range(3))
    for index in order:
        assert step(module) == pytest.approx(float(plain) + sum(values[i] for i in left))
        terms[index].remove()
        terms[index].remove()
        left.discard(index)
    assert "training_step" not in vars(module)
    assert torch.equal(step(module), plain)


def test_terms_are_added_in_order_and_each_is_given_the_loss_without_the_others() -> None:
    module = seeded(Plain)
    plain, seen = step(module), []
    for number in (2.0, 3.0):
        add_term(module, lambda loss, number=number: seen.append((number, loss.detach())) or loss * number)  # type: ignore[misc, func-returns-value]
    assert torch.equal(step(module), plain + plain * 2.0 + plain * 3.0)
    assert seen == [(2.0, plain), (3.0, plain)]


def test_a_step_wrapped_by_somebody_else_in_the_meantime_stays_and_is_without_terms() -> None:
    module = seeded(Plain)
    plain = step(module)
    term = add_term(module, lambda loss: loss.new_tensor(5.0))
    inner = module.training_step
    module.training_step = lambda *arguments: inner(*arguments) * 2  # type: ignore[method-assign]
    later = add_term(module, lambda loss: loss.new_tensor(7.0))
    assert step(module) == pytest.approx(2 * (float(plain) + 5) + 7)
    term.remove()
    assert step(module) == pytest.approx(2 * float(plain) + 7)
    later.remove()
    assert torch.equal(step(module), 2 * plain)


def doubled(self: Plain, batch: Any, batch_idx: int) -> Any:
    return 2 * Plain.training_step(self, batch, batch_idx)


def test_a_step_of_the_users_own_on_the_instance_comes_back() -> None:
    module = seeded(Plain)
    own = types.MethodType(doubled, module)
    module.training_step = own  # type: ignore[method-assign]
    expected = step(module)
    term = add_term(module, lambda loss: loss)
    twin = copy.deepcopy(module)
    assert torch.equal(step(twin), expected)
    assert twin.training_step.__self__ is twin  # type: ignore[attr-defined]
    assert torch.equal(step(module), 2 * expected)
    term.remove()
    assert vars(module)["training_step"] is own


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copy_made_during_the_fit_has_its_own_plain_step(duplicate: Callable[[Any], Any]) -> None:
    class Copies(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            twin = duplicate(duplicate(pl_module))
            assert twin.training_step.__func__ is Plain.training_step
            assert torch.equal(step(twin), step(pl_module) - square(pl_module).detach())
            with torch.no_grad():
                twin.net[2].weight.add_(1.0)
                expected = F.cross_entropy(twin.net(BATCH[0]), BATCH[1])
            assert torch.equal(step(twin), expected)
            add_term(twin, lambda loss: -loss).remove()
            assert torch.equal(step(twin), expected)
            of_copied_owner = duplicate(trainer.callbacks[0]).term  # type: ignore[attr-defined]
            of_copied_owner.remove()
            copies.append(twin)

    copies: list[Any] = []
    final = fit(seeded(Plain), Adds(square), Copies())
    assert len(copies) == 2 * BATCHES
    assert equal(final, fit(with_own_terms(Plain, square)))


def test_an_exception_leaves_the_module_as_it_was() -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            assert "training_step" in vars(pl_module)
            raise RuntimeError("stop")

    module = seeded(Plain)
    with pytest.raises(RuntimeError, match="stop"):
        fit(module, Adds(square), Adds(absolute), Stop())
    assert "training_step" not in vars(module)


def test_other_entries_of_a_dictionary_reach_the_callbacks() -> None:
    class Look(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
            seen.append(outputs)

    seen: list[Any] = []
    fit(seeded(Dictionary), Adds(square), Look())
    assert [output["size"] for output in seen] == [8] * 2 * BATCHES
    module = seeded(Dictionary)
    first = F.cross_entropy(module.net(data().tensors[0][:8]), data().tensors[1][:8]) + square(module)
    assert torch.equal(seen[0]["loss"], first.detach())


def test_a_term_that_only_looks_can_differentiate_the_loss_twice_and_changes_nothing() -> None:
    module, curvatures = seeded(Plain), []

    class Looks(Adds):
        def _value(self, loss: Tensor) -> None:  # type: ignore[override]
            weight = module.net[2].weight
            (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
            (curvature,) = torch.autograd.grad(gradient[0, 0], weight, retain_graph=True)
            curvatures.append(curvature)

    final = fit(module, Looks(square), max_epochs=1)
    assert equal(final, fit(seeded(Plain), max_epochs=1))
    fresh = seeded(Plain)
    images, labels = (tensor[:8] for tensor in data().tensors)

    def loss(weight: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(fresh.net[:2](images), weight, fresh.net[2].bias), labels)

    hessian = torch.autograd.functional.hessian(loss, fresh.net[2].weight.detach())
    torch.testing.assert_close(curvatures[0], hessian[0, 0])


def test_manual_optimization_is_refused() -> None:
    module = seeded(Plain)
    module.automatic_optimization = False
    with pytest.raises(InputError, match=r"automatic optimization, got Plain .*; add the term") as caught:
        add_term(module, lambda loss: loss)
    assert "\n" not in str(caught.value)
    assert "training_step" not in vars(module)
