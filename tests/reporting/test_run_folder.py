"""How the files of runs and sweeps are called."""

import re
from pathlib import Path

from lightning_prune.reporting.run_folder import RunFolder, SweepFolder

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_best_checkpoint_is_taken_or_else_the_last_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    assert folder.saved_checkpoint is None
    for file in (folder.last_checkpoint, folder.best_checkpoint):
        file.touch()
        assert folder.saved_checkpoint == file


def test_starts_and_jobs_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 0):
        (tmp_path / f"csv/version_{number}").mkdir(parents=True)
        (tmp_path / f"csv/version_{number}/metrics.csv").touch()
        (tmp_path / f"sweep/{number}").mkdir(parents=True)
    (tmp_path / "sweep/.submitit").mkdir()
    (tmp_path / "sweep/multirun.yaml").touch()
    assert [file.parent.name for file in RunFolder(tmp_path).metrics] == ["version_0", "version_9", "version_10"]
    assert [job.path.name for job in SweepFolder(tmp_path / "sweep").jobs] == ["0", "9", "10"]


def test_files_are_called_as_the_readme_says() -> None:
    told = set(re.findall(r"`([\w.]+)/?`", "".join(re.findall(r"^\| `.*?\|", README, re.MULTILINE))))
    folder = RunFolder(Path("run"))
    files = (folder.curves, folder.summary, folder.slim, folder.checkpoints, folder.config, folder.quantized)
    files += (folder.finetuned, folder.finetuning.path, folder.dense, folder.momentum)
    assert {file.name for file in files} <= told
