"""Features of past decisions from the lake: what production saw at an instant, or would have seen.

`replay` sees the rows that were visible at the decision's `features_as_of`: its results are the bits that were served.
`history` sees the rows that production could have used by then (`known_at`): nothing that arrived later, nothing
that a slow pipeline would not have delivered. Never reads the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.errors import RequestError, StateMismatchError
from volano.kernels.columns import combined
from volano.kernels.features import WindowFeature
from volano.kernels.history import History
from volano.kernels.on_demand import call_on_demand
from volano.kernels.windows import Queries, compute
from volano.organize.enrichment import GroupRows
from volano.organize.facts import Facts
from volano.organize.partitions import Span, in_parts, part_of
from volano.plan.definitions import (
    CompiledFeature,
    CompiledOnDemand,
    CompiledProject,
    CompiledRequest,
    CompiledView,
    FeatureInput,
)
from volano.plan.state import StateGroup, window_arguments
from volano.plan.state_rows import StateRowMap
from volano.protocols.functions import Functions
from volano.protocols.scratch import Scratch
from volano.protocols.sql_engine import SqlEngine
from volano.records.journal import Operation
from volano.values.arrow import ARROW_TYPES
from volano.values.event_ids import event_id, row_id
from volano.values.instants import BEGINNING, NEVER, Instant
from volano.values.schema import DType, Scalar

ROWS_AT_ONCE: Final = 8_000_000
"""With more rows and queries than this the kernel works through key partitions, one after the other."""
_CUTS: Final = 4
"""What does not fit is read, and computed, in pieces of a fourth of what fits: sorting needs room too."""

Micros = NDArray[np.int64]


class Mode(StrEnum):
    """Which instants say what was visible."""

    REPLAY = "replay"
    HISTORY = "history"


class _Read(NamedTuple):
    """One reading of a group: the request fields that hold its key, and whether the request's own event counts."""

    group: StateGroup
    keys: tuple[str, ...]
    own_event: bool


