"""What a refused run or sweep leaves behind, which is nothing."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode


def remove_empty(folder: Path) -> None:
    """Remove a folder, and those of its day and kind, as far as nothing is in them."""
    for place in (folder, *folder.absolute().parents[:2]):
        if not place.is_dir() or place.resolve() == Path.cwd() or any(place.iterdir()):
            return
        place.rmdir()


def remove_refused_sweep() -> None:
    """Remove the folder of a sweep that ends before its first job, if there is one."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return
    folder = Path(HydraConfig.get().sweep.dir)
    if folder.is_dir() and [path.name for path in folder.iterdir()] == ["multirun.yaml"]:
        (folder / "multirun.yaml").unlink()
        remove_empty(folder)
