"""The demo: a year of real flights, replayed through the platform. Holds no rule of the platform."""
