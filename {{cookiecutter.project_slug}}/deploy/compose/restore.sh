#!/bin/sh
# Restores a file that backup.sh wrote, into an empty database only: all of it, or nothing where something fails.
# See backup.sh for which database is meant.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

# The table that remembers the revision, as db/alembic.ini names it.
setting() { # name
    sed -n "s/^$1 *= *\([a-z0-9_]*\).*/\1/p" "$here/../../db/alembic.ini" 2>/dev/null || true
}
table=$(setting version_table)
table=${table:-alembic_version}
schema=$(setting version_table_schema)

fail() { # message
    echo "restore: $1" >&2
    exit 1
}

in_database() { # program arguments...
    if [ -n "${PGHOST:-}" ]; then "$@"; else docker compose --file "$here/compose.yaml" exec -T db "$@"; fi
}

ask() { # query
    in_database psql --no-psqlrc --tuples-only --no-align --command="$1" </dev/null
}

[ $# -eq 1 ] || fail "which file? For example: $0 backups/NAME.dump"
file=$1
[ -f "$file" ] || fail "there is no file $file."
[ -f "$file.sha256" ] || fail "its checksum is missing: $file.sha256 must lie beside it."
(cd -- "$(dirname -- "$file")" && sha256sum --check --status -- "${file##*/}.sha256") ||
    fail "$file isn't what backup.sh wrote: its checksum is another one."

found=$(ask "SELECT count(*) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = pg_class.oid AND d.deptype = 'e')") ||
    fail "the database can't be asked, see above."
[ "$found" -eq 0 ] || fail "the database isn't empty: it has $found tables, indexes and the like. Make a new one first, see README.md."

in_database pg_restore --exit-on-error --single-transaction --dbname="$(ask 'SELECT current_database()')" <"$file" ||
    fail "pg_restore failed, see above. The database is empty as before."

wanted=${file%.dump}
wanted=${wanted##*Z-}
revision=$(ask "SELECT version_num FROM ${schema:+$schema.}$table" | sort | paste -s -d + -)
[ "$revision" = "$wanted" ] || fail "the database is at revision $revision, but the file's name says $wanted."
echo "Restored, at revision $revision."
