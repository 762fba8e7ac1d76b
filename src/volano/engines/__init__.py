"""Adapters that run SQL and read authors' tables. Stateless over what they are given."""
