"""A folder of the user's own to start from, and a mapping guessed from the user's own file."""

from penstock.scaffold.check import Checked, check
from penstock.scaffold.guess import Guess, guess
from penstock.scaffold.project import SAMPLE, files_of, write
from penstock.scaffold.sample import sampled
from penstock.scaffold.telling import lines, told
from penstock.scaffold.toml import mapping_toml

__all__ = [
    "SAMPLE", "Checked", "Guess", "check", "files_of", "guess", "lines", "mapping_toml", "sampled", "told", "write",
]  # fmt: skip
