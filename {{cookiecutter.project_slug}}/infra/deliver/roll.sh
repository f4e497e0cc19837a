#!/bin/sh
# Let an environment's service run an image, a newer or an older one. The database is left alone.
# shellcheck source-path=SCRIPTDIR
. "$(dirname -- "$0")/lib.sh"
usage $# 2 "ENVIRONMENT IMAGE"
read_names "$1"
set_image "$SERVICE_STACK" "$2"
