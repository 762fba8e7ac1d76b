"""Adapters that keep things, one module each, found by entry point. They never import each other or a stage."""
