"""The Delta lake keeps the lake's contract."""

from volano.testing.conformance.lake import LakeConformance


class TestDeltaLake(LakeConformance):
    lake = "volano.stores.delta_lake:DeltaLake"
