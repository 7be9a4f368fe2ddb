# The release of Debian is named too: `slim` alone moves to the next one.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

WORKDIR /app

# Dependencies first: this layer changes only with the lock. All of them are wheels, so no compiler is needed.
COPY requirements/runtime.lock requirements/runtime.lock
RUN pip install --require-hashes --only-binary=:all: -r requirements/runtime.lock

COPY pyproject.toml README.md LICENSE ./
COPY streams streams
COPY logistics logistics
COPY schemas schemas
COPY docs/runbooks docs/runbooks
RUN pip install --no-deps .

RUN useradd --system --uid 10001 --no-create-home streams \
    && install --directory --owner=streams /data
ENV STREAMS_DATA_DIR=/data \
    STREAMS_SCHEMAS_DIR=/app/schemas \
    STREAMS_RUNBOOKS_DIR=/app/docs/runbooks
VOLUME /data
USER 10001

# Servers listen on the container's own loopback; STREAMS_WEB_HOST=0.0.0.0 (or `::`) lets other containers, and ports that
# are published, reach them. Secrets come from files (KAFKA_SASL_PASSWORD_FILE, STREAMS_ADMIN_TOKEN_FILE): a variable with
# the secret itself is shown by `docker inspect`.
EXPOSE 6066 8080
# Exec form: the worker itself gets SIGTERM, and stops cleanly.
ENTRYPOINT ["streams"]
CMD ["worker", "--web-port", "6066"]
