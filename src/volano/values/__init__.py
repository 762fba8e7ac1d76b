"""Instants, durations, schemas, keys, identities: pure values. No I/O, no clock, no global state."""
