"""Who may send: tokens, signatures, this machine; and what never gets into a log."""

import base64
import hashlib
import hmac
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.errors import StreamsError, UsageError
from streams.gateway.credentials import CredentialFile, Credentials, Kind
from streams.gateway.webhooks import Replays
from streams.limits import GATEWAY_WEBHOOK_WINDOW_S
from tests.gateway.running import SOURCE, Answer, Gateway, position, running

ORDERS = "orders.events.v1"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with running(tmp_path, clock=[1_767_225_600.0]) as found:
        yield found


def test_a_token_permits_its_sources_and_nothing_else(gateway: Gateway) -> None:
    assert gateway.send(position(0)).status == 202, "without any token this machine may"
    token = gateway.credentials().new(Kind.TOKEN, "fleet", [SOURCE]).shown
    assert gateway.send(position(0)).status == 401, "a token for the source, and it is needed"
    assert gateway.send(position(0), Authorization=f"Bearer {token}").status == 202
    basic = base64.b64encode(f"any:{token}".encode()).decode()
    assert gateway.send(position(0), Authorization=f"Basic {basic}").status == 202
    assert gateway.send({}, source=ORDERS, Authorization=f"Bearer {token}").status == 403
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    for given in (f"Bearer {wrong}", "Bearer", "Bearer x", f"Token {token}", "Basic !", f"Basic {token}", token):
        answer = gateway.send(position(0), Authorization=given)
        assert (answer.status, "www-authenticate" in answer.headers) == (401, True), given
        assert token[:20].encode() not in answer.body


def test_rotation_is_an_overlap_and_a_revocation_holds_at_once(gateway: Gateway) -> None:
    file = gateway.credentials()
    old = file.new(Kind.TOKEN, "fleet", [SOURCE])
    new = file.new(Kind.TOKEN, "fleet", [SOURCE])
    for made in (old, new):
        assert gateway.send(position(0), Authorization=f"Bearer {made.shown}").status == 202
    file.end(old.credential.id, int(gateway.clock[0] * 1000) + 5_000)
    assert gateway.send(position(0), Authorization=f"Bearer {old.shown}").status == 202
    gateway.clock[0] += 6
    assert gateway.send(position(0), Authorization=f"Bearer {old.shown}").status == 401
    assert gateway.send(position(0), Authorization=f"Bearer {new.shown}").status == 202


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-For": "1.2.3.4"}, {"Via": "1.1 proxy"}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}],
)
def test_without_a_token_nobody_gets_in_through_a_proxy_or_a_web_page(
    gateway: Gateway, headers: dict[str, str]
) -> None:
    answer = gateway.ask(
        "POST",
        f"/v1/events/{SOURCE}",
        json.dumps(position(0)).encode(),
        {"Content-Type": "application/json", **headers},
    )
    assert answer.status == 401
    assert gateway.delivery.sent == []


def test_without_a_token_nothing_is_taken_when_others_can_reach_it(tmp_path: Path) -> None:
    with running(tmp_path, bound_to="0.0.0.0") as gateway:  # noqa: S104 - what it is told that it listens on
        answer = gateway.send(position(0))
        assert (answer.status, b"streams gateway token new" in answer.body) == (401, True)


# --- webhooks ---------------------------------------------------------------------------------------------------------


def signed(gateway: Gateway, secret: str, body: bytes, *, webhook_id: str = "msg_1", off_s: int = 0) -> Answer:
    moment = str(int(gateway.clock[0]) + off_s)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{webhook_id}.{moment}.".encode() + body, hashlib.sha256)
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": moment,
        "webhook-signature": f"v0,abc v1,{base64.b64encode(digest).decode()}",
        "content-type": "application/json",
    }
    return gateway.ask("POST", f"/v1/events/{SOURCE}", body, headers)


def test_a_signed_webhook_is_taken_once(gateway: Gateway) -> None:
    secret = gateway.credentials().new(Kind.WEBHOOK, "shop", [SOURCE]).shown
    body = json.dumps(position(0)).encode()
    assert signed(gateway, secret, body).status == 202
    replayed = signed(gateway, secret, body)
    assert (replayed.status, b"replayed" in replayed.body) == (409, True)
    assert signed(gateway, secret, body, off_s=1).status == 202, "a retry of the sender is signed anew"
    assert len(gateway.delivery.values(SOURCE)) == 2


def test_a_webhook_that_was_not_taken_may_come_again(gateway: Gateway) -> None:
    secret = gateway.credentials().new(Kind.WEBHOOK, "shop", [SOURCE]).shown
    body = json.dumps(position(0)).encode()
    gateway.delivery.is_down = True
    assert signed(gateway, secret, body).status == 503
    gateway.delivery.is_down = False
    assert signed(gateway, secret, body).status == 202


