"""How much a store remembers of what its last writes changed."""

KEPT = 256
"""Writes that are remembered."""
NAMED = 4_096
"""Records that are named of one write; a larger one may have changed anything."""
