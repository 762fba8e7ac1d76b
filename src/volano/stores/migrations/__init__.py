"""The catalog's schema, step by step. Each step is a module of `versions`; none is ever changed once released."""
