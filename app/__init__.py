"""The service: an LLM2Vec encoder behind HTTP."""

from importlib.metadata import version

__version__ = version("l2v")
