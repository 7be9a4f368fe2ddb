"""Resolve the versions below and write the lock file: `python -m loadtest.baselines.kafka_streams.relock`.

To be run after changing one of them.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from loadtest.baselines.kafka_streams.build import LOCK, KafkaStreamsLock
from streams.local.artifacts import Component, maven_context
from streams.local.relock import locked

VERSION: Final = "4.1.0"
LIBRARIES: Final = (f"org.apache.kafka:kafka-streams:{VERSION}", "org.apache.avro:avro:1.12.0")
"""Each is resolved by itself: managed versions of one do not reach what the other depends on."""
LOGGER: Final = "org.slf4j:slf4j-simple:1.7.36"
COMPILER_VERSION: Final = "3.42.0"


def resolve(repo_cache: Path) -> KafkaStreamsLock:
    """Resolve the versions above to files and hash each; of two versions of one library the first resolved counts."""
    context = maven_context(repo_cache)
    files: dict[tuple[str, str], Any] = {}
    for line in LIBRARIES:
        inputs, transitive = context.resolver.resolve([context.create_dependency(line)])
        for dependency in (*inputs, *transitive):
            file = dependency.artifact
            files.setdefault((file.groupId, file.artifactId), file)
    logger = context.create_dependency(LOGGER).artifact
    files[logger.groupId, logger.artifactId] = logger
    compiler = context.create_dependency(f"org.eclipse.jdt:ecj:{COMPILER_VERSION}").artifact
    program = sorted(map(locked, files.values()), key=lambda artifact: artifact.name)
    return KafkaStreamsLock(
        program=Component(version=VERSION, artifacts=tuple(program)),
        compiler=Component(version=COMPILER_VERSION, artifacts=(locked(compiler),)),
    )


def main() -> None:
    """Resolve with an empty cache, so that nothing stale is hashed, and write the lock file."""
    with TemporaryDirectory() as repo_cache:
        lock = resolve(Path(repo_cache))
    LOCK.write_text(lock.model_dump_json(indent=2, exclude_defaults=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{LOCK}: {len(lock.program.artifacts) + len(lock.compiler.artifacts)} files\n")


if __name__ == "__main__":
    main()
