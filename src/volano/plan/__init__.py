"""The compiled form of a project, as data: definitions, steps, diff, explain. No I/O, no clock."""
