"""Trainers, made for a model: found by entry point, given the author's functions when the model declares them."""

from __future__ import annotations

from volano.plan.definitions import CompiledTrainer
from volano.protocols.functions import Functions
from volano.protocols.trainer import Trainer
from volano.runtime.plugins import load


def make_trainer(declared: CompiledTrainer, functions: Functions) -> Trainer:
    """The trainer that a model declares.

    Args:
        functions: of the bundle that declares the model.

    Raises:
        UnknownNameError: no installed package offers it.
        MissingExtraError: a library it needs is not installed.
    """
    made = load("volano.trainers", declared.kind)
    codes = [code for code in (declared.code, declared.predict) if code is not None]
    trainer: Trainer = made(*(functions.get(code) for code in codes))
    return trainer
