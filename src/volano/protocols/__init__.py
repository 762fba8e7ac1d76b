"""What a stage needs from the world: small, readers apart from writers, Arrow and bytes only."""
