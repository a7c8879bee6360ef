"""A pytest plugin: leaves out what is not applicable, and writes every case's outcome to a file.

CONFORMANCE_OUTCOMES names the file (one JSON object a line), CONFORMANCE_NA a JSON list of
patterns of case ids. A case that is skipped counts as skipped; an error in its setup or teardown
counts as failed. Markers that ask for reruns have no effect: a flaky case is a failed one.
"""

import fnmatch
import json
import os

OUTCOMES = os.environ["CONFORMANCE_OUTCOMES"]
NOT_APPLICABLE = json.loads(os.environ.get("CONFORMANCE_NA", "[]"))


def write(case, outcome, detail=""):
    with open(OUTCOMES, "a") as out:
        out.write(json.dumps({"case": case, "outcome": outcome, "detail": detail}) + "\n")


def pytest_collection_modifyitems(config, items):
    kept = []
    for item in items:
        # Brackets of parametrised cases are no character sets here.
        plain = item.nodeid.replace("[", "(").replace("]", ")")
        if any(
            fnmatch.fnmatchcase(plain, pattern.replace("[", "(").replace("]", ")"))
            for pattern in NOT_APPLICABLE
        ):
            write(item.nodeid, "na")
        else:
            kept.append(item)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


class Cases:
    """The worst outcome of a case's three phases."""

    outcomes = {}


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        if Cases.outcomes.get(report.nodeid, ("passed",))[0] != "failed":
            detail = "" if report.outcome == "passed" else str(report.longrepr)
            Cases.outcomes[report.nodeid] = (report.outcome, detail)
    if report.when == "teardown":
        outcome, detail = Cases.outcomes.get(report.nodeid, ("skipped", ""))
        write(report.nodeid, outcome, detail)


def pytest_collectreport(report):
    if report.failed:
        write(report.nodeid, "failed", str(report.longrepr))
