"""Options of librdkafka that may be set for every client: `KAFKA_CONFIG_<OPTION>`.

`KAFKA_CONFIG_SOCKET_TIMEOUT_MS=1000` sets `socket.timeout.ms`. An option that has a variable of its own is set by that
one, and an option that a guarantee of the product depends on cannot be set.
"""

import ctypes
import difflib
import functools
import re
from collections.abc import Mapping
from typing import Final, Literal

from streams.errors import UsageError

PREFIX: Final = "KAFKA_CONFIG_"
Scope = Literal["P", "C", "*"]
"""Which clients know an option: producers, consumers, all of them."""

_ROW: Final = re.compile(r"^([a-z_]+(?:[._][a-z_]+)*)\s*\|\s*([PC*])\s*\|")
_SIMILAR: Final = 0.6

VARIABLES: Final[Mapping[str, str]] = {
    "bootstrap.servers": "KAFKA_BOOTSTRAP_SERVERS",
    "metadata.broker.list": "KAFKA_BOOTSTRAP_SERVERS",
    "security.protocol": "KAFKA_SECURITY_PROTOCOL",
    "sasl.mechanism": "KAFKA_SASL_MECHANISM",
    "sasl.mechanisms": "KAFKA_SASL_MECHANISM",
    "sasl.username": "KAFKA_SASL_USERNAME",
    "sasl.password": "KAFKA_SASL_PASSWORD",
    "sasl.oauthbearer.method": "KAFKA_SASL_OAUTHBEARER_METHOD",
    "sasl.oauthbearer.client.id": "KAFKA_SASL_OAUTHBEARER_CLIENT_ID",
    "sasl.oauthbearer.client.credentials.client.id": "KAFKA_SASL_OAUTHBEARER_CLIENT_ID",
    "sasl.oauthbearer.client.secret": "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET",
    "sasl.oauthbearer.client.credentials.client.secret": "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET",
    "sasl.oauthbearer.token.endpoint.url": "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL",
    "sasl.oauthbearer.scope": "KAFKA_SASL_OAUTHBEARER_SCOPE",
    "sasl.oauthbearer.extensions": "KAFKA_SASL_OAUTHBEARER_EXTENSIONS",
    "https.ca.location": "KAFKA_HTTPS_CA_LOCATION",
    "ssl.ca.location": "KAFKA_SSL_CA_LOCATION",
    "ssl.certificate.location": "KAFKA_SSL_CERTIFICATE_LOCATION",
    "ssl.key.location": "KAFKA_SSL_KEY_LOCATION",
    "ssl.key.password": "KAFKA_SSL_KEY_PASSWORD",
    "group.protocol": "STREAMS_GROUP_PROTOCOL",
}
"""Options that have a variable of their own."""

_COMMITS: Final = "offsets are committed in one transaction with the outputs"
_ONCE: Final = "every record is written once, in order"
_REPORTED: Final = "a record counts as written when the broker has confirmed it"
_PLACE: Final = "the place of a worker in its group, and which worker may commit, depend on it"
_MEMORY: Final = "it is part of the bound on memory; set STREAMS_MEMORY_MB_MAX"
_SIZES: Final = "which record a broker refuses is found by the sizes that the product sets"
_START: Final = "the committed offset decides where a partition is read from, and gaps are reported"
_CALLBACK: Final = "it is a function or an object, not a text"
_HANGS: Final = "it bounds how long a client that has lost its broker can hang"
_CODE: Final = "it loads foreign code into the process"

