#!/bin/sh
# Say in FILE, as Markdown, what the revisions do that are new since BASE, and on the page of this run.
# Used as: report.sh BASE FILE. BASE may be empty: then the check finds it itself.
set -eu
base=$1 file=$2

# That it finds something is no failure of this step: the one that checks everything has failed of it.
uv run python -m chassis lint ${base:+--base "$base"} --format markdown >"$file" || true
[ -s "$file" ] || printf '### What the new revisions do\n\nThey could not be tried: the log says why.\n' >"$file"

# A summary has a megabyte at most, and knows no relative links.
guide=$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/blob/$GITHUB_SHA/db/LINT.md
head -c 900000 "$file" | sed "s|](db/LINT.md#|]($guide#|g" >>"$GITHUB_STEP_SUMMARY"
