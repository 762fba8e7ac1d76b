"""Kernel sources: plain Python functions that `kernels.compiled` concatenates, decorates and compiles.

They run uncompiled too, which is how a debugger sees them. Module-level `ENTRY` names the functions that
Python calls and their signatures, in the letters of `kernels.compiled`.
"""
