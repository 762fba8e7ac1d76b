"""The HTTP application of one worker: routes, plain ASGI. Every error leaves as problem details; no input is a 500.

POST /v1/decide/{name}       one decision; `Volano-Decision-Id` makes a retry safe
POST /v1/observe/{source}    one event, a JSON array of events, or NDJSON
POST /v1/observe             a batch over several sources
POST /v1/decisions/{name}    decisions made elsewhere, one or several
GET  /v1/receipts/{id}       how an accepted event ended
GET  /v1/openapi.json        what there is
GET  /healthz, /readyz       alive; ready to be asked
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from functools import partial
from threading import Event, Thread
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs, unquote

import msgspec

from volano.errors import RequestError, VolanoError
from volano.records.answers import LoggedAnswer, ReceiptAnswer
from volano.records.journal import Operation
from volano.records.receipt import Applied
from volano.runtime.answers import InLakeError
from volano.runtime.processes.collector import settle
from volano.runtime.processes.worker import Worker
from volano.runtime.tokens import Role, Token, Tokens
from volano.server.group_commit import GroupCommit
from volano.server.messages import Item, decided, encode, ended, logged_ended, receipt_answer
from volano.server.metrics import Metrics
from volano.server.openapi import openapi
from volano.server.outcomes import MOST_WAIT_S, Outcomes
from volano.server.problems import CONTENT_TYPE, HttpError, problem_of

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_JSON: Final = (b"content-type", b"application/json")
_FLAGS: Final = {"true": True, "false": False}
_NDJSON: Final = b"application/x-ndjson"
_MOST_DECISION_ID: Final = 200
_EVENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ITEM: Final = msgspec.json.Decoder(Item)


class Answer(msgspec.Struct, frozen=True):
    """What goes out."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON,)


