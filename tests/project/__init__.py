"""The whole loop on a small world: proofs that its promises hold, and that the proofs can fail."""
