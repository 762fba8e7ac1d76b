"""Organize: facts as of a stamp, point-in-time features, labels, audits. Never reads the clock."""
