"""A shop window on the running system: products, search, a cart, and lists that follow each click."""

from penstock.shop.window import pages

__all__ = ["pages"]
