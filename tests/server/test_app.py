"""The HTTP application over a real project: every answer, also to what makes no sense."""

from __future__ import annotations

import asyncio
import functools
import operator
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.asking import Asker, asker, run
from tests.server.shop import DECISION, SOURCE, checkout, make_shop, order
from volano.errors import StoreFullError
from volano.project import Project
from volano.runtime.tokens import Role, create_token, revoke_token
from volano.server.group_commit import GroupCommit
from volano.server.problems import HttpError


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shop(tmp_path_factory.mktemp("served") / "shop")


@pytest.fixture(scope="module")
def project(shop: Path) -> Iterator[Project]:
    """Applies and commits in this process, beside the worker."""
    with Project.open(shop) as opened:
        opened.drain()
        yield opened


def test_an_event_is_answered_stored_and_visible_to_the_next_decision(shop: Path, project: Project) -> None:
    async def work() -> None:
        async with asker(shop) as http:
            taken = await http.ask("POST", f"/v1/observe/{SOURCE}", order(1, customer="visible"))
            assert (taken.status, taken.body["status"]) == (202, "pending")
            project.drain(commit=True)
            ended = await http.ask("GET", f"/v1/receipts/{taken.body['receipt_id']}")
            assert ended.body["status"] == "stored"
            made = await http.ask("POST", f"/v1/decide/{DECISION}", checkout(2, customer="visible"))
            assert made.status == 200 and made.body["action"] == "accept"
            project.drain(commit=True)
            explained = project.decision(made.body["decision_id"])
            assert 1 in [each.value for each in explained.features if each.name.endswith("n_orders")]

    run(work)


def test_batches_keep_the_good_neighbours_of_a_bad_event(shop: Path, project: Project) -> None:
    async def work() -> None:
        async with asker(shop) as http:
            before = project.reconcile()
            bad = {"order_id": "bad", "amount": "many"}
            array = await http.ask("POST", f"/v1/observe/{SOURCE}", [order(10), bad, order(11)])
            assert [each["status"] for each in array.body] == ["pending", "quarantined", "pending"]
            lines = b"\n".join(
                [msgspec.json.encode(order(12)), b"{no json", b"", msgspec.json.encode(order(13))]
            )
            ndjson = await http.ask(
                "POST", f"/v1/observe/{SOURCE}", lines, {"Content-Type": "application/x-ndjson"}
            )
            assert [each["status"] for each in ndjson.body] == ["pending", "quarantined", "pending"]
            assert ndjson.body[1]["code"] == "malformed"
            items = [
                {"source": SOURCE, "event": order(14)},
                {"source": "nowhere", "event": {}},
                {"event": {}},
                {"source": SOURCE, "event": order(14, returned=True), "operation": "correct", "revision": 1},
            ]
            mixed = await http.ask("POST", "/v1/observe", items)
            assert [each["status"] for each in mixed.body] == ["pending", "refused", "refused", "pending"]
            project.drain(commit=True)
            after = project.reconcile()
            assert after.is_exact
            assert after.events.accepted - before.events.accepted == 8
            assert after.events.quarantined - before.events.quarantined == 2

    run(work)


