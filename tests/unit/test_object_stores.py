"""What a store's refusal means, by texts that obstore and deltalake gave; and which options a user may set."""

import pytest

from streams.object_stores import cause_of, client_options

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
