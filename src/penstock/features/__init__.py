"""Views, windows, request-time columns."""

from penstock.features.request import Request, request
from penstock.features.view import View, define, hop_of

__all__ = ["Request", "View", "define", "hop_of", "request"]
