"""Compare the distillation losses, as the command line configures them, with training without a teacher.

Each seed trains a network without a teacher, which is then the teacher of the same network from the same seed, once
with each loss, and then, with `--beside`, all of it once more beside a pruner. Figures are accuracies of the weights at
the end of training on the test images, in percent: the mean over the seeds, the least and the greatest, and the mean
difference to the run without a teacher of the same seed. Whatever stands behind the options is set in every run.

    python scripts/compare_distillation.py --beside sfp --seeds 0 1 2
    python scripts/compare_distillation.py data=cifar10 data.path=FOLDER data.validation=46000 trainer.max_epochs=12
"""

import argparse
import json
import logging
import statistics
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import Trainer, seed_everything
from omegaconf import DictConfig
from torch import nn

from lightning_prune.data import InMemoryImages
from lightning_prune.models import ImageClassifier
from lightning_prune.options import CONF, register_resolvers

NO_TEACHER = "no teacher"


def configuration(run: str) -> DictConfig:
    """Return the configuration of a run, from what would be typed."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=["logger=csv", *run.split()])


@cache
def data_of(run: str) -> InMemoryImages:
    """Return the data of a run."""
    data: InMemoryImages = instantiate(configuration(run).data)
    return data


def classifier(cfg: DictConfig, data: InMemoryImages) -> ImageClassifier:
    """Return what a run trains, with the random weights of its seed."""
    seed_everything(cfg.seed, workers=True, verbose=False)
    network = instantiate(cfg.model, num_classes=data.num_classes, in_channels=data.in_channels)
    module = ImageClassifier(network, data.num_classes, instantiate(cfg.optimizer), instantiate(cfg.lr_scheduler))
    module.example_input_array = data.example_input(2)
    return module


def trained(run: str, data: InMemoryImages, teacher: nn.Module | None) -> tuple[nn.Module, float]:
    """Train a network, and return it with its accuracy on the test images, in percent."""
    cfg = configuration(run)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    module = classifier(cfg, data)
    callbacks = [
        instantiate(options, **({"teacher": teacher, "student": "network"} if "teacher" in options else {}))
        for options in cfg.strategy.values()
    ]
    trainer = Trainer(
        max_epochs=cfg.trainer.max_epochs,
        callbacks=callbacks,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    (figures,) = trainer.test(module, datamodule=data, verbose=False)
    return module.network, 100 * figures["test/accuracy"]


class Results:
    """Accuracies of runs, also in a file, so that a comparison that was stopped goes on.

    Args:
        path: Of the file, a line of JSON each; None for none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path is not None and path.is_file() else []
        self._known: dict[str, float] = {line["run"]: line["accuracy"] for line in map(json.loads, lines)}

    def __contains__(self, run: str) -> bool:
        """Return whether a run is known."""
        return run in self._known

    def __getitem__(self, run: str) -> float:
        """Return the accuracy of a run, in percent."""
        return self._known[run]

    def add(self, run: str, accuracy: float) -> None:
        """Keep the accuracy of a run, in percent."""
        self._known[run] = accuracy
        print(f"{accuracy:6.2f}  {run}", flush=True)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps({"run": run, "accuracy": accuracy}) + "\n")


def rows_of(options: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """Return what is typed for each row of the table, by its name."""
    rows = {loss: (f"distillation={loss}",) for loss in options.losses}
    return {NO_TEACHER: (), **rows, **{" ".join(words.split()): tuple(words.split()) for words in options.also}}


def run_of(row: Sequence[str], beside: str | None, overrides: Sequence[str], seed: int) -> str:
    """Return what is typed for a row, beside a pruner or alone, with one seed."""
    names = [*([beside] if beside else []), *(["kd"] if row else [])]
    return " ".join([f"strategy=[{','.join(names)}]" if names else "strategy=none", *row, *overrides, f"seed={seed}"])


def compare(options: argparse.Namespace, results: Results) -> None:
    """Train what is not known yet, seed by seed."""
    for seed in options.seeds:
        plain = run_of((), None, options.overrides, seed)
        teacher: nn.Module | None = None
        for beside in (None, *options.beside):
            for row in rows_of(options).values():
                run = run_of(row, beside, options.overrides, seed)
                if run not in results:
                    data = data_of(plain)
                    if row and teacher is None:
                        teacher, _ = trained(plain, data, None)
                    network, accuracy = trained(run, data, teacher if row else None)
                    results.add(run, accuracy)
                    teacher = network if run == plain else teacher
        data_of.cache_clear()


def print_table(options: argparse.Namespace, results: Results) -> None:
    """Print a row for each loss, and columns for it alone and beside each pruner."""
    columns, rows = (None, *options.beside), rows_of(options)
    width = max(map(len, rows))

    def accuracies(row: Sequence[str], beside: str | None) -> list[float]:
        return [results[run_of(row, beside, options.overrides, seed)] for seed in options.seeds]

    print("\n" + " " * width + "".join(f"  {f'beside {beside}' if beside else 'alone':>30}" for beside in columns))
    for name, row in rows.items():
        cells = ""
        for beside in columns:
            own, plain = accuracies(row, beside), accuracies((), beside)
            difference = f"{statistics.mean(own) - statistics.mean(plain):+.2f}" if row else ""
            cells += f"  {statistics.mean(own):6.2f} ({min(own):6.2f} to {max(own):6.2f}) {difference:>6}"
        print(f"{name:<{width}}{cells}")


def main() -> None:
    """Train and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of every run, such as data=cifar10 trainer.max_epochs=12")
    parser.add_argument(
        "--losses",
        nargs="*",
        default=sorted(path.stem for path in (CONF / "distillation").glob("*.yaml")),
        help="by default all there are",
    )
    parser.add_argument("--also", action="append", default=[], help="what to type for one more row, in one word")
    parser.add_argument("--beside", nargs="*", default=[], help="pruners, such as sfp")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, help="file that keeps what is measured, for a comparison that goes on")
    options = parser.parse_intermixed_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    register_resolvers()
    results = Results(options.results)
    compare(options, results)
    print_table(options, results)


if __name__ == "__main__":
    main()
