"""Versions of a flow: the same steps with outputs, consumer group and state of their own (docs/adr/0112).

The declared version of a flow has no name. The name of any other version is part of every name: `vehicles.state.v1` is
`vehicles.state.v1.run.v2` in version `v2` of its flow, and the flow `gps` is `gps.run.v2`. The name of a flow has no
dot, and a topic of such a name is refused when it is there already, so these meet no other names.
"""

import re
from typing import Final

from streams.errors import UsageError

DECLARED: Final = ""
"""The version that the app declares, and that runs as long as no other one was promoted."""
_MARK: Final = ".run."
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,19}")


def of_version(name: str, version: str) -> str:
    """The name of a topic or flow in a version."""
    return f"{name}{_MARK}{version}" if version else name


def declared_name(name: str, version: str) -> str:
    """Return the declared name; the inverse of `of_version`."""
    return name.removesuffix(f"{_MARK}{version}") if version else name


def version_in(name: str) -> tuple[str, str]:
    """The flow and the version that a name of a flow means."""
    flow, _, version = name.partition(_MARK)
    return flow, version


def checked_version(version: str) -> str:
    """Check that the version may be part of names.

    Raises:
        UsageError: it may not.

    """
    if not _LABEL.fullmatch(version):
        raise UsageError(f"--into {version!r}: 1 to 20 of a-z, 0-9 and -, beginning with none of -; such as v2")
    return version
