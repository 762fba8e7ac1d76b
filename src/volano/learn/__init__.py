"""Learn: training sets, training, evaluation, gate, release. Gets tables and callables; never reads the clock."""
