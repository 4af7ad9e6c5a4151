"""The operator's console in the browser: traffic, views, releases, and one decision explained."""

from penstock.console.routes import pages

__all__ = ["pages"]
