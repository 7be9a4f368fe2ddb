import pytest
from prometheus_client.core import GaugeMetricFamily
from starlette.requests import Request

from streams.deadletters.letter.figures import Figures
from streams.deadletters.review.collector import DeadLetterCollector, families
from streams.deadletters.web.guard import SESSION_COOKIE, Guard, Session
from streams.deadletters.web.pages import asked_of, pinned_of, question_of
from streams.deadletters.web.refused import Refused
from streams.deadletters.web.tokens import EVERY_RIGHT, Right, Tokens
from streams.errors import StreamsError, UsageError

ADMIN, READ = b"s3cret-token-of-16", b"a-token-for-readers"
TOKENS = Tokens(((ADMIN, EVERY_RIGHT), (READ, frozenset({Right.READ}))))
PORT = 8080


def request(*, client: str = "127.0.0.1", **headers: str) -> Request:
    named = {"host": f"127.0.0.1:{PORT}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw, "client": (client, 1)}
    return Request({**scope, "scheme": "http", "server": ("127.0.0.1", PORT)})


def with_cookie(session: Session, **headers: str) -> Request:
    return request(cookie=f"{SESSION_COOKIE}_{PORT}={session.cookie}", **headers)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 1e9

    def __call__(self) -> float:
        return self.now_s


NO_TOKENS = Tokens()


def guard(tokens: Tokens = NO_TOKENS, bound_to: str = "127.0.0.1", clock: Clock | None = None) -> Guard:
    return Guard(tokens, bound_to=bound_to, clock=clock or Clock())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost:80", "[::1]:8080", "LOCALHOST."])
@pytest.mark.parametrize("bound_to", ["127.0.0.1", "localhost", "::1"])
def test_without_a_token_this_machine_is_served_with_every_right(host: str, bound_to: str) -> None:
    session = guard(bound_to=bound_to).admit(request(host=host))
    assert (True, EVERY_RIGHT) == (session.is_new, session.rights)


@pytest.mark.parametrize(
    "asked",
    [
        {"client": "10.0.0.7"}, {"host": "evil.example"}, {"host": "127.0.0.1.evil.example"}, {"host": ""},
        {"host": "10.0.0.7"}, {"host": "[::1"}, {"host": "evil.example@127.0.0.1"}, {"host": "\xe9"},
        {"host": "localhost.evil.example"}, {"host": "127.0.0.1:8080:1"},
        *({name: "1.2.3.4"} for name in (
            "x_forwarded_for", "x_forwarded_host", "x_forwarded_proto", "x_forwarded_server", "x_forwarded_anything",
            "forwarded", "via", "x_real_ip", "client_ip", "x_client_ip", "true_client_ip", "x_cluster_client_ip",
            "fastly_client_ip", "cf_connecting_ip", "x_original_forwarded_for", "x_azure_clientip",
        )),
    ],
)  # fmt: skip
def test_without_a_token_nobody_else_is(asked: dict[str, str]) -> None:
    with pytest.raises(Refused, match="403"):
        guard().admit(request(**asked))


@pytest.mark.parametrize("bound_to", ["::", "", "10.0.0.7", "myhost"])
def test_without_a_token_a_server_that_others_can_reach_serves_nobody(bound_to: str) -> None:
    with pytest.raises(Refused, match="listens on"):
        guard(bound_to=bound_to).admit(request())


def test_with_a_token_a_session_or_the_token_itself_is_wanted_wherever_it_comes_from() -> None:
    clock = Clock()
    guarded = guard(TOKENS, bound_to="::", clock=clock)
    for asked in (request(), request(authorization=f"Basic {ADMIN.decode()}")):
        with pytest.raises(Refused) as refused:
            guarded.admit(asked)
        assert (401, True) == (refused.value.status, refused.value.login)
    far = {"client": "10.0.0.7", "host": "dlq.example", "x_forwarded_for": "10.0.0.8"}
    assert "" == guarded.admit(request(authorization=f"Bearer {ADMIN.decode()}", **far)).cookie
    session = guarded.begin(EVERY_RIGHT)
    there = request(cookie=f"{SESSION_COOKIE}={session.cookie}", **far)
    assert not guarded.admit(there).is_new


def test_a_token_has_its_rights_and_no_others() -> None:
    guarded = guard(TOKENS)
    reader = guarded.admit(request(authorization=f"Bearer {READ.decode()}"))
    signed_in = guarded.admit(with_cookie(guarded.begin(guarded.check_token(request(), READ))))
    for session in (reader, signed_in):
        guarded.demand(session, Right.READ)
        assert not session.may_replay
        assert not session.may_reveal
        for right in (Right.REPLAY, Right.REVEAL):
            with pytest.raises(Refused, match="403"):
                guarded.demand(session, right)
    assert EVERY_RIGHT == guarded.admit(with_cookie(guarded.begin(EVERY_RIGHT))).rights


def test_rights_in_a_cookie_cannot_be_changed() -> None:
    guarded = guard(TOKENS)
    cookie = guarded.begin(frozenset({Right.READ})).cookie
    raised = cookie.replace(".read.", ".read-replay-reveal.")
    assert raised != cookie
    with pytest.raises(Refused, match="show a token"):
        guarded.admit(request(cookie=f"{SESSION_COOKIE}_{PORT}={raised}"))


def test_after_a_wrong_token_no_token_of_its_address_is_looked_at_for_a_while() -> None:
    clock = Clock()
    guarded = guard(TOKENS, clock=clock)
    waits = []
    for _ in range(9):
        with pytest.raises(Refused, match="no token of this page") as refused:
            guarded.admit(request(authorization="Bearer a-wrong-token-of-some-length"))
        assert (401, True) == (refused.value.status, refused.value.pause_s > 0)
        with pytest.raises(Refused, match="try again") as refused:
            guarded.check_token(request(), ADMIN)
        assert 429 == refused.value.status
        waits.append(refused.value.retry_s)
        assert EVERY_RIGHT == guarded.check_token(request(client="10.0.0.9"), ADMIN), "others do not wait"
        clock.now_s += refused.value.retry_s
    assert [1, 1, 2, 4, 8, 16, 32, 60, 60] == waits
    assert EVERY_RIGHT == guarded.check_token(request(), ADMIN)


def test_who_is_signed_in_stays_so_while_wrong_tokens_come_from_the_same_address() -> None:
    guarded = guard(TOKENS)
    session = guarded.begin(EVERY_RIGHT)
    with pytest.raises(Refused):
        guarded.check_token(request(), b"wrong")
    assert not guarded.admit(with_cookie(session)).is_new


def test_a_session_that_was_changed_is_too_old_or_another_guards_is_none() -> None:
    clock = Clock()
    guarded = guard(TOKENS, clock=clock)
    session = guarded.begin(EVERY_RIGHT)
    changed = session.cookie[:-1] + ("0" if session.cookie[-1] != "0" else "1")
    for cookie in (changed, "", "a.b.c", "....", "\xe9.\xff", guard(TOKENS).begin(EVERY_RIGHT).cookie):
        with pytest.raises(Refused):
            guarded.admit(request(cookie=f"{SESSION_COOKIE}_{PORT}={cookie}"))
    clock.now_s += 8 * 3_600 + 1
    with pytest.raises(Refused):
        guarded.admit(with_cookie(session))


def test_two_pages_on_ports_of_one_host_have_sessions_of_their_own() -> None:
    one, other = guard(), guard()
    session = one.begin(EVERY_RIGHT)
    cookies = f"{SESSION_COOKIE}_{PORT}={session.cookie}; {SESSION_COOKIE}_8081={other.begin(EVERY_RIGHT).cookie}"
    assert not one.admit(request(cookie=cookies)).is_new
    assert not other.admit(request(cookie=cookies, host="127.0.0.1:8081")).is_new


def test_a_change_wants_the_value_of_its_own_session_and_our_origin() -> None:
    guarded = guard()
    session = guarded.admit(with_cookie(guarded.begin(EVERY_RIGHT)))
    other = guarded.admit(with_cookie(guarded.begin(EVERY_RIGHT)))
    guarded.check_change(with_cookie(session, origin="http://127.0.0.1:8080"), session, {"csrf": session.csrf})
    guarded.check_change(with_cookie(session, sec_fetch_site="same-origin"), session, {"csrf": session.csrf})
    stripped = with_cookie(session, sec_fetch_site="same-origin", origin="null")  # by a proxy's Referrer-Policy
    guarded.check_change(stripped, session, {"csrf": session.csrf})
    for asked, form in (
        ({}, {}), ({}, {"csrf": ""}), ({}, {"csrf": other.csrf}), ({}, {"csrf": "\xe9\ud800"}),
        ({"origin": "null"}, {"csrf": session.csrf}),
        ({"origin": "http://127.0.0.1:9999"}, {"csrf": session.csrf}),
        ({"origin": "http://[", "sec_fetch_site": "same-origin"}, {"csrf": session.csrf}),
        ({"origin": "null", "sec_fetch_site": "cross-site"}, {"csrf": session.csrf}),
        ({"sec_fetch_site": "same-site"}, {"csrf": session.csrf}),
    ):  # fmt: skip
        with pytest.raises(Refused, match="403"):
            guarded.check_change(with_cookie(session, **asked), session, form)


@pytest.mark.parametrize(
    "values",
    [
        {"status": "x"}, {"page": "x"}, {"page": "9" * 9}, {"group_by": "x"}, {"schema_id": "1e3"}, {"id": "xyz"},
        {"since": "soon"}, {"schema_id": "²"}, {"schema_id": "--5"}, {"schema_id": "-"}, {"page": "٣"}, {"page": ""},
        {"device": "x" * 1_025}, {"reason": "x" * 1_025},
    ],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        asked_of(values)


@pytest.mark.parametrize(
    "pairs", [[("raeson", "invalid")], [("reason", "invalid"), ("reason", "malformed")], [("csrf", "x")]]
)
def test_a_question_with_an_unknown_part_or_one_part_twice_is_refused(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(UsageError):
        question_of(pairs)


def test_a_question_is_its_own_address() -> None:
    asked = asked_of({"reason": "a&b", "page": "2", "status": "all"})
    assert "?reason=a%26b&status=all&page=2" == asked.query()
    assert asked.filter.is_open is None


def test_a_form_means_the_open_letters_that_were_there_when_it_asked() -> None:
    wanted = pinned_of({"reason": "invalid", "status": "all", "pin": "a.dlq@3,0,7", "by": "robin"})
    assert (True, {"a.dlq": (3, 0, 7)}) == (wanted.is_open, wanted.pin.ends)
    for form in ({}, {"pin": "a.dlq"}, {"pin": "a.dlq@1,-2"}, {"pin": "a@1/a@2"}, {"pin": "a@" + "1," * 40_000 + "1"}):
        with pytest.raises(UsageError, match="does not say about which letters"):
            pinned_of(form)


def samples(collected: list[GaugeMetricFamily]) -> dict[tuple[str, str, str] | tuple[str, str], float]:
    return {(one.name, *one.labels.values()): one.value for family in collected for one in family.samples}


def test_figures_become_metrics() -> None:
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


def test_reasons_that_are_none_of_ours_are_one_series() -> None:
    reasons = {f"com.example.Failure{number}": 1 for number in range(20_000)}
    told = [Figures("a.dlq", {**reasons, "invalid": 3}, {**reasons, "invalid": 2}, None)]
    assert {
        ("streams_dead_letters", "a.dlq", "invalid"): 3,
        ("streams_dead_letters", "a.dlq", "other"): 20_000,
        ("streams_dead_letters_open", "a.dlq", "invalid"): 2,
        ("streams_dead_letters_open", "a.dlq", "other"): 20_000,
        ("streams_dead_letters_oldest_open_seconds", "a.dlq"): 0.0,
    } == samples(families(told, 10.0))


def test_a_broker_that_does_not_answer_is_no_zero() -> None:
    def fails() -> None:
        raise StreamsError("no broker")

    with pytest.raises(StreamsError, match="no broker"):
        samples(DeadLetterCollector(fails).collect())