RESERVED: Final[Mapping[str, str]] = {
    "enable.auto.commit": _COMMITS,
    "auto.commit.enable": _COMMITS,
    "auto.commit.interval.ms": _COMMITS,
    "enable.auto.offset.store": _COMMITS,
    "offset.store.method": _COMMITS,
    "offset.store.path": _COMMITS,
    "offset.store.sync.interval.ms": _COMMITS,
    "isolation.level": "records of aborted transactions must not be read",
    "transactional.id": "it says which worker writes, and fences a former one",
    "transaction.timeout.ms": "the bounds of the commit cycle depend on it",
    "enable.idempotence": _ONCE,
    "enable.gapless.guarantee": _ONCE,
    "max.in.flight": _ONCE,
    "max.in.flight.requests.per.connection": _ONCE,
    "message.send.max.retries": _ONCE,
    "retries": _ONCE,
    "queuing.strategy": _ONCE,
    "acks": _REPORTED,
    "request.required.acks": _REPORTED,
    "delivery.report.only.error": _REPORTED,
    "produce.offset.report": _REPORTED,
    "message.timeout.ms": "a record that is given up before its transaction ends would be lost without a word",
    "delivery.timeout.ms": "a record that is given up before its transaction ends would be lost without a word",
    "partitioner": "a key must be in one partition, the one that other writers use",
    "sticky.partitioning.linger.ms": "a key must lie in one partition",
    "group.id": "it says whose offsets are read and committed",
    "group.instance.id": _PLACE,
    "group.protocol.type": _PLACE,
    "group.remote.assignor": _PLACE,
    "partition.assignment.strategy": _PLACE,
    "session.timeout.ms": _PLACE,
    "heartbeat.interval.ms": _PLACE,
    "max.poll.interval.ms": _PLACE,
    "client.id": "broker quotas, logs and errors name clients by it",
    "auto.offset.reset": _START,
    "enable.partition.eof": "a worker knows by it that a partition is idle",
    "check.crcs": "a damaged record must not be taken for a whole one",
    "allow.auto.create.topics": "topics are declared, never made by a misspelt name",
    "topic.blacklist": "topics that are not seen cannot be read or written",
    "message.max.bytes": _SIZES,
    "message.copy.max.bytes": _SIZES,
    "batch.size": _SIZES,
    "receive.message.max.bytes": _MEMORY,
    "queue.buffering.max.messages": _MEMORY,
    "queue.buffering.max.kbytes": _MEMORY,
    "queued.max.messages.kbytes": _MEMORY,
    "queued.min.messages": _MEMORY,
    "connections.max.idle.ms": _HANGS,
    "statistics.interval.ms": _HANGS,
    "plugin.library.paths": _CODE,
    "ssl.engine.location": _CODE,
    "ssl.providers": _CODE,
    "sasl.kerberos.kinit.cmd": "it is a command that a shell runs",
    "enable.ssl.certificate.verification": "without checking its certificate, the broker may be anybody; give "
    "the CA of its certificate with KAFKA_SSL_CA_LOCATION",
    "enable.sasl.oauthbearer.unsecure.jwt": "unsigned tokens prove nothing",
    "builtin.features": "it is what the client was built with",
    "enable.random.seed": "it is for tests of the client",
    "enabled_events": _CALLBACK,
    "log.queue": _CALLBACK,
    "opaque": _CALLBACK,
    "interceptors": _CALLBACK,
    "default_topic_conf": _CALLBACK,
    "msg_order_cmp": _CALLBACK,
    "ssl_key": _CALLBACK,
    "ssl_ca": _CALLBACK,
    "ssl_certificate": _CALLBACK,
    "ssl_engine_callback_data": _CALLBACK,
}
"""Options that cannot be set, each with the reason."""

_SECRET: Final = re.compile(r"password|passphrase|secret|\.pem$|oauthbearer\.config")


def is_secret(option: str) -> bool:
    """Whether the value of an option must be masked."""
    return _SECRET.search(option) is not None


def variable_of(option: str) -> str:
    """The variable for an option."""
    return PREFIX + option.upper().replace(".", "_")


def option_of(variable: str) -> str:
    """The option for a variable.

    Raises:
        UsageError: there is no such option, it has a variable of its own, or it cannot be set; the message says which.

    """
    option = variable.upper().removeprefix(PREFIX).lower().replace("_", ".")
    if option in VARIABLES:
        raise UsageError(f"{variable}: set {VARIABLES[option]} instead")
    reserved = {name.replace("_", "."): name for name in RESERVED}.get(option)
    if reserved is None and option.endswith(".cb"):
        raise UsageError(f"{variable}: {option} cannot be set: {_CALLBACK}")
    if reserved is not None:
        raise UsageError(f"{variable}: {reserved} cannot be set: {RESERVED[reserved]}")
    spelt = {name.replace("_", "."): name for name in known_options()}
    if option not in spelt:
        near = difflib.get_close_matches(option, spelt, n=1, cutoff=_SIMILAR)
        meant = f"; did you mean {variable_of(near[0])}?" if near else ""
        raise UsageError(f"{variable}: the Kafka client has no option {option}{meant}")
    return spelt[option]


def option_or_its_file(variable: str) -> tuple[str, bool]:
    """The option that a variable sets, and whether it names a file that holds the option's value.

    Secrets may come from a file: `KAFKA_CONFIG_SSL_KEYSTORE_PASSWORD_FILE`.

    Raises:
        UsageError: as of `option_of`.

    """
    stem = variable.upper().removesuffix("_FILE")
    bare = stem.removeprefix(PREFIX).lower().replace("_", ".")
    is_path = stem != variable.upper() and bare in known_options() and is_secret(bare)
    return option_of(stem if is_path else variable), is_path


def scoped(options: Mapping[str, str], scope: Scope) -> dict[str, str]:
    """Those of the options that a producer (`P`), a consumer (`C`) or any client (`*`) knows."""
    known = known_options() if options else {}
    return {name: value for name, value in options.items() if known[name] in {"*", scope}}


@functools.cache
def known_options() -> Mapping[str, Scope]:
    """Every option of the installed librdkafka, by name, and which clients know it.

    Taken from the table that the library prints of itself, so that it is the one of the version that runs.
    """
    from confluent_kafka import cimpl

    library, libc = ctypes.CDLL(cimpl.__file__), ctypes.CDLL(None)
    text, size = ctypes.c_char_p(), ctypes.c_size_t()
    libc.open_memstream.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(libc.open_memstream(ctypes.byref(text), ctypes.byref(size)))
    library.rd_kafka_conf_properties_show(stream)
    libc.fclose(stream)
    table = ctypes.string_at(text, size.value).decode()
    libc.free(text)
    found: dict[str, Scope] = {}
    for line in table.splitlines():
        row = _ROW.match(line)
        if row:
            scope: Scope = "P" if row[2] == "P" else "C" if row[2] == "C" else "*"
            found.setdefault(row[1], scope)
    return found
