#!/bin/sh
# Migrate an environment's database with an image: run the migration task once, and fail if it does.
# shellcheck source-path=SCRIPTDIR
. "$(dirname -- "$0")/lib.sh"
usage $# 2 "ENVIRONMENT IMAGE"
read_names "$1"
set_image "$TASKS_STACK" "$2"

network=$(aws cloudformation describe-stacks --stack-name "$BASE_STACK" --output text \
    --query "Stacks[0].Outputs[?OutputKey=='Network'].OutputValue")
task=$(aws ecs run-task --cluster "$CLUSTER" --launch-type FARGATE --task-definition "$MIGRATE_TASK" \
    --network-configuration "$network" --query "tasks[0].taskArn" --output text)
case $task in
    arn:*) echo "Runs: $task" ;;
    *) echo "AWS did not start $MIGRATE_TASK." >&2; exit 1 ;;
esac
# Each waits for ten minutes.
for _ in 1 2 3 4 5 6; do
    if aws ecs wait tasks-stopped --cluster "$CLUSTER" --tasks "$task"; then break; fi
done
outcome=$(aws ecs describe-tasks --cluster "$CLUSTER" --tasks "$task" --output text \
    --query "tasks[0].[lastStatus, containers[0].exitCode]" | tr '\t' ' ')
case $outcome in
    STOPPED*) ;;
    *) echo "The migration still runs after an hour: $task. The service is as it was. Deliver again when it has ended." >&2; exit 1 ;;
esac
if [ "$outcome" != "STOPPED 0" ]; then
    aws ecs describe-tasks --cluster "$CLUSTER" --tasks "$task" --query "tasks[0].stoppedReason" --output text >&2
    aws logs tail "$LOG_GROUP" --log-stream-names "ecs/$MIGRATE_TASK/${task##*/}" --since 2h >&2 || true
    echo "The migration failed: $outcome. The service is as it was." >&2
    exit 1
fi
echo "Migrated."
