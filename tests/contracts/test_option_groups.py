"""Options are chosen by name and set where they are read, whatever their group; a new yaml is tested at once."""

import re
from collections.abc import Iterator

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from lightning_prune.options import CONF


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture(autouse=True)
def conf() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(overrides: str) -> DictConfig:
    return compose("train", overrides=overrides.split())


def test_no_option_of_a_group_knows_the_strategy_that_reads_it() -> None:
    for path in CONF.rglob("*.yaml"):
        if path.parent.name not in ("strategy", "callbacks"):  # several of which go together
            headers = re.findall(r"# @package (.*)", path.read_text())
            assert headers in ([], ["_global_"]), path


@pytest.mark.parametrize("stage", ["strategy.qat", "finetune.strategy.qat"])
@pytest.mark.parametrize("name", options("quantizer"))
def test_every_quantizer_is_chosen_by_name_and_set_where_it_is_read(stage: str, name: str) -> None:
    chosen = f"quantizer@{stage}.quantizer={name}" if stage.startswith("finetune") else f"quantizer={name}"
    strategy = "strategy=sfp finetune=qat" if stage.startswith("finetune") else "strategy=[sfp,kd,qat]"
    plain = OmegaConf.load(CONF / "quantizer" / f"{name}.yaml")
    changed = dict.fromkeys(list(plain)[1:2], 7)  # behind _target_, if there are options
    cfg = composed(" ".join([strategy, chosen, *(f"{stage}.quantizer.{key}=7" for key in changed)]))
    assert OmegaConf.select(cfg, f"{stage}.quantizer") == {**plain, **changed}


@pytest.mark.parametrize("name", options("strategy"))
def test_every_strategy_is_read_under_its_own_name(name: str) -> None:
    assert list(composed(f"strategy={name}").strategy) == ([] if name == "none" else [name])


@pytest.mark.parametrize("name", options("distillation"))
def test_every_distillation_is_chosen_by_name_and_set_where_it_is_read(name: str) -> None:
    plain = OmegaConf.load(CONF / "distillation" / f"{name}.yaml")
    cfg = composed(f"strategy=[sfp,kd,qat] distillation={name} strategy.kd.decay=0.7")
    assert {key: cfg.strategy.kd[key] for key in plain} == plain
    assert cfg.strategy.kd.decay == 0.7
    assert cfg.strategy.qat.quantizer == OmegaConf.load(CONF / "quantizer" / "affine.yaml")


def test_the_readme_lists_every_option_of_every_group() -> None:
    rows = [line for line in (CONF.resolve().parents[1] / "README.md").read_text().splitlines() if line.startswith("|")]
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    assert len(groups) > 15
    for group in groups:
        row = next((row for row in rows if f"`{group}`" in row.split("|")[1]), "")
        missing = [name for name in options(group) if f"`{name}`" not in row]
        assert not missing, f"README: {group} lacks {missing}"
