#!/bin/sh
# Build a commit's image, push it, wait for the registry's scan, and print what it is called by its digest.
# What is printed on the way goes to standard error. PYTHON_IMAGE and UV_IMAGE, if set, are what it's built on.
# shellcheck source-path=SCRIPTDIR
. "$(dirname -- "$0")/lib.sh"
usage $# 1 COMMIT
commit=$1
read_names prd

uri=$(aws ecr describe-repositories --repository-names "$REPOSITORY" --output text \
    --query "repositories[0].repositoryUri")
digest_of_commit() {
    aws ecr list-images --repository-name "$REPOSITORY" --output text \
        --query "imageIds[?imageTag=='$commit'].imageDigest"
}

digest=$(digest_of_commit)
# A tag is never moved: what was pushed for the commit is its image.
if [ -z "$digest" ]; then
    {
        aws ecr get-login-password | docker login --username AWS --password-stdin "${uri%%/*}"
        # Without provenance it is one manifest, which the registry can scan, and not an index.
        docker build --platform "${PLATFORM:-linux/amd64}" --provenance=false \
            ${PYTHON_IMAGE:+--build-arg "PYTHON_IMAGE=$PYTHON_IMAGE"} ${UV_IMAGE:+--build-arg "UV_IMAGE=$UV_IMAGE"} \
            --label "org.opencontainers.image.revision=$commit" --tag "$uri:$commit" "$here/../.."
        docker push "$uri:$commit"
    } >&2
    digest=$(digest_of_commit)
fi

# The registry scans what is pushed. Basic scanning ends, Inspector's goes on; both have found what they know by then.
scan_of_digest() {
    findings="imageScanFindings.findings[?severity=='CRITICAL'].name"
    enhanced="imageScanFindings.enhancedFindings[?severity=='CRITICAL'].packageVulnerabilityDetails.vulnerabilityId"
    # As text, each page of findings would begin with the status again.
    found=$(aws ecr describe-image-scan-findings --repository-name "$REPOSITORY" --image-id "imageDigest=$digest" \
        --output json --query "join(' ', [[imageScanStatus.status], $findings || \`[]\`, $enhanced || \`[]\`][])") || return
    printf '%s\n' "$found" | tr -d '"'
}
tries=60
until scan=$(scan_of_digest 2>/dev/null) && case $scan in PENDING* | IN_PROGRESS*) false ;; esac; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
        echo "The registry has no scan of $digest: $(scan_of_digest 2>&1)" >&2
        exit 1
    fi
    sleep "${SCAN_PAUSE:-10}"
done
# shellcheck disable=SC2086 # words: the status, then names
set -- $scan
case $1 in COMPLETE | ACTIVE) ;; *) echo "The registry's scan of $digest is $1, so nobody knows what is in it." >&2; exit 1 ;; esac
shift
# One name a line, with a reason behind it.
accepted=$(sed -n 's/^\([A-Z][^ ]*\) .*/\1/p' "$here/accepted-findings.txt")
for finding; do
    if ! printf '%s\n' "$accepted" | grep -Fqx -- "$finding"; then
        echo "The scan found $finding. Update what has it, or accept it in infra/deliver/accepted-findings.txt." >&2
        refused=1
    fi
done
[ -z "${refused:-}" ]
echo "$uri@$digest"
