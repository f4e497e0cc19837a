#!/bin/sh
# Update from the template, and leave what came of it in FOLDER: a commit, and what is to be said of it.
# Used as: update.sh VERSION FOLDER. VERSION may be empty: then it is the newest.
set -eu
version=$1 folder=$2
mkdir -p "$folder"

# That it finds conflicts, or that a check fails, is for the pull request to say.
failed=0
uv run --no-sync python -m chassis update ${version:+--to "$version"} --report "$folder/update.md" || failed=1
if [ -z "$(git status --porcelain)" ]; then
    echo "state=none" >>"$GITHUB_OUTPUT"
    exit "$failed"
fi
# What the new revisions do, which have no commit before this one.
printf '\n' >>"$folder/update.md"
uv run --no-sync python -m chassis lint --base HEAD --format markdown >>"$folder/update.md" || true

git add --all
bot='github-actions[bot]'
git -c user.name="$bot" -c user.email="41898282+$bot@users.noreply.github.com" \
    commit --quiet --no-verify --message "Update the template$(sed -n '1s/^From .* to \(.*\) of the template\.$/ to \1/p' "$folder/update.md")"
git bundle create --quiet "$folder/update.bundle" HEAD ^HEAD^
echo "state=updated" >>"$GITHUB_OUTPUT"