class PointInTime:
    """Computes features point in time.

    Args:
        groups: as `compile.state_groups` gives them, for every view that is asked for.
        facts: where rows come from.
        sql, functions: run projections and on-demand functions.
        scratch: where rows wait that do not fit memory; without it all rows of a group are read at once.
        rows_at_once: how many rows of a source fit memory.
    """

    def __init__(
        self,
        project: CompiledProject,
        groups: Sequence[StateGroup],
        facts: Facts,
        sql: SqlEngine,
        functions: Functions,
        *,
        scratch: Scratch | None = None,
        rows_at_once: int = ROWS_AT_ONCE,
    ) -> None:
        self._project = project
        self._groups = tuple(groups)
        self._facts = facts
        self._sql = sql
        self._functions = functions
        self._scratch = scratch
        self._rows_at_once = rows_at_once
        self._group_rows = GroupRows(project, groups, facts, sql, functions)

    def features(
        self,
        inputs: Sequence[FeatureInput],
        spine: pa.Table,
        *,
        mode: Mode,
        request: CompiledRequest | None = None,
        stamp: Instant | None = None,
        only: Iterable[str] | None = None,
    ) -> pa.Table:
        """The inputs for every row of a spine.

        Args:
            inputs: what to compute; view features, on-demand features and request fields.
            spine: `decided_at` (the end of the windows), the request fields under their names, and for
                `replay` `as_of` (what was visible; null: nothing).
            mode: replay or history.
            request: whose id columns name the request's own event; needed for `include_request`.
            stamp: only what was applied by then exists at all (a manifest's pin); None: everything.
            only: names of the inputs wanted; all when None.

        Returns:
            One column an input, in order, typed as declared; rows in the spine's order.

        Raises:
            StateMismatchError: a view is in none of the groups.
            RequestError: the spine lacks a column.
            AuthorCodeError: a projection or an on-demand function failed.
        """
        wanted = set(only) if only is not None else {given.name for given in inputs}
        asked = [given for given in inputs if given.name in wanted]
        values = _Values(self._project, asked)
        queries = _Spine(spine, mode)
        for given in values.of_requests():
            assert given.request_field is not None
            values.put(given, queries.column(given.request_field, ARROW_TYPES[given.dtype]))
        for read, members in self._reads(values).items():
            found = self._read(read, members, queries, request, mode, stamp)
            for (given, feature), column in zip(members, found, strict=True):
                kind = ARROW_TYPES[given.dtype]
                values.put(given, column if column.type == kind else _cast(column, kind, feature.name))
        for name in values.on_demand_order():
            self._compute(self._project.on_demand[name], values, spine.num_rows)
        columns = [values.get(given) for given in asked]
        schema = pa.schema([(given.name, ARROW_TYPES[given.dtype]) for given in asked])
        return pa.Table.from_arrays(columns, schema=schema)

    def _reads(self, values: _Values) -> dict[_Read, list[tuple[FeatureInput, WindowFeature]]]:
        """The view features, by what is read together."""
        reads: dict[_Read, list[tuple[FeatureInput, WindowFeature]]] = {}
        for given in values.of_views():
            assert given.view is not None
            view = self._project.views[given.view]
            feature = next(each for each in view.features if each.name == given.feature)
            read = _Read(self._group_of(view), given.keys, feature.include_request)
            reads.setdefault(read, []).append((given, window_feature(view, feature)))
        return reads

    def _group_of(self, view: CompiledView) -> StateGroup:
        for group in self._groups:
            if view in group.views:
                return group
        raise StateMismatchError(
            f"View {view.name!r} is in none of the state groups given.",
            where=f"view {view.name}, definition {view.definition_hash[:12]}",
            mend="pass the state groups of the same bundle as the views",
        )

    def _read(
        self,
        read: _Read,
        members: Sequence[tuple[FeatureInput, WindowFeature]],
        spine: _Spine,
        request: CompiledRequest | None,
        mode: Mode,
        stamp: Instant | None,
    ) -> list[pa.Array]:
        features = list(dict.fromkeys(feature for _, feature in members))
        rows_of = self._group_rows.map_of(read.group)
        keys = [
            spine.column(field, ARROW_TYPES[part.dtype])
            for field, part in zip(read.keys, self._project.entities[read.group.entity].keys, strict=True)
        ]
        asked = spine.asked(keys, _OwnEvents(spine, read.group, request) if read.own_event else None)

        def rows(span: Span) -> _Rows:
            return self._rows(read.group, rows_of, span, mode, stamp, with_ids=read.own_event)

        columns = self._compute_windows(
            features, rows, self._spans(read.group.source, features, spine), asked
        )
        if read.own_event:
            _mask_null_keys(columns, features, partial(rows, Span(0, 0)), asked)
        return [columns[feature.name] for _, feature in members]

    def _spans(self, source: str, features: Sequence[WindowFeature], spine: _Spine) -> list[Span]:
        """The event times that the windows reach, in ranges whose rows fit memory."""
        reach = _reach(features, spine.decided_at)
        if self._scratch is None:
            return [reach]
        cut = -(-self._rows_at_once // _CUTS)
        return self._facts.spans(source, cut, whole=self._rows_at_once, since=reach.since, until=reach.until)

    def _rows(
        self,
        group: StateGroup,
        rows_of: StateRowMap,
        span: Span,
        mode: Mode,
        stamp: Instant | None,
        *,
        with_ids: bool,
    ) -> _Rows:
        """Rows of a group in a range of event time, with their visibility."""
        facts = self._facts.rows(
            group.source,
            since=span.since,
            until=span.until,
            stamp=stamp,
            columns=rows_of.needed,
            for_features=True,
        )
        facts = facts.filter(pc.not_equal(facts["operation"], Operation.RETRACT.value))
        mapped = self._group_rows.map(rows_of, facts, stamp=stamp)
        visible = (
            ("applied_at", "superseded_at") if mode is Mode.REPLAY else ("known_at", "superseded_known_at")
        )
        times = _micros(facts["event_time"])
        return _Rows(
            mapped.keys,
            mapped.order,
            mapped.columns,
            times,
            _micros(facts[visible[0]]),
            _micros(facts[visible[1]].cast(pa.int64()).fill_null(NEVER)),
            _row_ids(combined(facts["event_id"]), None if with_ids else times),
        )

    def _compute_windows(
        self,
        features: Sequence[WindowFeature],
        rows: Callable[[Span], _Rows],
        spans: Sequence[Span],
        asked: Queries,
    ) -> dict[str, pa.Array]:
        if len(spans) == 1:
            whole = rows(spans[0])
            n_parts = -(-(len(whole.event_time) + len(asked.q)) // self._rows_at_once)
            if n_parts <= 1:
                return compute(features, whole.history(), asked)
            return _compute_parts(features, _cut(whole, n_parts), n_parts, asked)
        assert self._scratch is not None
        n_parts = len(spans) + _CUTS * len(asked.q) // self._rows_at_once
        readers = [partial(_read_table, rows, span) for span in spans]
        parts = in_parts(self._scratch, "rows", readers, partial(_parts_of_table, n_parts), n_parts)
        return _compute_parts(features, (_Rows.of(table) for _, table in parts), n_parts, asked)

    def _compute(self, definition: CompiledOnDemand, values: _Values, n_rows: int) -> None:
        """One on-demand feature, row by row: the same function and the same call as in the request path."""
        function = self._functions.get(definition.code)
        names = [name for name, _ in definition.arguments]
        columns = [_scalars(values.get(given)) for _, given in definition.arguments]
        timestamps = frozenset(name for name, given in definition.arguments if given.dtype is DType.TIMESTAMP)
        results: list[Scalar] = []
        for row in zip(*columns, strict=True) if columns else [()] * n_rows:
            arguments = dict(zip(names, row, strict=True))
            results.append(call_on_demand(function, arguments, timestamps=timestamps, dtype=definition.dtype))
        result = FeatureInput(definition.name, definition.dtype, on_demand=definition.name)
        values.put(result, pa.array(results, ARROW_TYPES[definition.dtype]))


class _Values:
    """Every input that is asked for or needed on the way, each computed once."""

    def __init__(self, project: CompiledProject, inputs: Sequence[FeatureInput]) -> None:
        self._project = project
        self._needed: dict[tuple[object, ...], FeatureInput] = {}
        self._columns: dict[tuple[object, ...], pa.Array] = {}
        self._order: list[str] = []
        for given in inputs:
            self._need(given)

    def _need(self, given: FeatureInput) -> None:
        if _identity(given) in self._needed:
            return
        self._needed[_identity(given)] = given
        if given.on_demand is not None:
            for _, argument in self._project.on_demand[given.on_demand].arguments:
                self._need(argument)
            self._order.append(given.on_demand)

    def of_views(self) -> Iterator[FeatureInput]:
        return (given for given in self._needed.values() if given.view is not None)

    def of_requests(self) -> Iterator[FeatureInput]:
        return (given for given in self._needed.values() if given.request_field is not None)

    def on_demand_order(self) -> list[str]:
        """On-demand features, each after those it reads."""
        return self._order

    def put(self, given: FeatureInput, column: pa.Array) -> None:
        self._columns[_identity(given)] = column

    def get(self, given: FeatureInput) -> pa.Array:
        return self._columns[_identity(given)]


def _identity(given: FeatureInput) -> tuple[object, ...]:
    return given.view, given.feature, given.keys, given.on_demand, given.request_field


class _Spine:
    """The rows that are asked for: instants and request fields."""

    def __init__(self, spine: pa.Table, mode: Mode) -> None:
        self._table = spine
        self.n_rows = spine.num_rows
        self.decided_at = _micros(self._required("decided_at"))
        if mode is Mode.REPLAY:
            self.as_of = _micros(combined(self._required("as_of")).cast(pa.int64()).fill_null(BEGINNING))
        else:
            self.as_of = self.decided_at

    def column(self, name: str, kind: pa.DataType) -> pa.Array:
        """A request field as a type."""
        return _cast(combined(self._required(name)), kind, name)

    def has(self, name: str) -> bool:
        return name in self._table.column_names

    def asked(self, keys: Sequence[pa.Array], own: _OwnEvents | None) -> Queries:
        """The questions of one reading."""
        return Queries(
            keys[0] if len(keys) == 1 else tuple(keys),
            self.decided_at,
            self.as_of,
            exclude_id=None if own is None else own.ids,
            request={} if own is None else own.columns,
        )

    def _required(self, name: str) -> pa.ChunkedArray:
        if name not in self._table.column_names:
            raise RequestError(
                f"The spine has no column {name!r}.",
                where="point-in-time features",
                mend=f"give it; there are: {', '.join(self._table.column_names)}",
            )
        return self._table[name]


class _OwnEvents:
    """The requests as the rows that their events will be: ids, and columns named like request fields."""

    def __init__(self, spine: _Spine, group: StateGroup, request: CompiledRequest | None) -> None:
        if request is None or not request.id_columns:
            raise RequestError(
                f"A feature over {group.source!r} includes the request, whose event id is not known.",
                where=f"entity {group.entity}",
                mend="give the request definition, with its id columns",
            )
        parts = []
        for name in request.id_columns:
            field = request.schema.find(name)
            assert field is not None
            parts.append(_scalars(spine.column(name, ARROW_TYPES[field.dtype])))
        ids = [row_id(event_id(values)) for values in zip(*parts, strict=True)]
        self.ids = pa.array(ids, pa.binary(16))
        # A field of another type is another thing: no feature that includes the request reads it.
        types = {field.name: field.dtype for field in request.schema.fields}
        self.columns = {
            field.name: spine.column(field.name, ARROW_TYPES[field.dtype])
            if types.get(field.name) is field.dtype
            else pa.nulls(spine.n_rows, ARROW_TYPES[field.dtype])
            for field in group.columns.fields
        }


class _Rows(NamedTuple):
    """Rows of a state group with what makes them visible."""

    keys: tuple[pa.Array, ...]
    order: tuple[pa.Array, ...]
    columns: Mapping[str, pa.Array]
    event_time: Micros
    visible_from: Micros
    visible_until: Micros
    ids: pa.Array

    def history(self) -> History:
        """The rows, sorted for the kernel."""
        return History.build(
            self.keys[0] if len(self.keys) == 1 else self.keys,
            self.event_time,
            columns=self.columns,
            order=self.order,
            row_id=self.ids,
            visible_from=self.visible_from,
            visible_until=self.visible_until,
        )

    def take(self, places: Micros) -> _Rows:
        """Some of the rows."""
        at = pa.array(places)
        return _Rows(
            tuple(key.take(at) for key in self.keys),
            tuple(values.take(at) for values in self.order),
            {name: values.take(at) for name, values in self.columns.items()},
            self.event_time[places],
            self.visible_from[places],
            self.visible_until[places],
            self.ids.take(at),
        )

    def table(self) -> pa.Table:
        """The rows as a table: `of` reads it back."""
        return pa.table(
            {
                **{f"key {n}": values for n, values in enumerate(self.keys)},
                **{f"order {n}": values for n, values in enumerate(self.order)},
                **{f"value {name}": values for name, values in self.columns.items()},
                "event_time": self.event_time,
                "visible_from": self.visible_from,
                "visible_until": self.visible_until,
                "id": self.ids,
            }
        )

    @staticmethod
    def of(table: pa.Table) -> _Rows:
        """The rows that `table` gave."""

        def named(kind: str) -> dict[str, pa.Array]:
            return {
                name.removeprefix(kind): combined(table[name])
                for name in table.column_names
                if name.startswith(kind)
            }

        return _Rows(
            tuple(named("key ").values()),
            tuple(named("order ").values()),
            named("value "),
            _micros(table["event_time"]),
            _micros(table["visible_from"]),
            _micros(table["visible_until"]),
            combined(table["id"]),
        )


def _row_ids(event_ids: pa.Array, times: Micros | None) -> pa.Array:
    """Hashes of ids. Given their times, only rows that share an instant get one: it breaks ties."""
    n = len(event_ids)
    if times is None:
        return pa.array([row_id(text) for text in event_ids.to_pylist()], pa.binary(16))
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    same = ordered[1:] == ordered[:-1]
    tied = np.zeros(n, bool)
    tied[order[1:][same]] = True
    tied[order[:-1][same]] = True
    ids = np.zeros((n, 16), np.uint8)
    places = np.flatnonzero(tied)
    if len(places):
        texts = event_ids.take(pa.array(places)).to_pylist()
        ids[places] = np.frombuffer(b"".join([row_id(text) for text in texts]), np.uint8).reshape(-1, 16)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), n, [None, pa.py_buffer(ids)])


