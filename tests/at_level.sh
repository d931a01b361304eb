#!/usr/bin/env bash
# at_level.sh LEVEL COMMAND... - runs cmz-run's COMMAND on one CPU level of its model.
level=$1
shift
exec "$@" --cpu "$level"
