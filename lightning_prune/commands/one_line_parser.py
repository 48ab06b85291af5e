"""A parser of the command line whose mistakes end as all others do: in one line."""

import argparse
from typing import NoReturn

from lightning_prune.errors import InputError


class OneLineParser(argparse.ArgumentParser):
    """Parse words, and raise where argparse would print its usage and end the program."""

    def error(self, message: str) -> NoReturn:
        """Refuse what was typed.

        Raises:
            InputError: Always.
        """
        usage = self.format_usage().partition(":")[2]
        raise InputError(f"{message}; expected {' '.join(usage.split())}")
