"""Two-tower retrieval: queries and items as vectors of one space."""

from penstock.learn.two_tower.network import Bags, Form, encode, tower
from penstock.learn.two_tower.source import TwoTower
from penstock.learn.two_tower.training import Course, Epoch, Pairs, train

__all__ = ["Bags", "Course", "Epoch", "Form", "Pairs", "TwoTower", "encode", "tower", "train"]
