#!/bin/sh
# Stands in for the entry point of the image postgres: makes the data directory before the first start, and becomes the
# command that a Dockerfile names.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -z "${POSTGRES_PASSWORD:-}" ]; then
        echo 'POSTGRES_PASSWORD is not set' >&2
        exit 1
    fi
    initdb --username=postgres --encoding=UTF8 --auth=trust
fi
exec "$@"
