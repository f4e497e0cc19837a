#!/bin/sh
# Writes all of the database to a file in backups/, or in the folder that is given:
#
#   DATABASE-TIME-REVISION.dump   in pg_dump's custom format; beside it its checksum
#
# It runs beside traffic. The programs are those of the database's container or, where PGHOST says which server is
# meant, those on PATH. libpq's other variables hold too; a password belongs into PGPASSFILE.
set -eu
umask 077
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
folder=${1:-$here/backups}

# The table that remembers the revision, as db/alembic.ini names it.
setting() { # name
    sed -n "s/^$1 *= *\([a-z0-9_]*\).*/\1/p" "$here/../../db/alembic.ini" 2>/dev/null || true
}
table=$(setting version_table)
table=${table:-alembic_version}
schema=$(setting version_table_schema)

fail() { # message
    echo "backup: $1" >&2
    exit 1
}

in_database() { # program arguments...
    if [ -n "${PGHOST:-}" ]; then "$@"; else docker compose --file "$here/compose.yaml" exec -T db "$@"; fi
}

mkdir -p -- "$folder"
part=$(mktemp -- "$folder/unfinished.XXXXXX")
trap 'rm -f -- "$part" "$part.sha256"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

in_database pg_dump --format=custom >"$part" || fail "pg_dump failed, see above. Nothing was kept."
# The revision is read from the file: so it can be read, and no migration came between.
versions=$(in_database pg_restore --data-only --table="$table" ${schema:+--schema="$schema"} --file=- <"$part") ||
    fail "what pg_dump wrote can't be read, see above. Nothing was kept."
revision=$(printf '%s\n' "$versions" | sed -n '/^COPY /,/^\\\.$/{ /^COPY /d; /^\\\.$/d; p; }' | sort | paste -s -d + -)
[ -n "$revision" ] || fail "the database has no revision: migrate it first. Nothing was kept."
database=$(in_database psql --no-psqlrc --tuples-only --no-align --command='SELECT current_database()' </dev/null)

name=$database-$(date -u +%Y%m%dT%H%M%SZ)-$revision.dump
# The dump comes last: where it is, all of it is there, and so is its checksum.
{
    digest=$(sha256sum <"$part") &&
        printf '%s  %s\n' "${digest%% *}" "$name" >"$part.sha256" &&
        mv -- "$part.sha256" "$folder/$name.sha256" &&
        mv -- "$part" "$folder/$name"
} || fail "the file or its checksum can't be written, see above. Nothing was kept."
echo "$folder/$name"
