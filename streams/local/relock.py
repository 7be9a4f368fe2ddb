"""Writes the lock file of the artifacts: `python -m streams.local.relock`, after changing a version here.

Maintainers only. Versions live here; the lock holds what they resolve to, file by file, with hashes.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from streams.local.artifacts import LOCK_FILE, Artifact, Component, Lock, maven_context, sha256_of

KAFKA_VERSION = "4.0.1"
"""Not a newer one: brokers since then may lose the end of a transaction (docs/adr/0014)."""
REGISTRY_VERSION = "3.3.3"
# The broker's own dependencies have no log4j. Each line here is taken alone, without what it depends on: resolved
# together, its managed versions leak and kafka-clients silently becomes an old one.
KAFKA_EXTRAS = tuple(
    f"org.apache.logging.log4j:{name}:2.25.4" for name in ("log4j-api", "log4j-core", "log4j-slf4j-impl")
)


def resolve(repo_cache: Path) -> Lock:
    """Resolve the versions above to files and hash each."""
    context = maven_context(repo_cache)
    resolver = context.resolver
    inputs, transitive = resolver.resolve([context.create_dependency(f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}")])
    extras = [context.create_dependency(line) for line in KAFKA_EXTRAS]
    kafka = [dependency.artifact for dependency in (*inputs, *transitive, *extras)]
    registry = context.project("io.apicurio", "apicurio-registry-app").at_version(REGISTRY_VERSION)
    archive = registry.artifact(classifier="all", packaging="tar.gz")
    return Lock(
        kafka=Component(version=KAFKA_VERSION, artifacts=tuple(sorted(map(locked, kafka), key=lambda a: a.name))),
        registry=Component(version=REGISTRY_VERSION, artifacts=(locked(archive),)),
    )


def locked(file: Any) -> Artifact:
    """Download a file and note its coordinates and hash."""
    path = Path(file.resolve())
    return Artifact(
        group=file.groupId,
        artifact=file.artifactId,
        version=file.version,
        classifier=file.classifier,
        packaging=file.packaging,
        sha256=sha256_of(path),
    )


def main() -> None:
    """Resolve with an empty cache, so that nothing stale is hashed, and write the lock file."""
    with TemporaryDirectory() as repo_cache:
        lock = resolve(Path(repo_cache))
    path = Path(__file__).with_name(LOCK_FILE)
    path.write_text(lock.model_dump_json(indent=2, exclude_defaults=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{path}: {len(lock.kafka.artifacts) + len(lock.registry.artifacts)} files\n")


if __name__ == "__main__":
    main()
