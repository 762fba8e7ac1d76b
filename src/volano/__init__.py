"""Operational machine learning as one loop: decide, collect, organize, learn."""

from volano.spec.aggregates import count as count
from volano.spec.aggregates import count_distinct as count_distinct
from volano.spec.aggregates import first as first
from volano.spec.aggregates import first_n as first_n
from volano.spec.aggregates import last as last
from volano.spec.aggregates import last_n as last_n
from volano.spec.aggregates import last_non_null as last_non_null
from volano.spec.aggregates import max as max
from volano.spec.aggregates import mean as mean
from volano.spec.aggregates import min as min
from volano.spec.aggregates import rate as rate
from volano.spec.aggregates import ratio as ratio
from volano.spec.aggregates import std as std
from volano.spec.aggregates import std_pop as std_pop
from volano.spec.aggregates import sum as sum
from volano.spec.aggregates import time_since_last as time_since_last
from volano.spec.aggregates import var as var
from volano.spec.aggregates import var_pop as var_pop
from volano.spec.attribution import Attribution as Attribution
from volano.spec.decision import Decision as Decision
from volano.spec.entity import Entity as Entity
from volano.spec.event import Event as Event
from volano.spec.event import EventTime as EventTime
from volano.spec.join import join as join
from volano.spec.label import Label as Label
from volano.spec.model import Model as Model
from volano.spec.on_demand import on_demand as on_demand
from volano.spec.owner import Owner as Owner
from volano.spec.policy import EpsilonGreedy as EpsilonGreedy
from volano.spec.policy import Greedy as Greedy
from volano.spec.policy import Softmax as Softmax
from volano.spec.policy import Threshold as Threshold
from volano.spec.projection import projection as projection
from volano.spec.release import Gate as Gate
from volano.spec.release import Release as Release
from volano.spec.request import Request as Request
from volano.spec.request import Requests as Requests
from volano.spec.source import Source as Source
from volano.spec.sql import sql as sql
from volano.spec.trainer import LightGBM as LightGBM
from volano.spec.trainer import PythonTrainer as PythonTrainer
from volano.spec.trainer import Sklearn as Sklearn
from volano.spec.trainer import Trainer as Trainer
from volano.spec.view import FeatureView as FeatureView

__version__ = "0.1.0"

__all__ = [
    "Attribution",
    "Decision",
    "Entity",
    "EpsilonGreedy",
    "Event",
    "EventTime",
    "FeatureView",
    "Gate",
    "Greedy",
    "Label",
    "LightGBM",
    "Model",
    "Owner",
    "PythonTrainer",
    "Release",
    "Request",
    "Requests",
    "Sklearn",
    "Softmax",
    "Source",
    "Threshold",
    "Trainer",
    "count",
    "count_distinct",
    "first",
    "first_n",
    "join",
    "last",
    "last_n",
    "last_non_null",
    "max",
    "mean",
    "min",
    "on_demand",
    "projection",
    "rate",
    "ratio",
    "sql",
    "std",
    "std_pop",
    "sum",
    "time_since_last",
    "var",
    "var_pop",
]
