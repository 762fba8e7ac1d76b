"""Definitions → compiled project → plan. Checks everything, reports all mistakes at once. No I/O, no clock."""
