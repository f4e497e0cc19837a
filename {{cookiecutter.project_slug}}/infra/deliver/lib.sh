# shellcheck shell=sh
# What the scripts of this folder share: they source it.
set -eu
here=$(cd -- "$(dirname -- "$0")" && pwd)

usage() { # number of arguments, expected number, how it is called
    [ "$1" -eq "$2" ] || { echo "usage: $(basename -- "$0") $3" >&2; exit 2; }
}

# Sets CLUSTER, SERVICE_STACK and so on. All names come from there.
read_names() { # environment
    names=$(python3 "$here/../names.py" "$1")
    eval "$names"
}

image_of() { # stack
    aws cloudformation describe-stacks --stack-name "$1" --output text \
        --query "Stacks[0].Parameters[?ParameterKey=='Image'].ParameterValue"
}

# The template stays, so that a delivery changes nothing but the image. For the service this waits until the
# new containers are ready; if they never are, CloudFormation puts the old image back, and this fails.
set_image() { # stack image
    before=$(image_of "$1")
    if [ "$before" = "$2" ]; then
        echo "$1 has this image already."
        return
    fi
    echo "$1: $before -> $2"
    aws cloudformation update-stack --stack-name "$1" --use-previous-template --capabilities CAPABILITY_IAM \
        --parameters "ParameterKey=Image,ParameterValue=$2" >/dev/null
    aws cloudformation wait stack-update-complete --stack-name "$1" || {
        aws cloudformation describe-stack-events --stack-name "$1" --max-items 30 --output text \
            --query "StackEvents[?ends_with(ResourceStatus, 'FAILED')].[LogicalResourceId, ResourceStatusReason]" >&2
        echo "$1 could not be changed, see above." >&2
        return 1
    }
}
