"""The SQLite catalog keeps the catalog's contract."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

import volano.stores.migrations
from volano.errors import CorruptionError, StateMismatchError
from volano.stores import sqlite_catalog
from volano.stores.sqlite_catalog import SqliteCatalog
from volano.testing.conformance.catalog import CatalogConformance
from volano.testing.conformance.processes import run


class TestSqliteCatalog(CatalogConformance):
    catalog = "volano.stores.sqlite_catalog:SqliteCatalog"


def test_the_head_is_the_newest_migration():
    """`HEAD` spares the import of Alembic only while it names the last step."""
    folder = Path(volano.stores.migrations.__file__).parent
    assert ScriptDirectory(str(folder)).get_current_head() == sqlite_catalog.HEAD


def test_a_newer_schema_is_refused(tmp_path):
    """A catalog that a later version of Volano has migrated is not touched."""
    SqliteCatalog(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "catalog.sqlite")
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StateMismatchError, match="another version"):
        SqliteCatalog(tmp_path)


def test_a_damaged_file_is_corruption(tmp_path):
    """A file that is no database is reported with its mend."""
    (tmp_path / "catalog.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(CorruptionError) as found:
        SqliteCatalog(tmp_path)
    assert found.value.mend


def test_a_full_disk_changes_nothing(tmp_path):
    """Without space StoreFullError, and what was there stays readable."""
    code = """
        import resource
        from volano.errors import StoreFullError
        catalog = resolve("volano.stores.sqlite_catalog:SqliteCatalog")(folder)
        catalog.put("model", "a", b"1")
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            catalog.put("model", "a", bytes(1_000_000))
        except StoreFullError as error:
            print(bool(error.mend), catalog.find("model", "a").body)
        """
    _, said = run(code, tmp_path)
    assert said.strip() == "True b'1'"


def test_writes_are_synced(tmp_path):
    """The journal mode and the sync level that survive a loss of power."""
    catalog = SqliteCatalog(tmp_path)
    with catalog._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
