#!/bin/sh
# Deploys what overlays/stg or overlays/prd describes: a job migrates and, only if it succeeds, the new version rolls
# out. See README.md.
set -eu

usage() {
    echo "usage: $0 stg|prd" >&2
    exit 2
}

fail() { # message
    echo "$1" >&2
    exit 1
}

[ $# -eq 1 ] || usage
case $1 in stg | prd) ;; *) usage ;; esac
overlay=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/overlays/$1

manifests=$(kubectl kustomize "$overlay")
namespace=$(printf '%s\n' "$manifests" | awk '$1 == "namespace:" { print $2; exit }')

in_namespace() { # arguments...
    kubectl --namespace "$namespace" "$@"
}

# The job's name and what holds of it, Complete or Failed once it has ended; nothing where there is no job.
state() {
    in_namespace get job migrate --ignore-not-found \
        --output 'jsonpath={.metadata.name} {.status.conditions[?(@.status=="True")].type}'
}

state=$(state)
case $state in
'') ;;
# What has run is no use any more, and a job can't be changed.
*Complete* | *Failed*) in_namespace delete job migrate ;;
*)
    fail "A migration still runs, so nothing was done. Run this again once it has ended.
To see it:  kubectl --namespace $namespace logs --follow job/migrate
To end it:  kubectl --namespace $namespace delete job migrate"
    ;;
esac

# All but the deployment and its scaling. The old version serves meanwhile.
kubectl apply --kustomize "$overlay" --selector 'app.kubernetes.io/component!=app'
echo "Migrating. To see it live: kubectl --namespace $namespace logs --follow job/migrate"
# The job's activeDeadlineSeconds sets an end to it.
while :; do
    state=$(state)
    case $state in
    '') fail "The job was deleted. The service is as it was." ;;
    *Complete* | *Failed*) break ;;
    esac
    sleep 2
done
in_namespace logs job/migrate || echo "Its log can't be read, see above." >&2

case $state in
*Failed*)
    in_namespace get job migrate --output 'jsonpath={.status.conditions[?(@.type=="Failed")].message}{"\n"}' >&2
    fail "The migration failed. The service is as it was."
    ;;
esac
kubectl apply --kustomize "$overlay"
in_namespace rollout status deployment/app --timeout 10m
