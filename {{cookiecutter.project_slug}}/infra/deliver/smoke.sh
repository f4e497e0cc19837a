#!/bin/sh
# Ask a service from outside: is it ready, does it refuse callers without a key, and does it know the key
# in SMOKE_KEY, if that is set? Tries again for a minute.
# shellcheck source-path=SCRIPTDIR
. "$(dirname -- "$0")/lib.sh"
usage $# 1 URL

expect() { # status path [further arguments of curl]
    status=$1 url=$2
    shift 2
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        found=$(curl --silent --output /dev/null --max-time 10 --write-out '%{http_code}' "$@" "$url") || true
        if [ "$found" = "$status" ]; then
            echo "ok  $url: $found"
            return
        fi
        sleep "${SMOKE_PAUSE:-5}"
    done
    echo "$url answers $found, not $status." >&2
    exit 1
}

expect 200 "$1/ready"
expect 401 "$1/v1/agents"
if [ -n "${SMOKE_KEY:-}" ]; then
    # Not as an argument, which others on the machine could read.
    config=$(mktemp)
    trap 'rm -f "$config"' EXIT
    printf 'header = "Authorization: Bearer %s"\n' "$SMOKE_KEY" >"$config"
    expect 200 "$1/v1/agents" --config "$config"
fi
