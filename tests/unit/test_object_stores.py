"""What a store's refusal means, by texts that obstore and deltalake gave; and which options a user may set."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from logistics.flows.gps import GPS
from streams.cli import app
from streams.errors import UsageError
from streams.object_stores import cause_of, client_options, refusal_of
from streams.settings import load_settings
from streams.sinks.delta.target import DeltaTarget
from streams.snapshots.objects import ObjectStore

ASKED = "Generic S3 error: Error performing GET http://127.0.0.1:29836/b/a in 1ms - "
ANSWERED = ASKED + 'Server returned non-2xx status code: {status}: <?xml version="1.0" encoding="UTF-8"?>\n{body}'
COLOURED = (
    "Generic S3 error\n  \x1b[31m↳\x1b[0m Error performing GET http://127.0.0.1:29836/b/a in 1ms - Server returned "
    'non-2xx status code\n  \x1b[31m↳\x1b[0m 403 Forbidden\n  \x1b[31m↳\x1b[0m <?xml version="1.0"?>\n<Error>{body}'
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (ANSWERED.format(status="404 Not Found", body="<Error><Code>NoSuchBucket</Code>"), "there is no such bucket"),
        (COLOURED.format(body="<Code>InvalidAccessKeyId</Code>"), "see AWS_ACCESS_KEY_ID (InvalidAccessKeyId)"),
        (COLOURED.format(body="<Code>SomethingNew</Code>"), "127.0.0.1:29836 answers 403 Forbidden (SomethingNew)"),
        (ANSWERED.format(status="503 Service Unavailable", body=""), "127.0.0.1:29836 answers 503 Service Unavailable"),
        (ASKED + "HTTP error: builder error", "allow it by AWS_ALLOW_HTTP=true"),
        (
            ASKED + "HTTP error: error sending request\n client error (Connect)",
            "nothing answers at http://127.0.0.1:29836",
        ),
        (ASKED + "HTTP error: error sending request\n operation timed out", "does not answer in time"),
        ("Error performing GET http://me:s3cret@host:9/b in 1ms - dns error", "nothing answers at http://host:9:"),
        ("Generic S3 error: Received redirect without LOCATION, this normally", "see AWS_REGION"),
        ("Error performing PUT http://10.0.0.1/latest/api/token in 1ms - HTTP error", "there are no credentials"),
    ],
)
def test_the_cause_is_said_with_the_variable(text: str, why: str) -> None:
    said = cause_of(text)
    assert why in said
    assert "\n" not in said
    assert "\x1b" not in said


@pytest.mark.parametrize("text", ["", "File exists (os error 17)", "Invalid data: column day is missing"])
def test_other_errors_are_left_as_they_are(text: str) -> None:
    assert cause_of(text) == ""


def test_what_a_user_sets_comes_before_options_of_ours() -> None:
    ours = {"timeout": 300, "connect_timeout": 5}
    assert client_options({}, ours) == ours
    environment = {"AWS_ALLOW_HTTP": "true", "AWS_TIMEOUT": "60s", "AWS_PROXY_URL": "", "AWS_SECRET_ACCESS_KEY": "x"}
    assert client_options(environment, ours) == {"timeout": "60s", "connect_timeout": 5, "allow_http": "true"}


MARKED = "wJalrXUtnFEMI"
WITH_CREDENTIALS = (
    f"s3://AKIA:{MARKED}@bucket/path", f"s3://AKIA:{MARKED}/K7MDENG@bucket", f"s3://{MARKED}@bucket",
    f"s3://AKIA:{MARKED}/bucket", f"s3://bucket/path?signature={MARKED}", f"s3://bucket/path#{MARKED}",
    f"S3://AKIA:{MARKED}?x@bucket",
)  # fmt: skip


@pytest.mark.parametrize(
    ("address", "variables"),
    [
        *((address, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") for address in WITH_CREDENTIALS),
        (f"s3a://AKIA:{MARKED}@bucket", "AWS_SECRET_ACCESS_KEY"),
        (f"gs://me:{MARKED}@bucket", "GOOGLE_APPLICATION_CREDENTIALS"),
        (f"az://account:{MARKED}@container", "AZURE_STORAGE_ACCOUNT_KEY"),
        (f"abfss://me:{MARKED}@account.dfs.core.windows.net/x", "AZURE_STORAGE_ACCOUNT_KEY"),
        (f"az://container/path?sig={MARKED}", "AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
def test_credentials_in_an_address_are_refused_and_where_to_set_them_is_said(address: str, variables: str) -> None:
    why = refusal_of(address)
    assert variables in why
    assert MARKED not in why


@pytest.mark.parametrize(
    "address",
    [
        "", "/data/lake", "file:///data/la@ke", "s3://bucket", "s3://bucket/a@b/c:d", "gs://bucket/path",
        "az://container/path", "abfss://container@account.dfs.core.windows.net/path",
    ],
)  # fmt: skip
def test_an_address_of_bucket_and_path_is_taken(address: str) -> None:
    assert not refusal_of(address)


@pytest.mark.parametrize("address", WITH_CREDENTIALS)
@pytest.mark.parametrize("name", ["STREAMS_DELTA_URL", "STREAMS_SNAPSHOT_URL"])
def test_a_setting_with_credentials_in_it_is_refused_without_showing_them(
    name: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, address)
    with pytest.raises(UsageError, match=rf"{name}: an address has no credentials in it.*AWS_ACCESS_KEY_ID") as refused:
        load_settings()
    assert MARKED not in str(refused.value)
    done = CliRunner().invoke(app, ["settings"])
    assert done.exit_code != 0
    assert MARKED not in f"{done.stdout}{done.stderr}{done.exception}"


@pytest.mark.parametrize("address", WITH_CREDENTIALS)
def test_clients_of_object_stores_refuse_credentials_too(address: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="AWS_ACCESS_KEY_ID") as refused:
        ObjectStore(address)
    assert MARKED not in str(refused.value)
    with pytest.raises(UsageError, match="AWS_ACCESS_KEY_ID") as refused:
        DeltaTarget(address, sink="lake", topic_id="t", columns=(), key=())
    assert MARKED not in str(refused.value)
    commands = (["ingest", "file", address, "--topic", GPS.source, "--dry-run"], ["snapshot", "list", "--url", address])
    for arguments in commands:
        done = CliRunner().invoke(app, arguments, env={"STREAMS_DATA_DIR": str(tmp_path)})
        shown = f"{done.stdout}{done.stderr}{done.exception}"
        assert done.exit_code != 0
        assert "AWS_ACCESS_KEY_ID" in shown, shown
        assert MARKED not in shown
