"""Immutable releases, the pointer to the champion, and the training runs that make them."""

from penstock.releases.bundle import Bundle, Release, VerdictRelease, read, recipe_of, write
from penstock.releases.registry import Registry

__all__ = ["Bundle", "Registry", "Release", "VerdictRelease", "read", "recipe_of", "write"]
