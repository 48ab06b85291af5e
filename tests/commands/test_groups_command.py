"""`lightning-prune groups`: the groups of a network as text and as a picture, of what is typed or of a run."""

from pathlib import Path

from command_line import ROOT, run_here
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf


def test_prints_and_draws(tmp_path: Path) -> None:
    result = run_here("scripts/groups.py", "model=lenet_300_100", "data.size=28", "picture=groups.svg", cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    assert "group 0: 300 units" in result.stdout
    assert "kept, because they are outputs of the model: fc3 (10)" in result.stdout
    assert "lenet_300_100" in (tmp_path / "groups.svg").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["groups.svg"]


def test_takes_the_folder_of_a_run(tmp_path: Path) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=["model=resnet20", f"run_folder={tmp_path}", "run_id=run"])
    OmegaConf.save(cfg, tmp_path / "config.yaml")

    result = run_here("scripts/groups.py", str(tmp_path), cwd=tmp_path)

    assert "\ngroup 0: 16 units\n" in result.stdout
