"""Serving: decisions, the one writer, the runtime and its HTTP face."""
