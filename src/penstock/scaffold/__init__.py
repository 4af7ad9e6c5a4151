"""A folder of the user's own to start from, and a mapping guessed from the user's own file."""

from penstock.scaffold.check import Checked, check
from penstock.scaffold.guess import Guess, guess
from penstock.scaffold.project import STARTERS, Starter, files_of, started, write
from penstock.scaffold.sample import sampled
from penstock.scaffold.telling import lines, told
from penstock.scaffold.toml import mapping_toml

__all__ = [
    "STARTERS", "Checked", "Guess", "Starter", "check", "files_of", "guess", "lines", "mapping_toml", "sampled",
    "started", "told", "write",
]  # fmt: skip
