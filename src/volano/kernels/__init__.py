"""The mathematics on arrays: windows, as-of joins, the packed online state. Pure: no I/O, no clock, no globals.

The one exception is `compiled.py`, which writes generated modules to a cache folder. Importing this package
loads nothing; each module loads NumPy and Arrow on its own.
"""
