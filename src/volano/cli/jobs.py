"""`volano jobs`: what recurs, how it went, when it is due next."""

from __future__ import annotations

from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json, print_table, when
from volano.cli.session import open_project
from volano.values.instants import format_duration

COLUMNS = ("job", "every", "last run", "of", "outcome", "attempts", "next due", "detail")


def jobs(folder: Folder = HERE, json: Json = False, debug: Debug = False) -> None:
    """List the recurring jobs: schedule, last run, outcome, attempts, next due."""
    with open_project(folder, debug=debug) as project:
        found = project.jobs()
        if json:
            print_json(found)
            return
        rows = (
            (
                each.job,
                format_duration(each.every_us),
                when(each.last_run_at),
                when(each.scheduled_at),
                each.outcome,
                each.attempts,
                when(each.next_due_at),
                each.detail + (f"; mend: {each.mend}" if each.mend else ""),
            )
            for each in found
        )
        print_table("jobs", COLUMNS, rows)
