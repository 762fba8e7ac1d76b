"""Spec → compiled definitions, one noun a file. Each notes its mistakes in the report and goes on."""