def test_wrong_requests_are_told_what_where_and_the_mend(shop: Path) -> None:
    async def work() -> None:
        async with asker(shop, most_body_bytes=2_000) as http:
            for method, path, body, status, code in [
                ("POST", f"/v1/decide/{DECISION}", b"{", 400, "invalid_input"),
                ("POST", f"/v1/decide/{DECISION}", {"order_id": 3}, 400, "invalid_input"),
                ("POST", "/v1/decide/get_nothing", checkout(1), 404, "unknown_name"),
                ("POST", "/v1/observe/nowhere", order(1), 404, "unknown_name"),
                ("POST", f"/v1/observe/{SOURCE}", b"[1, ", 400, "invalid_input"),
                ("POST", f"/v1/observe/{SOURCE}?operation=undo", order(1), 400, "invalid_input"),
                ("POST", f"/v1/observe/{SOURCE}?operation=correct", order(1), 400, "invalid_input"),
                ("POST", f"/v1/observe/{SOURCE}", b"x" * 2_001, 413, "too_large"),
                ("GET", f"/v1/observe/{SOURCE}", b"", 405, "wrong_method"),
                ("GET", "/v1/receipts/none", b"", 404, "unknown_name"),
                ("GET", "/v2/anything", b"", 404, "no_such_route"),
            ]:
                answer = await http.ask(method, path, body)
                assert (answer.status, answer.body["type"]) == (status, f"urn:volano:error:{code}"), path
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.body["detail"] and answer.body["status"] == status
            assert not http.said

    run(work)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=st.one_of(st.binary(max_size=200), st.text(max_size=60).map(str.encode), st.just(b"[" * 5_000)),
    path=st.sampled_from([f"/v1/observe/{SOURCE}", "/v1/observe", f"/v1/decide/{DECISION}"]),
    ndjson=st.booleans(),
)
def test_no_bytes_make_the_server_fail(fuzzed: Asker, body: bytes, path: str, ndjson: bool) -> None:
    headers = {"Content-Type": "application/x-ndjson"} if ndjson else None
    answer = _LOOP.run_until_complete(fuzzed.ask("POST", path, body, headers))
    assert answer.status in (200, 202, 400)
    assert not fuzzed.said


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
        st.uuids(version=4).map(str),
        st.sampled_from(
            ["", "..", "*", "\x00", "%", "'; --", "a" * 5_000, "0198a7a0-0000-7000-8000-000000000000"]
        ),
    )
)
def test_no_receipt_id_makes_the_server_fail_or_is_found(fuzzed: Asker, receipt_id: str) -> None:
    answer = _LOOP.run_until_complete(fuzzed.ask("GET", f"/v1/receipts/{receipt_id}"))
    assert answer.status == 404 and answer.body["type"].startswith("urn:volano:error:")
    assert not fuzzed.said


_LOOP = asyncio.new_event_loop()


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    folder = make_shop(tmp_path_factory.mktemp("fuzzed") / "shop")
    with Project.open(folder) as project:
        project.drain()
        opened = asker(folder)
        yield _LOOP.run_until_complete(opened.__aenter__())
        _LOOP.run_until_complete(opened.__aexit__(None, None, None))
        project.drain(commit=True)
        assert project.reconcile().is_exact
    _LOOP.close()


