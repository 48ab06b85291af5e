"""Files of slim models are plain data that loads everywhere, and what is not such a file is refused."""

import copy
import operator
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import GradualPruning, SlimWidths
from lightning_prune.callbacks import slim_widths
from lightning_prune.errors import InputError
from lightning_prune.export.packed import write_packed
from lightning_prune.export.weight_files import load_weights
from lightning_prune.models.resnet import ResNet, resnet20
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.slimming import slim_files
from lightning_prune.slimming.slim import slim
from lightning_prune.slimming.slim_files import load_slim, load_slim_state, save_slim, slim_state

CODE = """
import torch
from torch import nn


class YourBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv2, self.norm2 = nn.Conv2d(12, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x):
        return x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))


class YourModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.block1, self.block2 = nn.Conv2d(3, 8, 3, 2), YourBlock(), YourBlock()
        self.mid, self.depthwise, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1)
        self.twice, self.again, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)
        self.again.weight = self.twice.weight
        self.register_buffer("scale", torch.rand(8, 1, 1), persistent=False)

    def forward(self, x):
        x = torch.relu(self.block2(torch.relu(self.block1(self.stem(x)))))
        x = torch.relu(self.last(torch.relu(self.depthwise(torch.relu(self.mid(x))) * self.scale)))
        return self.head(self.again(torch.relu(self.twice(x))).mean((2, 3)))
"""


def your_module() -> nn.Module:
    code: dict[str, Any] = {"__name__": "your_code"}
    exec(CODE, code)
    module: nn.Module = code["YourModule"]().eval()
    return module


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """A module without a block, half of another, and two of the channels that depthwise filters read."""
    torch.manual_seed(0)
    model = your_module()
    with torch.no_grad():
        model.block1.norm2.weight.zero_()
        for norm in (model.block1.norm2, model.block2.norm2):
            norm.bias.normal_()
        model.block1.norm2.bias.zero_()
        for tensor in (*model.block2.norm1.parameters(), model.block2.conv1.weight):
            tensor[:6] = 0
        for tensor in model.depthwise.parameters():
            tensor[[2, 5]] = 0
    return slim(model, torch.randn(2, 3, 16, 16))


# Without this package -------------------------------------------------------------------------------------------------


