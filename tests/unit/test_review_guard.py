import pytest
from starlette.requests import Request

from streams.deadletters.index import Figures
from streams.errors import StreamsError, UsageError
from streams.review.collector import DeadLetterCollector, families
from streams.review.web.guard import SESSION_COOKIE, Guard, Refused
from streams.review.web.pages import asked_of


def request(*, client="127.0.0.1", **headers):
    named = {"host": "127.0.0.1:8080", **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw, "client": (client, 1)}
    return Request({**scope, "scheme": "http", "server": ("127.0.0.1", 8080)})


def with_cookie(session, **headers):
    return request(cookie=f"{SESSION_COOKIE}={session.cookie}", **headers)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost:80", "[::1]:8080"])
def test_without_a_token_this_machine_is_served(host):
    assert Guard(None).admit(request(host=host)).is_new


@pytest.mark.parametrize(
    "asked",
    [
        {"client": "10.0.0.7"}, {"host": "evil.example"}, {"host": "127.0.0.1.evil.example"}, {"host": ""},
        {"x_forwarded_for": "1.2.3.4"}, {"forwarded": "for=1.2.3.4"}, {"host": "10.0.0.7"},
    ],
)  # fmt: skip
def test_without_a_token_nobody_else_is(asked):
    with pytest.raises(Refused, match="403"):
        Guard(None).admit(request(**asked))


def test_with_a_token_a_session_or_the_token_itself_is_wanted():
    guard = Guard("s3cret-token")
    for asked in (request(), request(authorization="Bearer wrong"), request(authorization="Basic s3cret-token")):
        with pytest.raises(Refused) as refused:
            guard.admit(asked)
        assert refused.value.login
    assert "" == guard.admit(request(client="10.0.0.7", authorization="Bearer s3cret-token")).cookie
    assert not guard.admit(with_cookie(guard.begin(), client="10.0.0.7")).is_new
    assert guard.is_token("s3cret-token")
    assert not guard.is_token("s3cret-tokem")


def test_a_session_that_was_changed_is_too_old_or_another_guards_is_none(monkeypatch):
    guard = Guard("s3cret-token")
    session = guard.begin()
    changed = session.cookie[:-1] + ("0" if session.cookie[-1] != "0" else "1")
    for cookie in (changed, "", "a.b.c", Guard("s3cret-token").begin().cookie):
        with pytest.raises(Refused):
            guard.admit(request(cookie=f"{SESSION_COOKIE}={cookie}"))
    monkeypatch.setattr("streams.review.web.guard.time.time", lambda: 4e9)
    with pytest.raises(Refused):
        guard.admit(with_cookie(session))


def test_a_change_wants_the_value_of_its_own_session_and_our_origin():
    guard = Guard(None)
    session, other = guard.admit(with_cookie(guard.begin())), guard.admit(with_cookie(guard.begin()))
    guard.check_change(with_cookie(session, origin="http://127.0.0.1:8080"), session, {"csrf": session.csrf})
    guard.check_change(with_cookie(session, sec_fetch_site="same-origin"), session, {"csrf": session.csrf})
    for asked, form in (
        ({}, {}), ({}, {"csrf": ""}), ({}, {"csrf": other.csrf}), ({"origin": "null"}, {"csrf": session.csrf}),
        ({"origin": "http://127.0.0.1:9999"}, {"csrf": session.csrf}),
        ({"sec_fetch_site": "same-site"}, {"csrf": session.csrf}),
    ):  # fmt: skip
        with pytest.raises(Refused, match="403"):
            guard.check_change(with_cookie(session, **asked), session, form)


@pytest.mark.parametrize(
    "values",
    [
        {"status": "x"}, {"page": "x"}, {"page": "9" * 9}, {"group_by": "x"}, {"schema_id": "1e3"}, {"id": "xyz"},
        {"since": "soon"}, {"schema_id": "²"},
    ],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused(values):
    with pytest.raises(UsageError):
        asked_of(values)


def test_a_question_is_its_own_address():
    asked = asked_of({"reason": "a&b", "page": "2", "status": "all"})
    assert "?reason=a%26b&status=all&page=2" == asked.query()
    assert asked.open_filter.is_open
    assert asked.filter.is_open is None


def samples(collected):
    return {(one.name, *one.labels.values()): one.value for family in collected for one in family.samples}


def test_figures_become_metrics():
    told = [Figures("a.dlq", {"invalid": 3, "malformed": 1}, {"invalid": 2}, 4_000), Figures("b.dlq", {}, {}, None)]
    assert {
        ("streams_dead_letters", "a.dlq", "invalid"): 3,
        ("streams_dead_letters", "a.dlq", "malformed"): 1,
        ("streams_dead_letters_open", "a.dlq", "invalid"): 2,
        ("streams_dead_letters_open", "a.dlq", "malformed"): 0,
        ("streams_dead_letters_oldest_open_seconds", "a.dlq"): 6.0,
        ("streams_dead_letters_oldest_open_seconds", "b.dlq"): 0.0,
    } == samples(families(told, 10.0))
    assert samples(families(told, 10.0)) == samples(DeadLetterCollector(lambda: told, lambda: 10.0).collect())


def test_reasons_that_are_none_of_ours_are_one_series():
    reasons = {f"com.example.Failure{number}": 1 for number in range(20_000)}
    told = [Figures("a.dlq", {**reasons, "invalid": 3}, {**reasons, "invalid": 2}, None)]
    assert {
        ("streams_dead_letters", "a.dlq", "invalid"): 3,
        ("streams_dead_letters", "a.dlq", "other"): 20_000,
        ("streams_dead_letters_open", "a.dlq", "invalid"): 2,
        ("streams_dead_letters_open", "a.dlq", "other"): 20_000,
        ("streams_dead_letters_oldest_open_seconds", "a.dlq"): 0.0,
    } == samples(families(told, 10.0))


def test_a_broker_that_does_not_answer_is_no_zero():
    def fails():
        raise StreamsError("no broker")

    with pytest.raises(StreamsError, match="no broker"):
        samples(DeadLetterCollector(fails).collect())
