"""nearcase finds the prior cases that look like this one, and shows them as evidence."""

from importlib.metadata import version

__version__ = version("nearcase")
