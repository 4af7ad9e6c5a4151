"""Erases one entity, a person above all, from everything durable in a home folder."""

from penstock.events.erasure import begun
from penstock.forget.find import App, Found, entity, find
from penstock.forget.run import LOG, Done, finish, forget

__all__ = ["LOG", "App", "Done", "Found", "begun", "entity", "find", "finish", "forget"]
