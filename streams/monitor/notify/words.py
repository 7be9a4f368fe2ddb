"""Messages in words and as documents. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from streams.monitor.notify.ledger import Message
from streams.monitor.notify.problems import Problem

LINES_MAX: Final = 20
"""Problems named in a text; further ones are counted."""
_TEXT_MAX: Final = 400


@dataclass(frozen=True, slots=True)
class Origin:
    """The sender: the cluster, and the address of its monitor (empty: not set)."""

    cluster: str
    url: str = ""


def subject(message: Message, origin: Origin) -> str:
    """One line that says what the message is about."""
    if message.is_over:
        return f"[{origin.cluster}] resolved: {_titles(message.resolved)}"
    kind = "" if message.news or message.resolved else "still: "
    return f"[{origin.cluster}] {kind}{_titles(message.problems)}"


def lines(message: Message, origin: Origin) -> list[str]:
    """The whole text: a line for each problem with what to do, what is over, and where to look."""
    found: list[str] = []
    for problem in message.problems[:LINES_MAX]:
        mark = "new: " if problem.key in message.news else ""
        found.append(f"{mark}{problem.state} {problem.subject}: {problem.text[:_TEXT_MAX]}")
        todo = [problem.advice] if problem.advice else []
        if origin.url:
            todo.append(f"{origin.url}/runbooks/{problem.runbook}")
        if todo:
            found.append(f"  -> {' | '.join(todo)}")
    if len(message.problems) > LINES_MAX:
        found.append(f"and {len(message.problems) - LINES_MAX} more")
    found += [f"resolved: {one.state} {one.subject}" for one in message.resolved[:LINES_MAX]]
    if len(message.resolved) > LINES_MAX:
        found.append(f"and {len(message.resolved) - LINES_MAX} more resolved")
    if origin.url:
        found.append(f"{origin.url}/")
    return found


def document(message: Message, origin: Origin, now_ms: int) -> dict[str, Any]:
    """As Alertmanager posts to a webhook (version 4), so that its receivers understand it."""
    alerts = [_alert(one, origin, "firing") for one in message.problems]
    alerts += [_alert(one, origin, "resolved") for one in message.resolved]
    return {
        "version": "4",
        "groupKey": f"streams/{origin.cluster}",
        "status": "resolved" if message.is_over else "firing",
        "receiver": "streams-monitor",
        "groupLabels": {"cluster": origin.cluster},
        "commonLabels": {"cluster": origin.cluster},
        "commonAnnotations": {},
        "externalURL": origin.url,
        "truncatedAlerts": 0,
        "sentAt": datetime.fromtimestamp(now_ms / 1_000, UTC).isoformat(),
        "alerts": alerts,
    }


def _alert(problem: Problem, origin: Origin, status: str) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {
            "alertname": problem.state,
            "cluster": origin.cluster,
            "subject": problem.subject,
            "severity": "ticket" if problem.is_warning else "page",
        },
        "annotations": {
            "summary": problem.text,
            "advice": problem.advice,
            "runbook_url": f"{origin.url}/runbooks/{problem.runbook}",
        },
        "generatorURL": origin.url,
        "fingerprint": problem.key,
    }


def _titles(problems: tuple[Problem, ...]) -> str:
    first = problems[0]
    more = len(problems) - 1
    title = f"{first.state} {first.subject}"
    return " ".join((f"{title} and {more} more" if more else title).split())
