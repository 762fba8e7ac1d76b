"""Decision records are well formed: a number of their own, five sections, none empty."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"
SECTIONS = ["Context", "Decision", "Refused", "Consequences", "How we would notice that we were wrong"]


def faults(name: str, text: str) -> list[str]:
    found = []
    number = re.fullmatch(r"(\d{4})-[a-z0-9-]+\.md", name)
    if not number:
        return [f"{name}: name it NNNN-title-in-words.md"]
    if not re.match(rf"# {number[1]}: \S", text):
        found.append(f"{name}: the first line is `# {number[1]}: Title`")
    headings = re.findall(r"^## (.+)$", text, flags=re.M)
    if headings != SECTIONS:
        found.append(f"{name}: the sections are {SECTIONS}, not {headings}")
    bodies = re.split(r"^## .+$", text, flags=re.M)[1:]
    found += [f"{name}: {h!r} is empty" for h, body in zip(headings, bodies, strict=True) if not body.strip()]
    return found


def test_records_are_well_formed():
    records = sorted(FOLDER.iterdir())
    assert records
    found = [fault for path in records for fault in faults(path.name, path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_numbers_are_unique():
    numbers = [path.name[:4] for path in FOLDER.iterdir()]
    assert len(numbers) == len(set(numbers)), f"two records share a number: {sorted(numbers)}"


GOOD = "# 0001: Title\n\n" + "".join(f"## {section}\n\nText.\n\n" for section in SECTIONS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("1-title.md", GOOD),
        ("0002-title.md", GOOD),
        ("0001-title.md", GOOD.replace("## Refused", "## Rejected")),
        ("0001-title.md", GOOD.replace("## Refused\n\nText.", "## Refused")),
    ],
)
def test_a_malformed_record_is_caught(name, text):
    assert not faults("0001-title.md", GOOD)
    assert faults(name, text)
