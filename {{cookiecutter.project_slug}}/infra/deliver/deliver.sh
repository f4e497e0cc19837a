#!/bin/sh
# Deliver an image to an environment: migrate, roll the service, test it from outside, roll back if that fails.
# shellcheck source-path=SCRIPTDIR
. "$(dirname -- "$0")/lib.sh"
usage $# 3 "ENVIRONMENT IMAGE URL"
read_names "$1"
served=$(image_of "$SERVICE_STACK")

"$here/migrate.sh" "$1" "$2"
"$here/roll.sh" "$1" "$2"
if ! "$here/smoke.sh" "$3"; then
    # The database stays as it is: the image from before bears one that is ahead of it, by expand and contract.
    echo "Rolling back." >&2
    "$here/roll.sh" "$1" "$served"
    exit 1
fi