def _read_table(rows: Callable[[Span], _Rows], span: Span) -> pa.Table:
    return rows(span).table()


def _parts_of_table(n_parts: int, table: pa.Table) -> Micros:
    return part_of([table[name] for name in table.column_names if name.startswith("key ")], n_parts)


def _cut(rows: _Rows, n_parts: int) -> Iterator[_Rows]:
    """Rows in memory, part by part of their keys."""
    parts = part_of(rows.keys, n_parts)
    return (rows.take(np.flatnonzero(parts == part)) for part in range(n_parts))


def _compute_parts(
    features: Sequence[WindowFeature], parts: Iterable[_Rows], n_parts: int, asked: Queries
) -> dict[str, pa.Array]:
    """Features of each part's own queries, in the order of all queries."""
    query_part = part_of(asked.keys if isinstance(asked.keys, tuple) else (asked.keys,), n_parts)
    found: list[tuple[Micros, dict[str, pa.Array]]] = []
    for part, rows in enumerate(parts):
        places = np.flatnonzero(query_part == part)
        if len(places):
            found.append((places, compute(features, rows.history(), _take_queries(asked, places))))
    order = pa.array(np.argsort(np.concatenate([places for places, _ in found])))
    return {
        feature.name: pa.concat_arrays([columns[feature.name] for _, columns in found]).take(order)
        for feature in features
    }


