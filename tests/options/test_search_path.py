"""Where configurations are found: this package's, one's own in conf/, and those that are named."""

from pathlib import Path

import pytest
from command_line import run_here

SHOWN = ["--cfg", "job", "--package", "model"]


def write(file: Path, target: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(f"_target_: {target}\n")


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    """A folder with options of one's own in three places, beside an empty one in which commands are typed."""
    for place in ("conf", "named", "searched"):
        write(tmp_path / f"{place}/model/of_{place}.yaml", f"{place}.Net")
    return tmp_path


NAMED = ["--config-dir", "named", "hydra.searchpath=[file://searched]"]


@pytest.mark.parametrize("place", ["conf", "named", "searched"])
def test_options_are_found_in_all_places_at_once(place: str, cwd: Path) -> None:
    for words in ([] if place == "conf" else NAMED, NAMED):
        result = run_here("train.py", *words, f"model=of_{place}", *SHOWN, cwd=cwd)
        assert result.stdout == f"# @package model\n_target_: {place}.Net\n", result.stderr


def test_what_is_nowhere_is_refused_with_all_that_there_is(cwd: Path) -> None:
    result = run_here("train.py", *NAMED, "model=of_names", *SHOWN, cwd=cwd)
    assert result.returncode == 1
    assert "of_conf, of_named, of_searched" in result.stderr
    assert result.stderr.endswith("got model=of_names; did you mean of_named?\n")


def test_this_packages_own_come_first(tmp_path: Path) -> None:
    write(tmp_path / "conf/model/vgg16_bn.yaml", "mine.Net")
    result = run_here("train.py", "model=vgg16_bn", *SHOWN, cwd=tmp_path)
    assert "_target_: lightning_prune.models.vgg.vgg16_bn" in result.stdout


def test_a_folder_of_ones_own_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/train.yaml").write_text("of: another program\n")
    result = run_here("train.py", "model=vgg16_bn", *SHOWN, cwd=tmp_path)
    assert "_target_: lightning_prune.models.vgg.vgg16_bn" in result.stdout, result.stderr
