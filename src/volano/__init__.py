"""Operational machine learning as one loop: decide, collect, organize, learn."""

__version__ = "0.1.0"
