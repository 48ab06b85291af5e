"""Distillation losses against their formulas in float64 numpy, and against what must not change them."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from configured import content, options
from hydra.utils import instantiate
from torch import Tensor
from torch.nn import functional as F

from lightning_prune.distillation.losses.attention import Attention, attention_map
from lightning_prune.distillation.losses.decoupled import Decoupled
from lightning_prune.distillation.losses.hint import Hint
from lightning_prune.distillation.losses.hinton import Hinton
from lightning_prune.distillation.losses.pair import FeatureLoss, LogitLoss
from lightning_prune.distillation.losses.relational_angle import RelationalAngle
from lightning_prune.distillation.losses.relational_distance import RelationalDistance
from lightning_prune.distillation.losses.similarity import Similarity
from lightning_prune.errors import InputError

Array = npt.NDArray[np.float64]

CONTENTS = [content("distillation", name) for name in options("distillation")]
LOGIT_LOSSES: list[LogitLoss] = [instantiate(one.loss) for one in CONTENTS if "loss" in one]
LOGIT_LOSSES += [Hinton(1.0), Decoupled(0.5, 2.0, 2.0)]
FEATURE_LOSSES: list[FeatureLoss] = [instantiate(one.features.loss) for one in CONTENTS if "features" in one]
OF_ANY_WIDTH: list[FeatureLoss] = [Similarity(), RelationalDistance(), RelationalAngle()]
LABELS = torch.tensor([0, 3, 4, 1, 3, 2])


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def logits() -> tuple[Tensor, Tensor]:
    return normal(6, 5, seed=1, scale=3), normal(6, 5, seed=2, scale=3)


def features() -> tuple[Tensor, Tensor]:
    return normal(6, 3, 4, 4, seed=3), normal(6, 3, 4, 4, seed=4)


def every_loss() -> list[tuple[Callable[[Tensor, Tensor], Tensor], tuple[Tensor, Tensor]]]:
    of_logits = [((lambda s, t, loss=loss: loss(s, t, LABELS)), logits()) for loss in LOGIT_LOSSES]
    return [*of_logits, *((loss, features()) for loss in FEATURE_LOSSES)]


def softmax(row: Array, temperature: float) -> Array:
    powers = np.exp(row / temperature)
    return np.asarray(powers / powers.sum())


def kl(p: Array, q: Array) -> float:
    return float((p * np.log(p / q)).sum())


def huber(difference: Array) -> Array:
    size = np.abs(difference)
    return np.where(size < 1, size**2 / 2, size - 0.5)


# Logits


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_hinton_is_the_divergence_times_the_temperature_squared(temperature: float) -> None:
    student, teacher = logits()
    rows = zip(student.numpy(), teacher.numpy(), strict=True)
    expected = temperature**2 * np.mean([kl(softmax(t, temperature), softmax(s, temperature)) for s, t in rows])
    assert Hinton(temperature)(student, teacher, None).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 4.0, 20.0])
def test_the_gradient_of_hinton_is_the_difference_of_the_probabilities(temperature: float) -> None:
    student, teacher = logits()
    Hinton(temperature)(student.requires_grad_(), teacher).backward()
    rows = zip(student.detach().numpy(), teacher.numpy(), strict=True)
    expected = np.stack([temperature * (softmax(s, temperature) - softmax(t, temperature)) / 6 for s, t in rows])
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), expected, rtol=1e-10, atol=1e-14)


def test_the_numbers_of_a_worked_example() -> None:
    student = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    teacher, label = torch.tensor([[3.0, 0.5, -1.0]], dtype=torch.float64), torch.tensor([0])
    loss = Hinton(4.0)(student, teacher)
    assert loss.item() == pytest.approx(0.379400, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.tolist()[0] == pytest.approx([-0.424873, 0.180977, 0.243896], abs=1e-6)
    (gradient,) = torch.autograd.grad(Hinton(1000.0)(student, teacher), student)  # by then logits are matched
    assert gradient.tolist()[0] == pytest.approx([-0.3892, 0.1114, 0.2777], abs=5e-5)
    # The two divergences and their weighted sum in 40 decimal digits.
    assert Decoupled(1.0, 0.0, 4.0)(student, teacher, label).item() == pytest.approx(16 * 0.0228111099215, rel=1e-10)
    assert Decoupled(0.0, 1.0, 4.0)(student, teacher, label).item() == pytest.approx(16 * 0.00189948073326, rel=1e-10)
    assert Decoupled(1.0, 8.0, 4.0)(student, teacher, label).item() == pytest.approx(0.608111292602, rel=1e-10)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 8.0), (1.0, 0.0), (0.0, 2.0), (0.0, 0.0)])
def test_decoupled_weighs_the_target_and_the_others(alpha: float, beta: float) -> None:
    student, teacher = logits()
    expected = []
    for s, t, label in zip(student.numpy(), teacher.numpy(), LABELS.tolist(), strict=True):
        q, p = softmax(s, 2.0), softmax(t, 2.0)
        tckd = kl(np.array([p[label], 1 - p[label]]), np.array([q[label], 1 - q[label]]))
        nckd = kl(softmax(np.delete(t, label), 2.0), softmax(np.delete(s, label), 2.0))
        expected.append(4 * (alpha * tckd + beta * nckd))
    found = Decoupled(alpha, beta, 2.0)(student, teacher, LABELS).item()
    assert found == pytest.approx(np.mean(expected), rel=1e-12, abs=0)


def test_hinton_is_decoupled_with_the_teachers_doubt_as_beta() -> None:
    student, teacher = (row[:1] for row in logits())
    for label in range(5):
        doubt = 1 - (teacher / 4).softmax(1)[0, label].item()
        torch.testing.assert_close(
            Decoupled(1.0, doubt, 4.0)(student, teacher, torch.tensor([label])), Hinton(4.0)(student, teacher)
        )


def test_two_classes_have_no_others_to_compare() -> None:
    student, teacher = (row[:, :2] for row in logits())
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    torch.testing.assert_close(Decoupled(1.0, 8.0)(student, teacher, labels), Hinton()(student, teacher))


@pytest.mark.parametrize("loss", LOGIT_LOSSES, ids=repr)
def test_a_shift_of_the_logits_changes_nothing(loss: LogitLoss) -> None:
    student, teacher = logits()
    shift = normal(6, 1, seed=5, scale=30)
    torch.testing.assert_close(loss(student + shift, teacher - 7, LABELS), loss(student, teacher, LABELS))


@pytest.mark.parametrize("loss", LOGIT_LOSSES, ids=repr)
def test_large_logits_in_single_precision(loss: LogitLoss) -> None:
    sure = 1e4 * torch.eye(5)[LABELS]
    assert loss(sure, sure, LABELS) == 0
    wrong = sure.roll(1, dims=1).requires_grad_()
    found = loss(wrong, sure, LABELS)
    torch.testing.assert_close(found.double(), loss(wrong.double(), sure.double(), LABELS), rtol=1e-6, atol=0)
    found.backward()
    assert wrong.grad is not None
    assert wrong.grad.isfinite().all()
    assert wrong.grad.abs().max() > 0


def test_a_teacher_who_is_sure_of_another_class() -> None:
    teacher = 1e4 * torch.eye(3)[:1]
    # T² KL = T² (1e4 / T): the student puts exp(-1e4 / T) where the teacher puts 1.
    assert Hinton(4.0)(teacher.roll(1, dims=1), teacher).item() == pytest.approx(4e4)
    assert Hinton(1.0)(teacher.roll(1, dims=1), teacher).item() == pytest.approx(1e4)


# Features


def test_hint_is_the_mean_squared_difference() -> None:
    student, teacher = features()
    expected = ((student.numpy() - teacher.numpy()) ** 2).sum() / (6 * 3 * 4 * 4)
    assert Hint(relative=False)(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_a_relative_hint_is_a_part_of_the_teachers_mean_square() -> None:
    student, teacher = features()
    s, t = student.numpy(), teacher.numpy()
    assert Hint()(student, teacher).item() == pytest.approx(((s - t) ** 2).sum() / (t**2).sum(), rel=1e-12)
    assert Hint()(torch.zeros_like(student), teacher).item() == pytest.approx(1, rel=1e-12)


def test_the_attention_map_of_a_worked_example() -> None:
    maps = torch.tensor([[[1.0, 2.0], [0.0, 1.0]], [[1.0, 0.0], [2.0, 1.0]]])[None]
    # The means of the squares are (1, 2, 2, 1), of length sqrt(10).
    assert attention_map(maps, (2, 2)).tolist()[0] == pytest.approx([0.3162, 0.6325, 0.6325, 0.3162], abs=5e-5)


def test_attention_is_the_mean_or_the_sum_over_maps_of_length_one() -> None:
    student, teacher = normal(6, 3, 4, 5, seed=3), normal(6, 7, 4, 5, seed=4)
    maps = [(x.numpy() ** 2).mean(axis=1).reshape(6, -1) for x in (student, teacher)]
    s, t = (m / np.sqrt((m**2).sum(axis=1, keepdims=True)) for m in maps)
    assert Attention(relative=False)(student, teacher).item() == pytest.approx(((s - t) ** 2).mean(), rel=1e-12)
    assert Attention()(student, teacher).item() == pytest.approx(((s - t) ** 2).sum(axis=1).mean(), rel=1e-12)


def test_attention_sees_neither_the_order_nor_the_scale_of_channels() -> None:
    student, teacher = features()
    same = 5 * student[:, [2, 0, 1]]
    torch.testing.assert_close(Attention()(same, teacher), Attention()(student, teacher))
    assert Attention()(same, student) < 1e-30


def test_attention_averages_the_larger_features_down() -> None:
    student, teacher = normal(2, 3, 4, 2, seed=3), normal(2, 5, 2, 6, seed=4)
    small = student.reshape(2, 3, 2, 2, 2).mean(3), teacher.reshape(2, 5, 2, 2, 3).mean(4)
    torch.testing.assert_close(Attention()(student, teacher), Attention()(*small))
    torch.testing.assert_close(Attention()(teacher, student), Attention()(*small))


def test_similarity_compares_the_rows_of_the_gram_matrices() -> None:
    student, teacher = normal(6, 7, seed=3), normal(6, 2, 3, seed=4)
    expected = 0.0
    s, t = student.numpy(), teacher.numpy().reshape(6, -1)
    for i in range(6):
        rows = [np.array([x[i] @ x[j] for j in range(6)]) for x in (s, t)]
        expected += ((rows[0] / np.linalg.norm(rows[0]) - rows[1] / np.linalg.norm(rows[1])) ** 2).sum() / 36
    assert Similarity(relative=False)(student, teacher).item() == pytest.approx(expected, rel=1e-12)
    assert Similarity()(student, teacher).item() == pytest.approx(6 * expected, rel=1e-12)


def test_relational_distance_compares_multiples_of_the_mean_distance() -> None:
    student, teacher = normal(6, 7, seed=3), normal(6, 2, 3, seed=4, scale=9)
    relative = []
    for x in (student.numpy(), teacher.numpy().reshape(6, -1)):
        distances = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        relative.append(distances / distances[~np.eye(6, dtype=bool)].mean())
    expected = huber(relative[0] - relative[1]).mean()
    assert RelationalDistance()(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_relational_angle_compares_every_triangle() -> None:
    student, teacher = normal(5, 7, seed=3), normal(5, 2, 3, seed=4)
    total = 0.0
    for at in range(5):
        for i in range(5):
            for j in range(5):
                if at in (i, j):
                    continue  # no angle: 0 in both
                both = []
                for x in (student.numpy(), teacher.numpy().reshape(5, -1)):
                    a, b = x[i] - x[at], x[j] - x[at]
                    both.append(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
                total += float(huber(np.array(both[0] - both[1])))
    assert RelationalAngle()(student, teacher).item() == pytest.approx(total / 125, rel=1e-12)


@pytest.mark.parametrize("loss", [RelationalDistance(), RelationalAngle()], ids=repr)
def test_relations_see_neither_scale_nor_shift_nor_rotation(loss: FeatureLoss) -> None:
    student, teacher = normal(6, 7, seed=3), normal(6, 7, seed=4)
    rotation = torch.linalg.qr(normal(7, 7, seed=5))[0]
    moved = 3 * student @ rotation + normal(7, seed=6)
    torch.testing.assert_close(loss(moved, teacher), loss(student, teacher))
    assert loss(student, teacher) > 0.01
    assert loss(moved, student) < 1e-28


@pytest.mark.parametrize("loss", OF_ANY_WIDTH, ids=repr)
def test_relations_of_dead_features_have_a_finite_gradient(loss: FeatureLoss) -> None:
    teacher = normal(6, 7, seed=4)
    for alive in (4, 0):  # samples that a rectifier has not set to zero; the others lie on top of each other
        student = normal(6, 5, seed=3)
        student[alive:] = 0
        loss(student.requires_grad_(), teacher).backward()
        assert student.grad is not None
        assert student.grad.abs().max() < 10


@pytest.mark.parametrize("loss", OF_ANY_WIDTH, ids=repr)
def test_one_sample_has_no_relations(loss: FeatureLoss) -> None:
    student = normal(1, 5).requires_grad_()
    value = loss(student, normal(1, 7))
    value.backward()
    assert value == 0
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-12


@pytest.mark.parametrize("loss", [Hint(), Attention(), Similarity()], ids=repr)
def test_a_weight_means_the_same_whatever_the_size_of_what_is_compared(loss: FeatureLoss) -> None:
    student, teacher = features()
    value = loss(student, teacher)
    torch.testing.assert_close(loss(100 * student, 100 * teacher), value)
    larger = [x.repeat(2, 2, 1, 1).repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (student, teacher)]
    torch.testing.assert_close(loss(*larger), value)


@pytest.mark.parametrize("loss", [Hint(), Attention(), Similarity()], ids=repr)
def test_a_dead_teacher_layer_gives_a_finite_loss(loss: FeatureLoss) -> None:
    student = features()[0].requires_grad_()
    value = loss(student, torch.zeros_like(student))
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


# All


@pytest.mark.parametrize(("loss", "inputs"), every_loss())
def test_equal_inputs_cost_nothing_and_others_do(
    loss: Callable[[Tensor, Tensor], Tensor], inputs: tuple[Tensor, Tensor]
) -> None:
    student, teacher = inputs
    assert loss(student, student.clone()) == 0
    assert loss(student, teacher) > 1e-4


@pytest.mark.parametrize(("loss", "inputs"), every_loss())
def test_the_gradient_is_that_of_the_value_and_none_reaches_the_teacher(
    loss: Callable[[Tensor, Tensor], Tensor], inputs: tuple[Tensor, Tensor]
) -> None:
    student, teacher = (x.clone().requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), student)
    loss(student, teacher).backward()
    assert student.grad is not None
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("loss", "inputs"), every_loss())
def test_half_precision_is_computed_in_single(
    loss: Callable[[Tensor, Tensor], Tensor], inputs: tuple[Tensor, Tensor], dtype: torch.dtype
) -> None:
    student, teacher = (300 * x.to(dtype) for x in inputs)  # whose squares are more than float16 holds
    exact = loss(student.double(), teacher.double())
    found = loss(student.requires_grad_(), teacher)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=2e-5, atol=1e-7)
    found.backward()
    assert student.grad is not None
    assert student.grad.dtype == dtype
    mixed = loss(student.float(), teacher)
    torch.testing.assert_close(mixed, found)


@pytest.mark.parametrize(("loss", "inputs"), every_loss())
def test_autocast_changes_nothing(loss: Callable[[Tensor, Tensor], Tensor], inputs: tuple[Tensor, Tensor]) -> None:
    student, teacher = (x.float() for x in inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(student, teacher)
    torch.testing.assert_close(found, loss(student, teacher), rtol=0, atol=0)


# Mistakes


@pytest.mark.parametrize("loss", LOGIT_LOSSES, ids=repr)
@pytest.mark.parametrize("shapes", [((6, 5), (6, 4)), ((6, 5), (1, 5)), ((6, 1), (6, 1)), ((6, 5, 2), (6, 5, 2))])
def test_logits_that_do_not_fit(loss: LogitLoss, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(InputError) as error:
        loss(torch.zeros(shapes[0]), torch.zeros(shapes[1]), LABELS)
    assert str(error.value) == (
        f"expected logits (n, classes) of the same two or more classes, got student {shapes[0]} and teacher {shapes[1]}"
    )


@pytest.mark.parametrize(
    ("loss", "student", "teacher"),
    [
        (Hint(), (2, 3, 4, 4), (2, 5, 4, 4)),
        (Hint(), (2, 3), (1, 3)),
        (Attention(), (2, 3, 4, 4), (1, 3, 4, 4)),
        (Attention(), (2, 3, 4), (2, 3, 4)),
        *((loss, (4, 3), (5, 3)) for loss in OF_ANY_WIDTH),
        *((loss, (4,), (4,)) for loss in OF_ANY_WIDTH),
    ],
    ids=str,
)
def test_features_that_do_not_fit(loss: FeatureLoss, student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as error:
        loss(torch.zeros(student), torch.zeros(teacher))
    assert str(error.value).endswith(f", got student {student} and teacher {teacher}")
    assert str(error.value).startswith("expected features ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        (None, "none"),
        (torch.zeros(5, dtype=torch.long), r"torch.int64 \(5,\)"),
        (torch.zeros(6), r"torch.float32 \(6,\)"),
        (torch.zeros(6, 5), r"torch.float32 \(6, 5\)"),
    ],
    ids=str,
)
def test_labels_that_do_not_fit(labels: Tensor | None, got: str) -> None:
    with pytest.raises(InputError, match=rf"labels of shape \(6,\) for logits \(6, 5\), got {got}; use Hinton"):
        Decoupled()(*logits(), labels)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_that_are_none(temperature: float) -> None:
    for loss in (Hinton, Decoupled):
        with pytest.raises(InputError, match=rf"expected temperature in \(0, inf\), got {temperature}"):
            loss(temperature=temperature)


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_weights_that_are_none(name: str) -> None:
    with pytest.raises(InputError, match=rf"expected {name} in \[0, inf\), got -1"):
        Decoupled(**{name: -1.0})


def test_torchs_own_losses_are_feature_losses() -> None:
    loss: FeatureLoss = F.l1_loss
    assert loss(*features()) > 0
