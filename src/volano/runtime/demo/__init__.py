"""The demo: a year of real flights, replayed through the platform. Holds no rule of the platform."""

from volano.runtime.demo.run import END, HAND_OVER, Outcome, run_demo

__all__ = ["END", "HAND_OVER", "Outcome", "run_demo"]
