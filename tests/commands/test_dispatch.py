"""Which command is run: `lightning-prune COMMAND`, `python -m lightning_prune COMMAND` and the scripts of a clone."""

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, environment, run_here

from lightning_prune.commands.dispatch import COMMANDS

MODULE = "lightning_prune/__main__.py"
MODEL = ["--cfg", "job", "--package", "model"]


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["help"]])
def test_without_a_command_all_are_listed(words: list[str], tmp_path: Path) -> None:
    result = run_here(MODULE, *words, cwd=tmp_path)
    assert result.returncode == 0
    assert [f"  lightning-prune {name} " in result.stdout for name in COMMANDS] == [True] * len(COMMANDS)


def test_every_command_is_there_and_has_its_script() -> None:
    for name in COMMANDS:
        assert (ROOT / "lightning_prune" / "commands" / f"{name}.py").is_file()
        assert (ROOT / ("train.py" if name == "train" else f"scripts/{name}.py")).is_file()


def test_another_command_is_refused(tmp_path: Path) -> None:
    result = run_here(MODULE, "exprt", "outputs", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        f"Error: expected a command, one of {', '.join(COMMANDS)}, got exprt; did you mean export?\n"
    )


@pytest.mark.parametrize("command", [["train.py"], [MODULE, "train"], [MODULE]])
def test_train_is_the_same_however_it_is_called(command: list[str], tmp_path: Path) -> None:
    result = run_here(*command, "model=vgg16_bn", *MODEL, cwd=tmp_path)
    assert result.stdout.startswith("# @package model\n_target_: lightning_prune.models.vgg.vgg16_bn\n"), result.stderr


@pytest.mark.parametrize("command", [["train.py"], [MODULE]])
def test_the_other_processes_of_a_run_find_its_configuration(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "run/.hydra").mkdir(parents=True)
    (tmp_path / "run/.hydra/config.yaml").write_text("model: {_target_: mine.Net}\n")
    as_lightning = ["-cp", str(tmp_path / "run/.hydra"), "-cn", "config.yaml", "hydra.output_subdir=.pl_ddp_hydra_1"]
    as_lightning += [f"hydra.run.dir={tmp_path / 'run'}", "hydra.job.name=train_ddp_process_1"]
    result = run_here(*command, *as_lightning, *MODEL, cwd=tmp_path)
    assert "_target_: mine.Net" in result.stdout, result.stderr


def test_modules_of_the_current_folder_are_found(tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("")
    code = "import sys; from lightning_prune.commands import main; main(['help']); import only_here"
    lone = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment(PYTHONPATH=str(ROOT)), capture_output=True
    )
    assert lone.returncode == 0, lone.stderr


HELP = """
import sys
sys.argv = ["lightning-prune", "train", "--help"]
from lightning_prune.commands import main
try:
    main()
finally:
    heavy = {"torch", "lightning", "wandb", "matplotlib", "sklearn", "torchmetrics"} & set(sys.modules)
    print("imported:", sorted(heavy), file=sys.stderr)
"""


def test_help_tells_all_and_imports_nothing_heavy(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", HELP], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100
    )
    assert (result.returncode, result.stderr) == (0, "imported: []\n")
    for group in (path for path in (ROOT / "conf").iterdir() if path.is_dir()):
        listed = next(line for line in result.stdout.splitlines() if line.startswith(f"{group.name}: "))
        assert listed == f"{group.name}: {', '.join(sorted(path.stem for path in group.glob('*.yaml')))}"
    examples = [line for line in result.stdout.splitlines() if line.startswith("  lightning-prune train ")]
    assert len(examples) >= 10
    assert max(map(len, result.stdout.partition("== Groups")[0].splitlines())) <= 120
    assert "sparsity: 0.4" in result.stdout
    assert not list(tmp_path.iterdir())


def test_a_key_pressed_while_nothing_runs_ends_without_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(words: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_prune.commands.train.main", interrupted)
    result = run_here("train.py", "strategy=sfp", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (1, "Stopped\n")
