"""The decision path: request → features → score → action → `DecisionMade`. Writes no state, reads no clock."""
