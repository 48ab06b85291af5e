"""Data sets as the Hugging Face hub keeps them: a folder of parquet files for training and for testing."""

from os import PathLike
from pathlib import Path, PurePath

from huggingface_hub import list_repo_files, snapshot_download

from lightning_prune.data.data_checks import check_folder
from lightning_prune.data.hub_layout import arrange, choose
from lightning_prune.data.images import Images, hold_out
from lightning_prune.data.parquet import read_parquet
from lightning_prune.errors import InputError


def download(repository: str, files: str) -> str:
    """Return the folder into which some files of a data set on the hub are downloaded.

    Raises:
        InputError: If they cannot be had.
    """
    try:
        return snapshot_download(repository, repo_type="dataset", allow_patterns=files)
    except OSError as error:  # no network, no such repository, no space: the hub's errors are all of this type
        raise InputError(
            f"data.path: expected to download {repository} from huggingface.co, got {type(error).__name__}; "
            "pass a folder with its parquet files"
        ) from error


def download_parts(repository: str, name: str | None) -> Path:
    """Return the folder into which the parquet files of one configuration of a data set on the hub are downloaded.

    Where a data set has none, those are taken into which the hub converts all that it can show.

    Args:
        repository: Name of the data set.
        name: Of the configuration; None for the only one.

    Raises:
        InputError: If they cannot be had.
    """
    try:
        for revision in ("main", "refs/convert/parquet"):
            names = list_repo_files(repository, repo_type="dataset", revision=revision)
            files = [PurePath(file) for file in names if file.endswith(".parquet")]
            if files:
                wanted = [file.as_posix() for some in choose(arrange(files), name).values() for file in some]
                return Path(
                    snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=wanted)
                )
    except InputError:
        raise
    except Exception as error:  # those of whichever library the hub's speaks HTTP with, and OSErrors
        try:
            return Path(snapshot_download(repository, repo_type="dataset", local_files_only=True))
        except OSError:
            raise InputError(
                f"data.path: expected a folder, or a data set that can be downloaded from huggingface.co, got "
                f"{repository!r} ({type(error).__name__})"
            ) from error
    raise InputError(f"data.path: expected a data set with parquet files on huggingface.co, got {repository!r}")


def read_splits(
    path: str | PathLike[str], label_columns: tuple[str, ...], num_classes: int, validation: int, seed: int
) -> tuple[Images, Images, Images]:
    """Return the training images in a folder, those of them that are held out for validation, and the test images.

    Raises:
        InputError: If the folder has no such files, or they cannot be read.
    """
    folder = check_folder(path, "parquet files")
    everything = read_parquet(_find_files(folder, "train"), label_columns, num_classes)
    test = read_parquet(_find_files(folder, "test"), label_columns, num_classes)
    return *hold_out(everything, validation, seed), test


def _find_files(folder: Path, part: str) -> list[Path]:
    # Searched in depth: the hub's own folders have the files one level down.
    files = sorted(file for file in folder.rglob("*.parquet") if part in file.name)
    if not files:
        raise InputError(f"data.path: expected files named *{part}*.parquet, got {folder}, which has none")
    return files
