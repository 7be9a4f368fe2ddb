"""Deletes a version: its topics, its group, its local state, and last its record, so that it can be repeated."""

import shutil

from streams.backfill.admin import BackfillAdmin
from streams.backfill.log import VersionsWriter
from streams.backfill.make import HISTORY_FOLDER, own_topics
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.versions_topic import versions_of
from streams.settings import Settings
from streams.versions.record import From, VersionRecord
from streams.worker.owner import DataDirectory


def to_delete(settings: Settings, declared: Pipeline, version: str) -> VersionRecord:
    """The record of a version that may be deleted.

    Raises:
        StreamsError: there is none of this name; or workers run it, or are about to.

    """
    versions = versions_of(settings, declared)
    record, current = versions.made.get(version), versions.current
    if record is None:
        raise StreamsError(f"{declared.name} has no version {version}")
    if version in {current.version, current.going_to}:
        raise StreamsError(f"version {version} of {declared.name} is the current one: go back first, with --rollback")
    return record


def topics_of(declared: Pipeline, record: VersionRecord) -> list[str]:
    """Topics that a version has for itself."""
    flow = declared.as_version(record.version)
    return [*own_topics(flow), *([] if record.origin is From.TOPIC else [flow.history])]


def abandon(settings: Settings, declared: Pipeline, version: str) -> list[str]:
    """Delete the version, and return its topics; `settings` have its data directory.

    Raises:
        StreamsError: as `to_delete`; or a process goes on with it; or brokers do not answer.
        FencedError: another command was started.

    """
    writer = VersionsWriter(settings, flow=declared.name, source=declared.source, topic=declared.versions)
    try:
        writer.open()
        record = to_delete(settings, declared, version)
        topics = topics_of(declared, record)
        with BackfillAdmin(settings, declared.as_version(version)) as admin:
            if members := admin.members():
                raise StreamsError(
                    f"the group of version {version} has members ({', '.join(members)}): stop that process first; one "
                    "that was killed is forgotten after ten seconds"
                )
            admin.delete(topics)
        _delete_local(settings, declared.as_version(version))
        writer.remove(record)
        return topics
    finally:
        writer.close()


def _delete_local(settings: Settings, flow: Pipeline) -> None:
    """Delete what a backfill keeps in its data directory, which others may use as well."""
    directory = DataDirectory(settings.streams_data_dir)
    try:
        for folder in (directory.path / f"{flow.prefix}{flow.name}", directory.path / HISTORY_FOLDER):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        directory.release()
