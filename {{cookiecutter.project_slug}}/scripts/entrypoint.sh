#!/bin/sh
# The container's entrypoint: makes the database ready as far as the environment asks for it, then
# becomes the command it was given, in the workspace's folder, so that signals reach that command.
#
#   WAIT_FOR_DB=True   wait until the database answers, WAIT_FOR_DB_TIMEOUT seconds at most (60)
#   MIGRATE_DB=True    bring the database to the newest revision; the command starts only after that
set -eu
# A first process without these would not hear a stop between two steps.
trap 'exit 143' TERM
trap 'exit 130' INT

fail() { # code message
    echo "entrypoint: $2" >&2
    exit "$1"
}

# The same truth as read_bool in chassis/settings.py. Only its value is looked at where it is set wrong.
is_true() { # name value
    value=${2#"${2%%[![:space:]]*}"}
    value=${value%"${value##*[![:space:]]}"}
    case $value in
        [Tt][Rr][Uu][Ee] | 1 | [Yy][Ee][Ss] | [Oo][Nn]) return 0 ;;
        [Ff][Aa][Ll][Ss][Ee] | 0 | [Nn][Oo] | [Oo][Ff][Ff] | '') return 1 ;;
        *) fail 2 "$1 must be True or False, not '$2'." ;;
    esac
}

# A shell that is a container's first process ignores SIGTERM, and one that waits for a program in
# the foreground can't pass it on. So the program runs beside it, and a stop ends both at once.
run() { # command...
    "$@" &
    child=$!
    trap 'kill -TERM "$child" 2>/dev/null || true; wait "$child" || true; exit 143' TERM
    trap 'kill -TERM "$child" 2>/dev/null || true; wait "$child" || true; exit 130' INT
    code=0
    wait "$child" || code=$?
    trap 'exit 143' TERM
    trap 'exit 130' INT
    return "$code"
}

[ $# -gt 0 ] || fail 2 "no command was given, for example: uvicorn api.main:app"
cd -- "$(dirname -- "$0")/.."

wait=false migrate=false
if is_true WAIT_FOR_DB "${WAIT_FOR_DB:-}"; then wait=true; fi
if is_true MIGRATE_DB "${MIGRATE_DB:-}"; then migrate=true; fi

if $wait; then
    run python -m chassis wait || fail $? "the database is not ready, so '$1' was not started."
fi
if $migrate; then
    run alembic -c db/alembic.ini upgrade head ||
        fail $? "the migration failed, so '$1' was not started. See the message above."
fi

exec "$@"
