"""The verdict on a subject, and the schemas parsed for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.schemas.client import RegisteredVersion, same_schema
from streams.schemas.gate import compatibility
from streams.schemas.gate.findings import Finding
from streams.schemas.gate.modes import Mode


@dataclass(frozen=True, slots=True)
class RegistryState:
    """A subject in the registry."""

    mode: Mode | None
    """The mode in force there, the registry's default included; None for an unknown one."""
    is_own_mode: bool
    """Whether it is set for the subject itself."""
    versions: tuple[RegisteredVersion, ...] = ()
    """Their texts include the schemas that they refer to."""
    unreadable: Mapping[int, str] = field(default_factory=dict)
    """Versions that are no Avro schema, or refer to what is not there: why not, a predicate by their numbers."""

    def find(self, text: str) -> RegisteredVersion | None:
        """The registered version that is equal to a schema."""
        return next((each for each in self.versions if same_schema(each.text, text)), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """All findings about one subject."""

    subject: str
    mode: Mode
    versions: tuple[int, ...]
    findings: tuple[Finding, ...]
    unlocked: tuple[int, ...] = ()
    registry: RegistryState | None = None
    agreed: tuple[int, ...] = ()
    """Versions about which the registry was asked and agreed."""
    not_committed: tuple[RegisteredVersion, ...] = ()
    """Versions that the registry has and no file says: drift, and what a new version must be compatible with too."""


class ParsedSchemas:
    """Schemas, each parsed once."""

    def __init__(self) -> None:
        self._known: dict[str, compatibility.Schema] = {}

    def of(self, text: str) -> compatibility.Schema:
        """The schema of a text.

        Raises:
            InvalidSchema: it is none.

        """
        if text not in self._known:
            self._known[text] = compatibility.parsed(text)
        return self._known[text]