def test_documented_lines_load_a_file_without_this_package(small: nn.Module, tmp_path: Path) -> None:
    images = torch.randn(4, 3, 20, 20)
    with torch.no_grad():
        torch.save((images, small(images)), tmp_path / "expected.pt")
    save_slim(small, tmp_path / "slim.pt")
    assert isinstance(small.block1.norm2, nn.Module)
    assert small.block2.conv1.weight.shape == (6, 8, 3, 3)
    assert small.scale.shape == (6, 1, 1)
    lines = textwrap.dedent(slim_files.__doc__.split("model:\n\n")[1])
    assert len([line for line in lines.splitlines() if line.strip()]) <= 15
    (tmp_path / "your_code.py").write_text(CODE)
    script = f"""
import functools, sys
sys.modules["lightning_prune"] = None
import torch
from torch import nn
from your_code import YourModule
{lines}
images, expected = torch.load("expected.pt")
with torch.no_grad():
    torch.testing.assert_close(model.eval()(images), expected)  # on another number of threads
assert model.again.weight is model.twice.weight
assert (model.depthwise.groups, model.block2.norm1.num_features) == (6, 6)
model(images).sum().backward()
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_file_says_how_to_rebuild(small: nn.Module, tmp_path: Path) -> None:
    kept = {"depthwise.weight": {0: torch.tensor([0, 1, 3, 4, 6, 7])}}
    save_slim(small, tmp_path / "slim.pt", kept=kept)
    saved = torch.load(tmp_path / "slim.pt", weights_only=True)
    assert saved["build"] == {"_target_": "your_code.YourModule"}
    assert saved["widths"]["depthwise"] == {"in_channels": 6, "out_channels": 6, "groups": 6}
    assert saved["gone"].keys() == {f"block1.{name}" for name in ("conv1", "norm1", "conv2", "norm2")}
    assert saved["gone"]["block1.norm2"] == {"dim": -3, "strides": [1, 1, 1, 1], "width": 8}
    assert saved["kept"]["depthwise.weight"][0].tolist() == [0, 1, 3, 4, 6, 7]
    build = {"_target_": "your_code.YourModule", "sizes": [3, {"deep": None}]}
    assert slim_state(small, build=build)["build"] == build
    with pytest.raises(InputError, match="expected build to be made of numbers, texts, lists and dictionaries, got"):
        slim_state(small, build={"act": nn.ReLU})


@pytest.mark.parametrize("later", ["before structures", "before Lightning", "now"])
def test_files_of_earlier_versions_load(later: str, small: nn.Module, tmp_path: Path) -> None:
    model = your_module() if later == "before structures" else small
    state = slim_state(model)
    if later != "now":
        state = {key: state[key] for key in ("state_dict", "buffers", "widths", "gone")}
        for place in state["gone"].values():
            if place is not None:
                del place["width"]
    if later == "before structures":
        assert state.pop("gone") == {}
    torch.save(state, tmp_path / "slim.pt")
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(load_slim(your_module(), tmp_path / "slim.pt")(images), model(images))


# With a Trainer -------------------------------------------------------------------------------------------------------


class Classifier(LightningModule):
    """A module of somebody who does not know of slim models, whose batches are images and labels."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = ResNet((1, 1, 1), (width, 2 * width, 4 * width))
        self.example_input_array = torch.zeros(2, 3, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.test_step(batch)

    def predict_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self(batch[0])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.01, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class Late(Classifier):
    """One that builds its network when the trainer says so."""

    def __init__(self) -> None:
        super().__init__()
        del self.network

    def configure_model(self) -> None:
        if "network" not in dict(self.named_children()):
            self.network = ResNet((1, 1, 1), (8, 16, 32))


class Knowing(Classifier):
    """One that shrinks itself, and has an argument that is no plain data."""

    def __init__(self, width: int = 8, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__(width)
        self.save_hyperparameters()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        load_slim_state(self, checkpoint, "checkpoint")


@pytest.fixture(scope="module")
def slim_classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, Path]:
    torch.manual_seed(0)
    model = Classifier().eval()
    with torch.no_grad():
        for name in ("layer1.0.conv1", "layer1.0.bn1"):
            for parameter in model.network.get_submodule(name).parameters():
                parameter[:5] = 0
        for parameter in model.network.layer2[0].bn2.parameters():
            parameter.zero_()
    path = tmp_path_factory.mktemp("slim") / "slim.pt"
    module = slim(model, model.example_input_array)
    save_slim(module, path)
    return module, path


@pytest.fixture(scope="module")
def loader() -> DataLoader[Any]:
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(8, 3, 8, 8), torch.arange(8)), 4)


WIDE = {
    "shrunk": (lambda path: load_slim(Classifier(), path), []),
    "wide": (lambda path: Classifier(), [SlimWidths]),
    "late": (lambda path: Late(), [SlimWidths]),
    "knowing": (lambda path: Knowing(), []),
}


@pytest.mark.parametrize("name", WIDE)
def test_file_is_a_checkpoint(
    name: str, slim_classifier: tuple[Classifier, Path], loader: DataLoader[Any], tmp_path: Path
) -> None:
    small, path = slim_classifier
    build, callbacks = WIDE[name]
    images, labels = loader.dataset.tensors  # type: ignore[attr-defined]
    with torch.no_grad():
        expected = small.eval()(images)
    loss = pytest.approx(float(F.cross_entropy(expected, labels)), rel=1e-5)

    def trainer(**options: Any) -> Any:
        return quiet_trainer(*(kind() for kind in callbacks), **options)

    assert trainer().test(build(path), loader, ckpt_path=path, verbose=False)[0]["loss"] == loss
    assert trainer().validate(build(path), loader, ckpt_path=path, verbose=False)[0]["loss"] == loss
    module = build(path)
    predicted = trainer().predict(module, loader, ckpt_path=path)
    assert torch.equal(torch.cat(predicted), expected)
    assert "on_load_checkpoint" not in vars(module)
    fitted = trainer(max_epochs=1)
    fitted.fit(module := build(path), loader, loader, ckpt_path=path)
    assert fitted.global_step == 2
    reference = copy.deepcopy(small).train()
    optimizer = torch.optim.SGD(reference.parameters(), 0.01, momentum=0.9)
    for batch, target in loader:
        optimizer.zero_grad()
        F.cross_entropy(reference(batch), target).backward()
        optimizer.step()
    for ours, theirs in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_checkpoints_of_a_trainer_with_slim_widths_are_files_too(
    slim_classifier: tuple[Classifier, Path], loader: DataLoader[Any], tmp_path: Path
) -> None:
    module = load_slim(Classifier(), slim_classifier[1])
    kept = ModelCheckpoint(tmp_path, "best")
    trainer = quiet_trainer(SlimWidths(), kept)
    trainer.fit(module, loader, loader)
    expected = trainer.test(module, loader, ckpt_path="best", verbose=False)
    path = kept.best_model_path
    wide = quiet_trainer(SlimWidths(), ModelCheckpoint(tmp_path / "again"))
    assert wide.test(Classifier(), loader, ckpt_path=path, verbose=False) == expected
    assert load_slim(Classifier(), path).network.layer1[0].conv1.out_channels == 3
    saved = torch.load(path)
    assert (saved["epoch"], saved["global_step"]) == (1, 4)
    resumed = quiet_trainer(SlimWidths(), ModelCheckpoint(tmp_path / "again"), max_epochs=3)
    resumed.fit(Classifier(), loader, loader, ckpt_path=path)
    assert resumed.global_step == 6


