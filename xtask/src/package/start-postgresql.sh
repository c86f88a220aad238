#!/bin/sh
# Starts PostgreSQL as the process of a container; makes its data directory before the first start.
#
# POSTGRES_PASSWORD       the password of the role postgres, for the first start
# POSTGRES_PASSWORD_FILE  the file that holds it, instead
# PGDATA                  the data directory, which a volume keeps
#
# Arguments are postgres's own, such as -c work_mem=64MB.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    password=${POSTGRES_PASSWORD:-}
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
        password=$(cat "$POSTGRES_PASSWORD_FILE")
    fi
    if [ -z "$password" ]; then
        echo 'set POSTGRES_PASSWORD, or POSTGRES_PASSWORD_FILE, for the first start' >&2
        exit 1
    fi
    umask 077
    given=$(mktemp)
    printf '%s\n' "$password" > "$given"
    # The server's superuser in the container needs no password, all others do.
    initdb --pgdata="$PGDATA" --username=postgres --pwfile="$given" --encoding=UTF8 \
        --auth-local=peer --auth-host=scram-sha-256
    rm "$given"
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    printf '%s\n' "listen_addresses = '*'" "shared_preload_libraries = 'pg_clip'" >> "$PGDATA/postgresql.conf"
fi
unset password POSTGRES_PASSWORD
exec postgres -D "$PGDATA" "$@"
