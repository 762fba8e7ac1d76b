"""The LMDB store keeps the online store's contract."""

from volano.testing.conformance.online_store import OnlineStoreConformance


class TestLmdbOnlineStore(OnlineStoreConformance):
    store = "volano.stores.lmdb_online_store:LmdbOnlineStore"
