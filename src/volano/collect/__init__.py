"""Collect: what happened comes in, is stamped once, becomes visible online and ends in the lake."""
