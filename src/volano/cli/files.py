"""Tables as files for other tools. The name's ending says which format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from volano.errors import RequestError, StoreError

if TYPE_CHECKING:
    import pyarrow as pa


def write_table(table: pa.Table, file: Path) -> None:
    """Write a table as `.parquet` or `.csv`. A file of this name is replaced whole, or not at all.

    Raises:
        RequestError: another ending.
        StoreError: the file cannot be written.
    """
    import pyarrow.csv as csv
    import pyarrow.parquet as parquet

    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        match file.suffix:
            case ".parquet":
                parquet.write_table(table, unfinished)
            case ".csv":
                csv.write_csv(table, unfinished)
            case other:
                raise RequestError(
                    f"No format is known by the ending {other!r}.",
                    where=str(file),
                    mend="end the name in .parquet or .csv",
                )
        unfinished.replace(file)
    except OSError as error:
        raise StoreError(
            f"The file cannot be written: {error.strerror or error}.",
            where=str(file),
            mend="name a file in a folder that exists and may be written",
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
