"""A simulated shop: the traffic when no file is given, and a world whose truth is known."""

from __future__ import annotations

from penstock.simulator.catalogue import Catalogue
from penstock.simulator.crowd import Crowd
from penstock.simulator.impressions import Impressions
from penstock.simulator.traffic import KINDS, Traffic
from penstock.simulator.world import World

__all__ = ["KINDS", "Catalogue", "Crowd", "Impressions", "Traffic", "World"]