class App:
    """The ASGI application.

    Args:
        worker: what it works with.
        tokens: reads the tokens there are.
        needs_token: whether a request without one is refused.
        most_body_bytes: a larger body is refused before it is read.
        most_batch_events: a longer batch is refused.
        most_behind_bytes: no observation is taken while more than this waits for the applier.
        say: hears one line an occurrence that no caller is told of.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        tokens: Callable[[], Tokens],
        needs_token: bool,
        most_body_bytes: int,
        most_batch_events: int,
        most_behind_bytes: int,
        say: Callable[[str], None],
    ) -> None:
        self._worker = worker
        self._read_tokens = tokens
        self._tokens = tokens()
        self._needs_token = needs_token
        self._most_body_bytes = most_body_bytes
        self._most_batch_events = most_batch_events
        self._most_behind_bytes = most_behind_bytes
        self._say = say
        self._stop = Event()
        self._watcher = Thread(target=self._watch, name="watch", daemon=True)
        self._commit = GroupCommit(worker.observed)
        self._outcomes = Outcomes(worker.fates)
        self._metrics = Metrics(worker.name)
        self._is_ready = False
        self.is_stopping = False

    def stop(self) -> None:
        """Take no request any more; those under way go on."""
        self.is_stopping = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            answer = await self._answer(scope, receive)
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": [*answer.headers, (b"content-length", b"%d" % len(answer.body))],
                }
            )
            await send({"type": "http.response.body", "body": answer.body})

    # --- beginning and end --------------------------------------------------------------------------------------

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await asyncio.get_running_loop().run_in_executor(None, self._warm_up)
                except Exception as error:  # told to the server, which ends the process
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                self._watcher.start()
                self._is_ready = True
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                self._is_ready = False
                self._stop.set()
                await self._commit.close()
                self._outcomes.close()
                self._watcher.join()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _warm_up(self) -> None:
        """Load what serves, then keep the garbage collector away from it."""
        self._worker.warm_up()
        settle()

    def _watch(self) -> None:
        self._worker.watch(self._stop, self._say, also=self._follow_tokens)

    def _follow_tokens(self) -> None:
        self._tokens = self._read_tokens()

    # --- one request --------------------------------------------------------------------------------------------

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        try:
            return await self._route(scope, receive)
        except VolanoError as error:
            problem = problem_of(error)
            headers = [(b"content-type", CONTENT_TYPE)]
            if self.is_stopping:
                headers.append((b"connection", b"close"))
            if isinstance(error, HttpError) and error.retry_after_s is not None:
                headers.append((b"retry-after", b"%d" % error.retry_after_s))
            self._metrics.count_problem(problem.type)
            return Answer(problem.status, encode(problem), tuple(headers))
        except Exception as error:  # a defect of ours: the caller gets an answer, we get to know
            self._say(f"{scope['method']} {scope['path']}: {type(error).__name__}: {error}")
            self._metrics.count_problem("urn:volano:error:internal")
            problem = problem_of(
                HttpError(500, "internal", "The server failed to answer; it is logged there.")
            )
            return Answer(500, encode(problem), ((b"content-type", CONTENT_TYPE),))

    async def _route(self, scope: Scope, receive: Receive) -> Answer:
        path: str = scope["path"]
        method: str = scope["method"]
        if self.is_stopping and path != "/healthz":
            raise HttpError(
                503,
                "stopping",
                "This server is about to end.",
                mend="send again after Retry-After, on a new connection",
                retry_after_s=1,
            )
        match path.split("/")[1:]:
            case ["v1", "decide", name] if name:
                _require(method, "POST")
                return await self._decide(unquote(name), scope, receive)
            case ["v1", "observe"]:
                _require(method, "POST")
                return await self._observe_mixed(scope, receive)
            case ["v1", "observe", source] if source:
                _require(method, "POST")
                return await self._observe(unquote(source), scope, receive)
            case ["v1", "decisions", name] if name:
                _require(method, "POST")
                return await self._log_decisions(unquote(name), scope, receive)
            case ["v1", "receipts", receipt_id] if receipt_id:
                _require(method, "GET")
                self._allow(scope, Role.OBSERVE, Role.READ)
                found = await _in_thread(self._worker.receipt, receipt_id)
                return Answer(200, encode(receipt_answer(found)))
            case ["v1", "openapi.json"]:
                _require(method, "GET")
                return Answer(200, encode(openapi(self._worker.applied.project)))
            case ["healthz"]:
                return Answer(200, b'{"status":"alive"}')
            case ["readyz"]:
                return self._readiness()
            case ["metrics"]:
                self._allow(scope, Role.READ)
                text = self._metrics.text(behind_bytes=self._worker.behind_bytes)
                return Answer(200, text, ((b"content-type", b"text/plain; version=0.0.4"),))
            case _:
                raise HttpError(
                    404, "no_such_route", f"There is nothing at {path}.", mend="see /v1/openapi.json"
                )

    def _readiness(self) -> Answer:
        if self._is_ready:
            return Answer(200, b'{"status":"ready"}')
        return Answer(503, b'{"status":"not ready"}', (_JSON, (b"retry-after", b"1")))

    # --- decide -------------------------------------------------------------------------------------------------

    async def _decide(self, name: str, scope: Scope, receive: Receive) -> Answer:
        self._allow(scope, Role.DECIDE, name=name)
        decision_id = _header(scope, b"volano-decision-id")
        if decision_id is not None and not 0 < len(decision_id) <= _MOST_DECISION_ID:
            raise RequestError(
                f"A decision id has 1 to {_MOST_DECISION_ID} characters.", where="header Volano-Decision-Id"
            )
        body = await self._body(scope, receive)
        try:
            made = self._worker.decide(name, body, decision_id=decision_id)
        except InLakeError:  # an old retry; nobody else waits for it
            assert decision_id is not None
            await _in_thread(self._worker.recall, name, decision_id)
            made = self._worker.decide(name, body, decision_id=decision_id)
        self._metrics.count_decision(made)
        return Answer(200, encode(decided(made)))

    # --- observe ------------------------------------------------------------------------------------------------

    async def _observe(self, source: str, scope: Scope, receive: Receive) -> Answer:
        self._allow(scope, Role.OBSERVE, name=source)
        self._refuse_backlog()
        body = await self._body(scope, receive)
        operation, revision, wait = _operation(scope)
        events, is_batch = self._parts(scope, body)
        receipts, records = self._worker.door.prepare(source, events, operation=operation, revision=revision)
        fates = await self._keep(records, [each.receipt_id for each in receipts] if wait else [])
        self._metrics.count_observed(source, len(records))
        answers = ended([receipt_answer(receipt) for receipt in receipts], fates)
        return Answer(202, encode(answers if is_batch else answers[0]))

    async def _observe_mixed(self, scope: Scope, receive: Receive) -> Answer:
        self._allow(scope, Role.OBSERVE)
        self._refuse_backlog()
        body = await self._body(scope, receive)
        lines = self._lines(body) if _is_ndjson(scope) else self._array(body)
        _, _, wait = _operation(scope)
        token = self._token(scope)
        answers: list[ReceiptAnswer] = []
        records: list[bytes] = []
        for line in lines:
            try:
                item = _ITEM.decode(line)
                if token is not None and not token.may(Role.OBSERVE, item.source):
                    raise _not_allowed(Role.OBSERVE, item.source)
                receipts, journaled = self._worker.door.prepare(
                    item.source, [bytes(item.event)], operation=item.operation, revision=item.revision
                )
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                answers.append(ReceiptAnswer("", "refused", "malformed", "", str(error)))
            except VolanoError as error:
                message = f"{error.what} {error.mend}".strip()
                answers.append(
                    ReceiptAnswer("", "refused", problem_of(error).type.rpartition(":")[2], "", message)
                )
            else:
                answers.append(receipt_answer(receipts[0]))
                records += journaled
                self._metrics.count_observed(item.source, 1)
        accepted = [each.receipt_id for each in answers if each.receipt_id]
        fates = await self._keep(records, accepted if wait else [])
        return Answer(202, encode(ended(answers, fates)))

    async def _log_decisions(self, name: str, scope: Scope, receive: Receive) -> Answer:
        """Decisions made elsewhere: one refused one does not harm its neighbours."""
        self._allow(scope, Role.OBSERVE, name=name)
        self._worker.applied.project.decision(name)
        self._refuse_backlog()
        body = await self._body(scope, receive)
        _, _, wait = _operation(scope)
        logged, is_batch = self._parts(scope, body)
        answers: list[LoggedAnswer] = []
        records: list[bytes] = []
        for each in logged:
            try:
                decision_id, record = self._worker.log_elsewhere(name, each)
            except RequestError as error:
                if not is_batch:
                    raise
                answers.append(LoggedAnswer("", "refused", error.code, f"{error.what} {error.mend}".strip()))
            else:
                answers.append(LoggedAnswer(decision_id, "pending"))
                records.append(record)
        accepted = [each.decision_id for each in answers if each.decision_id]
        answers = logged_ended(answers, await self._keep(records, accepted if wait else []))
        return Answer(202, encode(answers if is_batch else answers[0]))

    def _parts(self, scope: Scope, body: bytes) -> tuple[list[bytes], bool]:
        """The events of a body, and whether it is a batch: NDJSON or an array."""
        if _is_ndjson(scope):
            return self._lines(body), True
        if body.lstrip()[:1] == b"[":
            return [bytes(each) for each in self._array(body)], True
        return [body], False

    def _lines(self, body: bytes) -> list[bytes]:
        self._refuse_long(body.count(b"\n"))  # before they are taken apart: a line too many costs no memory
        found = [line for line in body.split(b"\n") if line.strip()]
        self._refuse_long(len(found))
        return found

    def _array(self, body: bytes) -> list[msgspec.Raw]:
        found = _decode_batch(body)
        self._refuse_long(len(found))
        return found

    def _refuse_long(self, n_events: int) -> None:
        if n_events > self._most_batch_events:
            raise HttpError(
                413,
                "batch_too_long",
                f"A batch may hold {self._most_batch_events:,} events; this one has {n_events:,}.",
                mend="send it in parts, or set `max_batch_events`",
            )

    async def _keep(self, records: list[bytes], awaited: Sequence[str]) -> Mapping[str, Applied]:
        """Journal records; returns what became of those with an id that is awaited, as far as it is known in time."""
        expected = await self._outcomes.expect(awaited) if awaited else None
        try:
            await self._commit.append(records)
        except BaseException:  # nobody waits for what was not kept; then raises it again
            if expected is not None:
                expected.forget()
            raise
        self._worker.accepted(sum(map(len, records)))
        return {} if expected is None else await expected.within(MOST_WAIT_S)

    def _refuse_backlog(self) -> None:
        if self._worker.behind_bytes > self._most_behind_bytes:
            raise HttpError(
                429,
                "overloaded",
                "The applier is too far behind.",
                mend="send again after Retry-After; if it stays, see whether the applier runs",
                retry_after_s=2,
            )

    # --- what every route needs ---------------------------------------------------------------------------------

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        declared = _header(scope, b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > self._most_body_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        n_bytes = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise HttpError(400, "disconnected", "The caller went away before the body had come.")
            part = message.get("body", b"")
            n_bytes += len(part)
            if n_bytes > self._most_body_bytes:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> HttpError:
        most = self._most_body_bytes >> 20
        return HttpError(
            413,
            "too_large",
            f"A body may have {most} MiB.",
            mend="send smaller batches, or set `max_body_mib`",
        )

    def _allow(self, scope: Scope, *roles: Role, name: str = "") -> None:
        token = self._token(scope)
        if token is not None and not any(token.may(role, name) for role in roles):
            raise _not_allowed(roles[0], name)

    def _token(self, scope: Scope) -> Token | None:
        """The caller's token; None where none is needed."""
        if not self._needs_token and not self._tokens.are_used:
            return None
        given = _header(scope, b"authorization") or ""
        scheme, _, secret = given.partition(" ")
        found = self._tokens.find(secret.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise HttpError(
                401,
                "not_authenticated",
                "This server wants a token." if not given else "This token is unknown or revoked.",
                mend="send `Authorization: Bearer TOKEN`; `volano token create` makes one",
            )
        return found


def _require(method: str, wanted: str) -> None:
    if method != wanted:
        raise HttpError(405, "wrong_method", f"This route takes {wanted}, not {method}.")


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


def _is_ndjson(scope: Scope) -> bool:
    return (_header(scope, b"content-type") or "").encode().startswith(_NDJSON)


def _operation(scope: Scope) -> tuple[Operation, int, bool]:
    """Operation, revision and whether to wait, from the query string."""
    if not scope.get("query_string"):
        return Operation.INSERT, 0, False
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    wanted = query.get("operation", ["insert"])[-1]
    revision = query.get("revision", ["0"])[-1]
    wait = query.get("wait", ["false"])[-1]
    try:
        return Operation(wanted), int(revision), _FLAGS[wait]
    except (ValueError, LookupError):
        raise RequestError(
            f"operation={wanted!r}, revision={revision!r}, wait={wait!r} make no sense.",
            where="query string",
            mend="operation is insert, correct or retract; revision is a number; wait is true or false",
        ) from None


def _decode_batch(body: bytes) -> list[msgspec.Raw]:
    try:
        return _EVENTS.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RequestError(
            f"The batch is no JSON array: {error}. Nothing of it was accepted.",
            mend="send a JSON array; or NDJSON (application/x-ndjson), where each line stands for itself",
        ) from None


def _not_allowed(role: Role, name: str) -> HttpError:
    about = f" on {name!r}" if name else ""
    return HttpError(403, "not_allowed", f"This token has no role {role.value!r}{about}.")


async def _in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, partial(work, *arguments))
