"""A Dockerfile as stages of instructions: as much of its syntax as the files of this repository use, and no more."""

import json
import re
import shlex
from dataclasses import dataclass, field
from typing import Final

KNOWN: Final = frozenset(
    {"FROM", "ENV", "WORKDIR", "COPY", "RUN", "VOLUME", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
)
FROM: Final = re.compile(r"(?P<base>\S+)(?:\s+AS\s+(?P<name>[a-z]+))?")


class NotUnderstood(Exception):
    """The file has something that is read nowhere in this repository."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """A word, and the rest of its line with continuations put together."""

    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        """The rest as words; of the exec form, those of its list."""
        if self.rest.startswith("["):
            found = json.loads(self.rest)
            if not (isinstance(found, list) and all(isinstance(word, str) for word in found)):
                raise NotUnderstood(f"{self.word} {self.rest}: no list of words")
            return found
        return shlex.split(self.rest)

    @property
    def is_exec(self) -> bool:
        """Whether it is a list of words, which no shell reads."""
        return self.rest.startswith("[")


@dataclass(slots=True)
class Stage:
    """An image that is built: what it begins with, and what is done."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        """Its instructions of one kind."""
        return [one for one in self.instructions if one.word == word]

    def last(self, word: str) -> Instruction:
        """The one of a kind that counts."""
        return self.all(word)[-1]


def parsed(text: str) -> list[Stage]:
    """The stages of a file, in their order.

    Raises:
        NotUnderstood: an instruction or a form of one that this does not read.

    """
    stages: list[Stage] = []
    for line in _logical_lines(text):
        word, _, rest = line.partition(" ")
        if word not in KNOWN:
            raise NotUnderstood(line)
        if word == "FROM":
            found = FROM.fullmatch(rest)
            if found is None:
                raise NotUnderstood(line)
            stages.append(Stage(found["base"], found["name"] or ""))
        elif not stages:
            raise NotUnderstood(f"{line}: before the first FROM")
        else:
            stages[-1].instructions.append(Instruction(word, rest.strip()))
    return stages


def _logical_lines(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()


def variables(stage: Stage) -> dict[str, str]:
    """What a stage's ENV sets, as it is written."""
    return dict(word.partition("=")[::2] for one in stage.all("ENV") for word in one.words)


def sources(instruction: Instruction) -> tuple[str | None, list[str], str]:
    """Of a COPY: the stage that it copies from (None: the build context), what, and to where."""
    words = instruction.words
    stage = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), None)
    if unknown := [word for word in words if word.startswith("--") and not word.startswith("--from=")]:
        raise NotUnderstood(f"COPY {' '.join(unknown)}")
    paths = [word for word in words if not word.startswith("--")]
    return stage, paths[:-1], paths[-1]
