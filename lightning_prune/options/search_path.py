"""Where Hydra finds configurations: this package's, and those of the folder in which a command is typed."""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

CONF = Path(__file__).parents[1] / "conf"
"""The folder with `train.yaml` and a folder for each group."""


class OwnConfigurations(SearchPathPlugin):
    """Look into `conf/` of the current folder as well, behind this package's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folder, if it is there and another one than this package's."""
        own = Path("conf").absolute()
        if own.is_dir() and own.resolve() != CONF.resolve():
            search_path.append("current folder", f"file://{own}")
