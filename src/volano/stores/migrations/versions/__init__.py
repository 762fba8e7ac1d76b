"""One module a step, run in the order that their `down_revision` tells."""
