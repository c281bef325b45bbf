"""The version, where no module needs the whole package to know it."""

__version__ = "0.2.0"