def test_hyperparameters_that_are_plain_data_are_in_the_file(tmp_path: Path) -> None:
    module = Knowing(width=4).eval()
    with torch.no_grad():
        for parameter in module.network.layer1[0].bn1.parameters():
            parameter[:2] = 0
    small = slim(module, module.example_input_array)
    save_slim(small, tmp_path / "slim.pt")
    saved = torch.load(tmp_path / "slim.pt", weights_only=True)
    assert saved["build"] == {"_target_": f"{__name__}.Knowing", "width": 4}
    loaded = Knowing.load_from_checkpoint(tmp_path / "slim.pt")
    assert loaded.hparams == {"width": 4, "activation": F.relu}
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images), small(images))


def test_fit_with_callbacks_that_know_the_wide_module_is_refused(
    slim_classifier: tuple[Classifier, Path], loader: DataLoader[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, module = slim_classifier[1], Classifier()
    trainer = quiet_trainer(SlimWidths(), GradualPruning(0.5, granularity=Channel()))
    with pytest.raises(InputError, match=r"since GradualPruning looked at it already.*; fit load_slim\(module, path\)"):
        trainer.fit(module, loader, loader, ckpt_path=path)
    assert module.network.layer1[0].conv1.out_channels == 8
    assert "on_load_checkpoint" not in vars(module)
    monkeypatch.setattr(slim_widths, "parent_process", object)
    monkeypatch.setattr(type(trainer), "world_size", 2)
    with pytest.raises(InputError, match="since the process that started this one looked at it already"):
        quiet_trainer(SlimWidths()).fit(module, loader, loader, ckpt_path=path)


def test_checkpoints_of_dense_modules_are_loaded_as_ever(loader: DataLoader[Any], tmp_path: Path) -> None:
    dense = Classifier()
    expected = quiet_trainer().test(dense, loader, verbose=False)
    path = tmp_path / "dense.ckpt"
    torch.save({"state_dict": dense.state_dict(), "pytorch-lightning_version": "2.6.6"}, path)
    trainer = quiet_trainer(SlimWidths())
    assert trainer.test(Classifier(), loader, ckpt_path=path, verbose=False) == expected


# In place of other weights --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".lpz"])
def test_network_begins_with_the_weights_of_a_slim_one(
    suffix: str, slim_classifier: tuple[Classifier, Path], tmp_path: Path
) -> None:
    small, write = slim_classifier[0].eval(), write_packed if suffix == ".lpz" else save_slim
    images = torch.randn(2, 3, 8, 8)
    for name, saved in {"module": small, "network": small.network}.items():
        write(saved, tmp_path / f"{name}{suffix}")
        for target in (Classifier().eval(), Classifier().network.eval()):
            load_weights(target, tmp_path / f"{name}{suffix}")
            with torch.no_grad():
                assert torch.equal(target(images), small(images))
    other = ResNet((1, 1, 1), (4, 8, 16))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(InputError, match=r"it has 16 channels of zeros for layer2\.0\.bn2, which has 8"):
        load_weights(other, tmp_path / f"network{suffix}")
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


# Wrong files ----------------------------------------------------------------------------------------------------------


def test_files_that_are_not_slim_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "slim.pt"
    with pytest.raises(InputError, match="which does not exist"):
        load_slim(resnet20(), path)
    path.write_bytes(b"not a file of torch")
    with pytest.raises(InputError, match="cannot be read"):
        load_slim(resnet20(), path)
    torch.save(resnet20().state_dict(), path)
    with pytest.raises(InputError, match="cannot be read"):
        load_slim(resnet20(), path)
    torch.save({"state_dict": {}, "buffers": {}, "widths": {}, "code": operator.attrgetter("x")}, path)
    with pytest.raises(InputError, match="cannot be read"):
        load_slim(resnet20(), path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="cannot be read"):
        load_slim(resnet20(), path)


def test_files_of_other_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "slim.pt"
    save_slim(resnet20(), path)
    with pytest.raises(
        InputError, match=r"of lightning_prune\.models\.resnet\.ResNet: only the file has .*layer1\.1\.bn1"
    ):
        load_slim(ResNet((1, 1, 1)), path)
    with pytest.raises(InputError, match=r"expected conv1.weight in .* to be of shape \(8, 3, 3, 3\) or smaller, got"):
        load_slim(ResNet((3, 3, 3), (8, 16, 32)), path)


FORGED = {
    "more groups": (("widths", "depthwise", "groups"), 9, "it tells groups=9 of depthwise, which has 8"),
    "no channels": (("widths", "stem", "out_channels"), 0, "it tells out_channels=0 of stem, which has 8"),
    "no number": (("widths", "stem", "groups"), "1", "it tells groups=1 of stem, which has 1"),
    "a flag": (("widths", "stem", "training"), True, "it tells training=True of stem, which has False"),
    "a method": (("widths", "stem", "forward"), 1, "it tells forward=1 of stem, which has none"),
    "no module": (("widths", "stam"), {}, "it tells the widths of a module stam"),
    "two lines": (("widths", "a\nb"), {}, "cannot be read as one"),
    "a number for a name": (("state_dict", 3), torch.zeros(1), "cannot be read as one"),
    "a sparse tensor": (("state_dict", "head.bias"), torch.zeros(5).to_sparse(), "cannot be read as one"),
    "no tensor": (("state_dict", "head.bias"), 3, "expected head.bias in .* to be of shape"),
    "another place": (("buffers", "head.bias"), torch.zeros(5), "only the file has a tensor head.bias"),
    "no buffers": (("buffers",), None, "cannot be read as one"),
    "more classes": (("state_dict", "head.bias"), torch.zeros(6), "to be of shape .5,. or smaller, got .6,."),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_files_are_refused_before_the_model_changes(name: str, small: nn.Module, tmp_path: Path) -> None:
    keys, value, message = FORGED[name]
    save_slim(small, path := tmp_path / "slim.pt")
    saved = torch.load(path, weights_only=True)
    part = saved
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    torch.save(saved, path)
    model = your_module()
    before = str(model), copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=message) as error:
        load_slim(model, path)
    assert "\n" not in str(error.value)
    assert str(model) == before[0]
    assert all(torch.equal(tensor, before[1][key]) for key, tensor in model.state_dict().items())


def test_every_altered_byte_of_weights_is_noticed(tmp_path):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    save_slim(model, tmp_path / "slim.pt")
    whole = (tmp_path / "slim.pt").read_bytes()
    start = whole.index(model[0].weight.detach().numpy().tobytes())
    for place in (start, start + 37, start + 127):
        altered = bytearray(whole)
        altered[place] ^= 1
        (tmp_path / "altered.pt").write_bytes(altered)
        with pytest.raises(InputError, match="cannot be read as one"):
            load_slim(copy.deepcopy(model), tmp_path / "altered.pt")


def test_weights_of_another_kind_of_number_are_refused(tmp_path):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    saved = slim_state(model)
    saved["state_dict"]["0.weight"] = torch.ones(8, 4, dtype=torch.int64)
    with pytest.raises(InputError, match=r"expected 0\.weight in a file to be of torch\.float32, got torch\.int64"):
        load_slim_state(model, saved, "a file")
