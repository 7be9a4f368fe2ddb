import pytest

from streams.deadletters.web.tokens import ADDRESSES_MAX, EVERY_RIGHT, FORGOTTEN_S, Failures, Right, Tokens
from streams.settings import load_settings


def test_each_token_permits_what_its_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADMIN_TOKEN", "REVIEW_TOKEN_READ", "REVIEW_TOKEN_REPLAY", "REVIEW_TOKEN_REVEAL"):
        monkeypatch.setenv(f"STREAMS_{name}", f"the-token-of-{name}")
    tokens = Tokens.of(load_settings())
    assert {
        "ADMIN_TOKEN": EVERY_RIGHT,
        "REVIEW_TOKEN_READ": {Right.READ},
        "REVIEW_TOKEN_REPLAY": {Right.READ, Right.REPLAY},
        "REVIEW_TOKEN_REVEAL": {Right.READ, Right.REVEAL},
    } == {
        name: tokens.rights_of(f"the-token-of-{name}".encode())
        for name in ("ADMIN_TOKEN", "REVIEW_TOKEN_READ", "REVIEW_TOKEN_REPLAY", "REVIEW_TOKEN_REVEAL")
    }
    for wrong in (b"", b"the-token-of-", b"the-token-of-ADMIN_TOKEn", "the-token-of-\xe9".encode(), b"\xff"):
        assert tokens.rights_of(wrong) is None


def test_without_a_token_none_is_right() -> None:
    assert not Tokens()
    assert Tokens().rights_of(b"") is None


@pytest.mark.parametrize(
    ("one", "other"),
    [("2001:db8::1", "2001:db8::ffff:1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("testclient", "testclient")],
)
def test_addresses_of_one_site_wait_together(one: str, other: str) -> None:
    failures = Failures()
    failures.add(one, 0.0)
    assert failures.wait_s(other, 0.5) == 0.5


def test_other_addresses_do_not_wait() -> None:
    failures = Failures()
    failures.add("10.0.0.1", 0.0)
    failures.add("2001:db8::1", 0.0)
    assert [0.0, 0.0] == [failures.wait_s(address, 0.5) for address in ("10.0.0.2", "2001:db8:0:1::1")]


def test_failures_are_counted_anew_after_some_quiet() -> None:
    failures = Failures()
    assert [1, 2, 3] == [failures.add("10.0.0.1", now_s) for now_s in (0.0, 10.0, 20.0)]
    assert 1 == failures.add("10.0.0.1", 30.0 + FORGOTTEN_S)
    assert 1.0 == failures.wait_s("10.0.0.1", 30.0 + FORGOTTEN_S)


def test_what_is_remembered_is_bounded() -> None:
    failures = Failures()
    for number in range(ADDRESSES_MAX + 1):
        failures.add(f"10.0.{number // 256}.{number % 256}", 0.0)
    assert 0.0 == failures.wait_s("10.0.0.0", 0.0)
    assert 1.0 == failures.wait_s("10.0.0.1", 0.0)
