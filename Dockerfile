# The bases are pinned by digest (of the index of all platforms); the tag beside it says what that is. A newer digest:
#   docker buildx imagetools inspect python:3.11-slim-bookworm
# Every package is installed from a lock with hashes; nothing is compiled in the image that is shipped.
FROM python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS python

# Build tools: setuptools for the product's wheel, maturin for the native library.
FROM python AS tools
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/wheels.lock requirements/wheels.lock
RUN python -m venv /tools \
    && /tools/bin/pip install --require-hashes --only-binary=:all: -r requirements/wheels.lock

# The native library: one wheel for every Python from 3.11 on, so no interpreter is needed here.
FROM rust:1.97.0-slim-bookworm@sha256:6d220bf85c74e842a79da63997af8d2e74455c0b8847d8bb3a5888572334991d AS native
ENV PYO3_NO_PYTHON=1
WORKDIR /build/native
COPY --from=tools /tools/bin/maturin /usr/local/bin/maturin
COPY native ./
RUN maturin build --release --locked --strip --compatibility linux --out /wheels

# What is shipped: an environment without pip. Dependencies first: that layer changes only with the lock.
FROM tools AS build
COPY requirements/runtime.lock requirements/runtime.lock
RUN python -m venv --without-pip /opt/streams \
    && /tools/bin/pip --python /opt/streams/bin/python install \
        --require-hashes --only-binary=:all: -r requirements/runtime.lock
COPY --from=native /wheels /wheels
COPY pyproject.toml README.md LICENSE ./
COPY streams streams
COPY logistics logistics
RUN /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /tools/bin/pip --python /opt/streams/bin/python install --no-deps --no-index /wheels/*.whl

# What it is made of, as CycloneDX: of the environment itself, not of the lock.
FROM tools AS sbom
COPY requirements/audit.lock requirements/audit.lock
RUN python -m venv /sbom \
    && /sbom/bin/pip install --require-hashes --only-binary=:all: -r requirements/audit.lock
COPY --from=build /opt/streams /opt/streams
RUN /sbom/bin/cyclonedx-py environment --output-reproducible --of JSON -o /sbom/streams.cdx.json /opt/streams/bin/python

FROM python
ENV PATH=/opt/streams/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STREAMS_DATA_DIR=/data \
    STREAMS_SCHEMAS_DIR=/app/schemas \
    STREAMS_RUNBOOKS_DIR=/app/docs/runbooks
RUN groupadd --system --gid 10001 streams \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent streams \
    && install --directory --owner=streams --group=streams --mode=0750 /data
WORKDIR /app
COPY --from=build /opt/streams /opt/streams
COPY --from=sbom /sbom/streams.cdx.json /app/sbom.cdx.json
COPY schemas schemas
COPY docs/runbooks docs/runbooks
COPY deploy/image/healthcheck.py healthcheck.py

# The root may be read-only: only /data and /tmp are written to.
VOLUME /data
USER 10001:10001

# Servers listen on the container's own loopback; STREAMS_WEB_HOST=0.0.0.0 (or `::`) lets other containers, probes and
# published ports reach them. Secrets come from files (KAFKA_SASL_PASSWORD_FILE, STREAMS_ADMIN_TOKEN_FILE): a variable with
# the secret itself is shown by `docker inspect`.
EXPOSE 6066 6080 8080 8088
# Alive, whichever command it runs and wherever that listens. Readiness is what probes and the compose file ask for.
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s --retries=4 CMD ["python", "/app/healthcheck.py"]
# Exec form: the worker itself gets SIGTERM, and stops cleanly.
ENTRYPOINT ["streams"]
CMD ["worker", "--web-port", "6066"]
