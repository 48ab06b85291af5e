"""Files of slim models are plain data that loads everywhere, and what is not such a file is refused."""

import operator

import pytest
import torch

from lightning_prune.errors import InputError
from lightning_prune.models.resnet import ResNet, resnet20
from lightning_prune.slim_files import load_slim, save_slim


def test_files_that_are_not_slim_models_are_refused(tmp_path):
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


def test_files_of_other_models_are_refused(tmp_path):
    path = tmp_path / "slim.pt"
    save_slim(resnet20(), path)
    with pytest.raises(InputError, match=r"only the file has a tensor layer1\.1\.bn1\.bias"):
        load_slim(ResNet((1, 1, 1)), path)
    with pytest.raises(InputError, match=r"expected conv1.weight in .* to be of shape \(8, 3, 3, 3\) or smaller, got"):
        load_slim(ResNet((3, 3, 3), (8, 16, 32)), path)
