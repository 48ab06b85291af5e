"""Which command is meant; only that one is imported, so that help is there at once."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from lightning_prune.arguments import near

COMMANDS = {
    "train": "train a network, make it small while it trains, and measure what is left",
    "export": "write the network that a run ended with as a file that other programs open",
    "evaluate": "measure the networks that a run ended with once more",
    "groups": "show which channels of a network can be pruned, and why the others cannot",
}
"""What each command does; each is a module beside this one."""


def main(typed: Sequence[str] | None = None) -> None:
    """Run what was typed; without a command in front it is for `train`.

    Modules of the current folder can be named in configurations.

    Args:
        typed: The words behind the program's name; None for those of this process.
    """
    words = list(sys.argv[1:] if typed is None else typed)
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return
    command, *rest = words if _names_command(words[0]) else ["train", *words]
    if command not in COMMANDS:
        question = near(command, COMMANDS, cutoff=0.6)
        raise SystemExit(f"Error: expected a command, one of {', '.join(COMMANDS)}, got {command}{question}")
    try:
        import_module(f"lightning_prune.commands.{command}").main(rest)
    except KeyboardInterrupt:
        raise SystemExit("Stopped") from None


def _names_command(word: str) -> bool:
    """Return whether a word stands for a command: options of `train` have an equals sign or a dash in front."""
    return "=" not in word and not word.startswith(("-", "+", "~"))


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  lightning-prune {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(["Make networks small while you train them.", "", *lines, "", "Each has its own --help."])