def test_tokens_say_who_may_do_what(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop")

    async def work() -> None:
        async with asker(shop) as http:
            assert (
                await http.ask("POST", f"/v1/observe/{SOURCE}", order(1))
            ).status == 202  # none is needed yet
            catalog = http.worker.stores.catalog
            secret = create_token(catalog, "till", [Role.OBSERVE], names=[SOURCE], at=1, entropy=os.urandom)
            http.app._follow_tokens()
            assert (await http.ask("POST", f"/v1/observe/{SOURCE}", order(2))).status == 401
            bearer = {"Authorization": f"Bearer {secret}"}
            assert (await http.ask("POST", f"/v1/observe/{SOURCE}", order(2), bearer)).status == 202
            assert (await http.ask("POST", f"/v1/decide/{DECISION}", checkout(2), bearer)).status == 403
            assert (await http.ask("GET", "/metrics", b"", bearer)).status == 403
            mixed = await http.ask("POST", "/v1/observe", [{"source": "other", "event": {}}], bearer)
            assert mixed.body[0]["code"] == "not_allowed"
            revoke_token(catalog, "till", at=2)
            http.app._follow_tokens()
            other = create_token(catalog, "boss", [Role.ADMIN], at=3, entropy=os.urandom)
            http.app._follow_tokens()
            assert (await http.ask("POST", f"/v1/observe/{SOURCE}", order(3), bearer)).status == 401
            boss = {"Authorization": f"Bearer {other}"}
            assert (await http.ask("POST", f"/v1/decide/{DECISION}", checkout(3), boss)).status == 200
            revoke_token(catalog, "boss", at=4)  # the last one
            http.app._follow_tokens()
            assert (await http.ask("POST", f"/v1/observe/{SOURCE}", order(4))).status == 401
            stored = b"".join(document.body for document in catalog.documents("token"))
            assert secret.encode() not in stored and other.encode() not in stored

    run(work)


def test_observations_are_refused_while_the_applier_is_too_far_behind(shop: Path) -> None:
    async def work() -> None:
        async with asker(shop, most_behind_bytes=-1) as http:
            answer = await http.ask("POST", f"/v1/observe/{SOURCE}", order(1))
            assert (answer.status, answer.body["type"]) == (429, "urn:volano:error:overloaded")
            assert answer.headers["retry-after"].isdigit()
            assert answer.body["retryable"]

    run(work)


def test_the_description_names_every_route_and_field(shop: Path) -> None:
    async def work() -> None:
        async with asker(shop) as http:
            told = (await http.ask("GET", "/v1/openapi.json")).body
            assert set(told["paths"]) == {
                f"/v1/decide/{DECISION}", f"/v1/decisions/{DECISION}", f"/v1/observe/{SOURCE}",
                "/v1/observe/exposure", "/v1/observe/action_taken", "/v1/observe", "/v1/receipts/{receipt_id}",
            }  # fmt: skip
            event = told["components"]["schemas"][f"event.{SOURCE}"]
            assert set(event["properties"]) == set(order(1)) == set(event["required"])
            assert event["properties"]["closed_at"] == {"type": "string", "format": "date-time"}

    run(work)


class _SlowJournal:
    """Holds each append until told; notes the groups."""

    def __init__(self) -> None:
        self.groups: list[list[bytes]] = []
        self.fails = False

    def append(self, records: list[bytes], *, sync: bool) -> None:
        assert sync
        if self.fails:
            raise StoreFullError("The disk is full.")
        self.groups.append(list(records))

    def close(self) -> None: ...


def test_callers_that_come_together_share_a_sync_and_its_failure() -> None:
    async def work() -> None:
        journal = _SlowJournal()
        commit = GroupCommit(journal, most_waiting_bytes=100)
        await asyncio.gather(*(commit.append([b"%d" % n]) for n in range(50)))
        assert sorted(functools.reduce(operator.iadd, journal.groups, [])) == sorted(
            b"%d" % n for n in range(50)
        )
        assert len(journal.groups) < 10
        with pytest.raises(HttpError) as refused:
            await asyncio.gather(*(commit.append([b"x" * 30]) for _ in range(5)))
        assert refused.value.status == 429
        journal.fails = True
        results = await asyncio.gather(*(commit.append([b"y"]) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(each, StoreFullError) for each in results)
        journal.fails = False
        await commit.append([b"z"])
        await commit.close()

    run(work)


def test_the_same_decision_id_gets_the_same_answer_from_another_worker_too_and_another_request_is_told(
    shop: Path, project: Project
) -> None:
    async def work() -> None:
        header = {"Volano-Decision-Id": "retried-1"}
        async with asker(shop) as http:
            first = await http.ask("POST", f"/v1/decide/{DECISION}", checkout(31), header)
            again = await http.ask("POST", f"/v1/decide/{DECISION}", checkout(31), header)
            assert first.status == 200 and again.body == first.body
        async with asker(shop) as restarted:  # what nobody applied yet waits in the journal
            again = await restarted.ask("POST", f"/v1/decide/{DECISION}", checkout(31), header)
            assert again.body == first.body
            project.drain(commit=True)
            again = await restarted.ask("POST", f"/v1/decide/{DECISION}", checkout(31), header)
            assert again.body == first.body
            other = await restarted.ask("POST", f"/v1/decide/{DECISION}", checkout(32), header)
            assert (other.status, other.body["type"]) == (409, "urn:volano:error:id_reused")
            assert "order_id" in other.body["where"] and other.body["mend"]

    run(work)
