"""Definitions → compiled project → plan. Checks everything, reports all mistakes together. Pure."""