def window_feature(view: CompiledView, feature: CompiledFeature) -> WindowFeature:
    """The kernel's form of a feature, its columns named as the group stores them."""
    return WindowFeature(**window_arguments(view, feature))


def _reach(features: Sequence[WindowFeature], decided_at: Micros) -> Span:
    """The event times that any window of any decision touches, `[since, until)`."""
    if not len(decided_at):
        return Span(0, 0)
    behind = 0
    for feature in features:
        if feature.window_us is None:
            return Span(None, int(decided_at.max()))
        grid = feature.every_us or 0
        behind = max(behind, feature.window_us + feature.offset_us + grid + feature.publish_delay_us)
    return Span(int(decided_at.min()) - behind, int(decided_at.max()))


def _mask_null_keys(
    columns: dict[str, pa.Array],
    features: Sequence[WindowFeature],
    no_rows: Callable[[], _Rows],
    asked: Queries,
) -> None:
    """A request without a key has no windows, not even with its own event in them."""
    keys = asked.keys if isinstance(asked.keys, tuple) else (asked.keys,)
    missing = np.zeros(len(asked.q), bool)
    for key in keys:
        assert isinstance(key, pa.Array)
        missing |= key.is_null().to_numpy(zero_copy_only=False)
    if not missing.any():
        return
    plain = [replace(feature, include_request=False) for feature in features]
    empty = no_rows().history()
    one = Queries(
        tuple(key.slice(0, 1) for key in keys) if len(keys) > 1 else keys[0].slice(0, 1), asked.q[:1]
    )
    nothing = compute(plain, empty, one)
    for feature in features:
        choose = pa.array(missing)
        columns[feature.name] = pc.if_else(choose, nothing[feature.name][0], columns[feature.name])


def _take_queries(asked: Queries, places: Micros) -> Queries:
    at = pa.array(places)
    keys = asked.keys
    return Queries(
        tuple(key.take(at) for key in keys) if isinstance(keys, tuple) else keys.take(at),  # type: ignore[union-attr]
        np.asarray(asked.q)[places],
        None if asked.as_of is None else np.asarray(asked.as_of)[places],
        None if asked.exclude_id is None else asked.exclude_id.take(at),  # type: ignore[union-attr]
        {name: column.take(at) for name, column in asked.request.items()},
    )


def _cast(column: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    try:
        return column if column.type == kind else column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise RequestError(
            f"Column {name!r} is {column.type} and cannot be read as {kind}.",
            where="point-in-time features",
            mend="pass the column as the request declares it",
        ) from error


def _micros(column: pa.ChunkedArray | pa.Array) -> Micros:
    values: Micros = combined(column).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values


def _scalars(column: pa.Array) -> list[Scalar]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values: list[Scalar] = column.to_pylist()
    return values
