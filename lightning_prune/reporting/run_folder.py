"""How the files are called that runs and sweeps leave in their folders."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Name the files of a run, those too that are not there, but for `saved_checkpoint` and `metrics`.

    Files for other programs are called as their format says.
    """

    path: Path

    @property
    def title(self) -> str:
        """The run in a heading: the last two parts of its path, its date and time."""
        return _title(self.path)

    @property
    def config(self) -> Path:
        """All that was configured."""
        return self.path / "config.yaml"

    @property
    def hydra_overrides(self) -> Path:
        """What was typed, as Hydra notes it before anything else is done."""
        return self.path / ".hydra" / "overrides.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best_checkpoint(self) -> Path:
        """The one with the best validation accuracy of those that can be slimmed."""
        return self.checkpoints / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """The one from which the run goes on."""
        return self.checkpoints / "last.ckpt"

    @property
    def saved_checkpoint(self) -> Path | None:
        """The best checkpoint, the last one if none was chosen, or None before there is one."""
        return next((file for file in (self.best_checkpoint, self.last_checkpoint) if file.is_file()), None)

    @property
    def metrics(self) -> list[Path]:
        """What was logged, in a file for each start of the run, in their order."""
        files = self.path.glob("csv/version_[0-9]*/metrics.csv")
        return sorted(files, key=lambda file: int(file.parent.name.removeprefix("version_")))

    @property
    def slim(self) -> Path:
        """The slim model."""
        return self.path / "slim.pt"

    @property
    def quantized(self) -> Path:
        """The quantized model of a run without a pruner."""
        return self.path / "quantized.pt"

    @property
    def dense(self) -> Path:
        """The weights of the dense network, where it teaches the slim one."""
        return self.path / "dense.pt"

    @property
    def momentum(self) -> Path:
        """The momentum with which the slim model trains on."""
        return self.path / "momentum.pt"

    @property
    def finetuned(self) -> Path:
        """The slim model after it has trained on, or its control."""
        return self.path / "finetuned.pt"

    @property
    def finetuning(self) -> "RunFolder":
        """The folder of that training."""
        return RunFolder(self.path / "finetune")

    @property
    def summary(self) -> Path:
        """The models that the run ended with."""
        return self.path / "summary.json"

    @property
    def layers(self) -> Path:
        """What is left of each layer."""
        return self.path / "layers.csv"

    @property
    def curves(self) -> Path:
        """The picture of what was logged."""
        return self.path / "curves.png"


@dataclass(frozen=True)
class SweepFolder:
    """Name the files of a sweep, whether they are there or not."""

    path: Path

    @property
    def title(self) -> str:
        """The sweep in a heading, as that of a run."""
        return _title(self.path)

    @property
    def jobs(self) -> list[RunFolder]:
        """The folders of its jobs; 9 comes before 10."""
        folders = [RunFolder(path) for path in self.path.glob("[!.]*") if path.is_dir()]
        names = {folder: folder.path.name for folder in folders}
        return sorted(folders, key=lambda job: (not names[job].isdigit(), len(names[job]), names[job]))

    @property
    def table(self) -> Path:
        """The jobs and their results, a line for each."""
        return self.path / "sweep.csv"

    @property
    def picture(self) -> Path:
        """The accuracies of the jobs over what their networks cost."""
        return self.path / "sweep.png"


def _title(folder: Path) -> str:
    return "/".join(folder.resolve().parts[-2:])