def test_wrong_signatures_and_clocks_are_refused_in_words(gateway: Gateway) -> None:
    file = gateway.credentials()
    secret = file.new(Kind.WEBHOOK, "shop", [SOURCE]).shown
    other = file.new(Kind.WEBHOOK, "other", [ORDERS]).shown
    body = json.dumps(position(0)).encode()
    assert signed(gateway, other, body).status == 401, "a secret for another source"
    late = signed(gateway, secret, body, off_s=-3_600)
    assert (late.status, b"3600 s before the gateway's clock" in late.body) == (401, True)
    assert signed(gateway, secret, body, off_s=GATEWAY_WEBHOOK_WINDOW_S + 1).status == 401
    for headers in (
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "v1,AAAA", "webhook-id": "a", "webhook-timestamp": "soon"},
        {"webhook-signature": "v2,x v1,!", "webhook-id": "a", "webhook-timestamp": str(int(gateway.clock[0]))},
        {"webhook-signature": "v1,AAAA", "webhook-id": "a", "webhook-timestamp": str(int(gateway.clock[0]))},
        {"webhook-signature": "v1,AAAA", "webhook-id": "a", "webhook-timestamp": "9" * 400},
    ):
        answer = gateway.ask("POST", f"/v1/events/{SOURCE}", body, {**headers, "content-type": "application/json"})
        assert answer.status == 401, headers
    assert gateway.delivery.sent == []


def test_a_webhooks_secret_is_rotated_by_an_overlap(gateway: Gateway) -> None:
    file = gateway.credentials()
    secrets = [file.new(Kind.WEBHOOK, "shop", [SOURCE]) for _ in range(2)]
    body = json.dumps(position(0)).encode()
    for number, made in enumerate(secrets):
        assert signed(gateway, made.shown, body, webhook_id=f"m{number}").status == 202
    file.end(secrets[0].credential.id, 0)
    assert signed(gateway, secrets[0].shown, body, webhook_id="m3").status == 401
    assert signed(gateway, secrets[1].shown, body, webhook_id="m4").status == 202


def test_signatures_that_are_remembered_are_bounded_and_end() -> None:
    replays = Replays(kept_max=3)
    for number in range(10):
        replays.begin(bytes([number]), 0.0)
    assert len(replays._until_s) <= 4
    replays.begin(b"x", 10_000.0)
    assert list(replays._until_s) == [b"x"]


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_token_is_not_in_the_file_and_the_file_is_its_owners(tmp_path: Path) -> None:
    file = CredentialFile(tmp_path / "gateway")
    made = file.new(Kind.TOKEN, "fleet", [SOURCE])
    assert made.shown.rpartition("_")[2] not in file.path.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert made.shown not in repr(made.credential)
    assert made.credential.secret not in repr(made.credential)


def test_a_damaged_file_stops_the_start_and_changes_nothing_later(tmp_path: Path) -> None:
    file = CredentialFile(tmp_path)
    token = file.new(Kind.TOKEN, "fleet", [SOURCE]).shown
    credentials = Credentials(file, look_again_s=0)
    file.path.write_text("{", encoding="utf-8")
    assert credentials.by_token(token, 0) is not None
    with pytest.raises(StreamsError, match="is not a file of credentials"):
        Credentials(file)
    file.path.unlink()
    assert credentials.by_token(token, 0) is None, "no file: nobody has a token"


def test_a_name_is_a_name(tmp_path: Path) -> None:
    for name in ("", "a b", "x" * 65, "-a", "\n"):
        with pytest.raises(UsageError):
            CredentialFile(tmp_path).new(Kind.TOKEN, name, [SOURCE])


def test_the_commands_make_list_and_end_tokens(tmp_path: Path) -> None:
    runner = CliRunner(env={"STREAMS_GATEWAY_DIR": str(tmp_path)})
    made = runner.invoke(app, ["gateway", "token", "new", "--source", SOURCE, "--name", "fleet", "--expires", "2h"])
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    (credential,) = CredentialFile(tmp_path).read()
    assert token.startswith(f"gw_{credential.id}_")
    assert credential.ends_ms is not None
    assert abs(credential.ends_ms / 1000 - time.time() - 7_200) < 60
    listed = runner.invoke(app, ["gateway", "token", "list"]).stdout
    assert (credential.id in listed, token in listed) == (True, False)
    as_json = json.loads(runner.invoke(app, ["gateway", "token", "list", "--format", "json"]).stdout)
    assert [one["is_valid"] for one in as_json] == [True]
    assert runner.invoke(app, ["gateway", "token", "revoke", credential.id]).exit_code == 0
    assert CredentialFile(tmp_path).read()[0].is_valid(time.time_ns() // 1_000_000 + 1) is False
    secret = runner.invoke(app, ["gateway", "token", "new", "--webhook", "--source", SOURCE, "--name", "shop"]).stdout
    assert secret.startswith("whsec_")
    for wrong in (["--source", "nope", "--name", "a"], ["--source", SOURCE, "--name", "a", "--expires", "soon"]):
        assert isinstance(runner.invoke(app, ["gateway", "token", "new", *wrong]).exception, UsageError)
    assert isinstance(runner.invoke(app, ["gateway", "token", "revoke", "nope"]).exception, UsageError)
