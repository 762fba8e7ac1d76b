"""Trainers: adapters to the libraries that learn, found by entry point (`volano.trainers`). No pickle anywhere."""
