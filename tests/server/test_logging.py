"""What was decided, shown and done elsewhere, over HTTP; and answers that wait for the applier."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.server.asking import asker, run
from tests.server.shop import DECISION, SOURCE, checkout, make_shop, order
from volano.project import Project


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shop(tmp_path_factory.mktemp("logging") / "shop")


@pytest.fixture(scope="module")
def project(shop: Path) -> Iterator[Project]:
    with Project.open(shop) as opened:
        opened.drain()
        yield opened


@asynccontextmanager
async def applying(project: Project) -> AsyncIterator[None]:
    """An applier at work beside the requests."""

    async def apply() -> None:
        while True:
            project.drain()
            await asyncio.sleep(0.002)

    task = asyncio.create_task(apply())
    try:
        yield
    finally:
        task.cancel()


def elsewhere(n: int, **changes: Any) -> dict[str, Any]:
    return {
        "decision_id": f"legacy-{n}",
        "request": checkout(n),
        "action": "ask",
        "decided_at": "2026-01-01T10:00:00Z",
        "propensity": 0.25,
        "propensity_method": "rules with a coin",
    } | changes


def test_decisions_made_elsewhere_are_logged_once_and_a_refused_one_harms_no_neighbour(
    shop: Path, project: Project
) -> None:
    async def work() -> None:
        async with asker(shop) as http, applying(project):
            path = f"/v1/decisions/{DECISION}?wait=true"
            batch = [
                elsewhere(1),
                elsewhere(1),
                elsewhere(2, action="dance"),
                elsewhere(3, propensity=0.0),
                elsewhere(4, propensity=None),
                elsewhere(5, propensity=None, propensity_method="unknown", origin="a person"),
                elsewhere(6, request={"order_id": 3}),
                elsewhere(7, decided_at="2100-01-01T00:00:00Z"),
                elsewhere(8, decided_at="2026-01-01T00:00:00"),
                {"decision_id": "x" * 201},
                17,
            ]
            told = await http.ask("POST", path, batch)
            assert told.status == 202
            assert [each["status"] for each in told.body] == [
                "stored", "stored", "refused", "refused", "refused", "stored", *["refused"] * 5,
            ]  # fmt: skip
            assert not http.app._outcomes._waiting  # nobody waits any more, nor for what was refused
            again = await http.ask("POST", path, elsewhere(1))
            assert again.body == {"decision_id": "legacy-1", "status": "duplicate"}
            other = await http.ask("POST", path, elsewhere(1, action="accept"))
            assert (other.body["status"], other.body["code"]) == ("conflict", "conflict")
            refused = await http.ask("POST", path, elsewhere(1, action="dance"))
            assert (refused.status, refused.body["type"]) == (400, "urn:volano:error:invalid_input")
            unknown = await http.ask("POST", "/v1/decisions/get_nothing", elsewhere(1))
            assert unknown.status == 404
            asked = await http.ask(
                "POST", f"/v1/decide/{DECISION}", checkout(1), {"Volano-Decision-Id": "legacy-1"}
            )
            assert (asked.body["action"], asked.body["propensity"]) == ("ask", 0.25)
        project.drain(commit=True)
        explained = project.decision("legacy-5")
        assert (explained.origin, explained.propensity, explained.features) == ("a person", None, ())
        assert project.reconcile().is_exact
        assert all(finding.sound for finding in project.check()), project.check()

    run(work)


def test_an_answer_that_waits_says_how_each_event_ended(shop: Path, project: Project) -> None:
    async def work() -> None:
        async with asker(shop) as http:
            unheard = await http.ask("POST", f"/v1/observe/{SOURCE}?wait=true", order(1))
            assert unheard.body["status"] == "pending"  # nobody applies: it is kept, and says so in a second
            async with applying(project):
                path = f"/v1/observe/{SOURCE}?wait=true"
                one = await http.ask("POST", path, order(2))
                assert one.body["status"] == "stored"
                assert (await http.ask("POST", path, {"order_id": "bad"})).body["status"] == "quarantined"
                event = order(3)
                many = await http.ask("POST", path, [event, event, {**event, "amount": 99.0}, 7])
                assert [each["status"] for each in many.body] == [
                    "stored",
                    "duplicate",
                    "conflict",
                    "quarantined",
                ]
                items = [{"source": SOURCE, "event": order(4)}, {"source": "nowhere", "event": {}}]
                mixed = await http.ask("POST", "/v1/observe?wait=true", items)
                assert [each["status"] for each in mixed.body] == ["stored", "refused"]
                together = await asyncio.gather(*(http.ask("POST", path, order(n)) for n in range(10, 40)))
                assert {each.body["status"] for each in together} == {"stored"}
            assert (await http.ask("POST", f"/v1/observe/{SOURCE}?wait=soon", order(2))).status == 400
            http.worker.observed.close()  # the disk refuses
            failed = await http.ask("POST", path, order(5))
            assert failed.status >= 500
            assert not http.app._outcomes._waiting

    run(work)


def test_exposures_and_actions_come_by_routes_of_their_own(shop: Path, project: Project) -> None:
    async def work() -> None:
        async with asker(shop) as http, applying(project):
            shown = {
                "exposure_id": "e-1",
                "decision": DECISION,
                "decision_id": "early-1",
                "exposed_at": "2026-01-01T10:00:00Z",
                "surface": "app",
            }
            told = await http.ask("POST", "/v1/observe/exposure?wait=true", shown)
            assert told.body["status"] == "stored"
            found = await http.ask("GET", f"/v1/receipts/{told.body['receipt_id']}")
            assert (found.body["status"], found.body["code"]) == ("pending_parent", "pending_parent")
            await http.ask("POST", f"/v1/decide/{DECISION}", checkout(9), {"Volano-Decision-Id": "early-1"})
            await asyncio.sleep(0.02)
            project.drain(commit=True)
            found = await http.ask("GET", f"/v1/receipts/{told.body['receipt_id']}")
            assert found.body["status"] == "stored" and "code" not in found.body
            done = {"action_id": "a-1", "decision": DECISION, "decision_id": "early-1", "action": "call back"}
            taken = await http.ask(
                "POST", "/v1/observe/action_taken?wait=true", {**done, "taken_at": "2026-01-01T10:00:00Z"}
            )
            assert taken.body["status"] == "stored"

    run(work)


def test_a_batch_that_is_too_long_is_refused_whole(shop: Path, project: Project) -> None:
    async def work() -> None:
        async with asker(shop, most_batch_events=3) as http:
            before = project.reconcile().events.accepted
            for path in (f"/v1/observe/{SOURCE}", "/v1/observe", f"/v1/decisions/{DECISION}"):
                told = await http.ask("POST", path, [{}] * 4)
                assert (told.status, told.body["type"]) == (413, "urn:volano:error:batch_too_long")
                lines = b"\n".join([b"{}"] * 4)
                told = await http.ask("POST", path, lines, {"Content-Type": "application/x-ndjson"})
                assert told.status == 413
            assert project.reconcile().events.accepted == before
            lines = b"\n".join(msgspec.json.encode(order(n)) for n in (90, 91, 92)) + b"\n"
            told = await http.ask(
                "POST", f"/v1/observe/{SOURCE}", lines, {"Content-Type": "application/x-ndjson"}
            )
            assert told.status == 202

    run(work)
