"""The address of an MQTT broker, and what to subscribe to there. Pure."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from streams.errors import UsageError

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_SHARE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOPIC_BYTES_MAX: Final = 65_535
"""Limit of MQTT: the length of a string has two bytes."""


@dataclass(frozen=True, slots=True)
class Address:
    """An MQTT broker."""

    host: str
    port: int
    is_tls: bool

    def __str__(self) -> str:
        return f"{'mqtts' if self.is_tls else 'mqtt'}://{self.host}:{self.port}"


def address_of(url: str) -> Address:
    """The broker of `mqtt://host[:port]` or `mqtts://host[:port]`.

    Raises:
        UsageError: it is no such address, or has a user or password in it.

    """
    words = "mqtt://HOST[:PORT], or mqtts://HOST[:PORT] with TLS"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(f"the address is not {words}") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"{words}: user and password come from STREAMS_MQTT_USERNAME and STREAMS_MQTT_PASSWORD")
    has_more = parts.path not in {"", "/"} or bool(parts.query or parts.fragment)
    if parts.scheme not in _PORTS or not parts.hostname or has_more or port == 0:
        raise UsageError(f"{url!r} is not {words}")
    return Address(parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "mqtts")


def filter_of(topic: str, share: str | None) -> str:
    """The topic filter to subscribe to; with `share`, that of a shared subscription (MQTT 5, section 4.8.2).

    Raises:
        UsageError: it is no topic filter, or `share` no name.

    """
    levels = topic.split("/")
    is_wrong = (
        not topic
        or "\0" in topic
        or len(topic.encode(errors="surrogatepass")) > _TOPIC_BYTES_MAX
        or any("#" in level and (level != "#" or place < len(levels) - 1) for place, level in enumerate(levels))
        or any("+" in level and level != "+" for level in levels)
    )
    if is_wrong:
        words = "is no MQTT topic filter: + stands for a level, # for all that follow"
        raise UsageError(f"--topic {topic[:100]!r} {words}")
    if topic.startswith("$share/"):
        raise UsageError(f"--topic {topic[:100]!r}: a shared subscription is asked for with --share NAME")
    if share is None:
        return topic
    if not _SHARE.fullmatch(share):
        raise UsageError(f"--share {share[:100]!r}: letters, digits, dot, dash and underscore, at most 64")
    return f"$share/{share}/{topic}"
