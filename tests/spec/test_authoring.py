"""What authors write: references, names, and how little importing volano costs."""

from __future__ import annotations

from datetime import timedelta

import volano as vo
from tests.compile.projects import FLIGHTS
from volano.spec.fields import FieldRef
from volano.spec.view import FeatureRef, ViewOn


class Trip(vo.Request):
    trip_id: str
    distance: int


class History(vo.FeatureView):
    mean_fare = vo.mean("fare", within="7d")


def test_an_attribute_of_a_request_is_a_reference_to_its_field():
    assert Trip.distance == FieldRef(Trip, "distance")


def test_a_wrong_name_is_kept_for_compile_to_report():
    assert Trip.distanse == FieldRef(Trip, "distanse")
    assert History.mean_fair == FeatureRef(History, "mean_fair")


def test_a_view_says_which_key_of_the_request_it_is_about():
    assert History.on(Trip.trip_id) == ViewOn(History, (Trip.trip_id,))
    assert History.mean_fare.on(Trip.trip_id).keys == (Trip.trip_id,)


def test_one_line_declares_an_aggregate_over_many_windows():
    class Fares(vo.FeatureView):
        fares = vo.count(within="1h")
        fare = vo.std_pop("fare", within=("90m", timedelta(days=7), "30d"), offset="1d")

    assert list(Fares.aggregates) == ["fares", "fare_90m", "fare_7d", "fare_30d"]
    assert [Fares.aggregates[name].within for name in Fares.aggregates] == [
        "1h",
        "90m",
        timedelta(days=7),
        "30d",
    ]
    assert Fares.aggregates["fare_7d"].offset == "1d"
    assert Fares.written["fare_90m"] == "fare"


def test_private_attributes_are_not_references():
    assert not hasattr(Trip, "_private")
    assert not hasattr(History, "__wrapped__")


def test_declarations_cannot_be_changed():
    for declaration in (Trip, History):
        try:
            declaration.extra = 1
        except AttributeError as error:
            assert "cannot change" in str(error)
        else:
            raise AssertionError("it changed")


def test_every_public_name_is_exported_and_documented():
    for name in vo.__all__:
        value = getattr(vo, name)
        if name not in ("EventTime", "__version__"):
            assert value.__doc__, name


def test_a_complete_first_project_fits_sixty_lines():
    code = [line for line in FLIGHTS.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) <= 60
