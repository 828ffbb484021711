"""Fixtures that more than one file of tests asks for by name."""

from fake_sessions import fakes

__all__ = ["fakes"]
