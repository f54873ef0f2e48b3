#!/usr/bin/env bash
# The simulator frames that the default encoder is pre-trained on: all 50 tasks of Meta-World, six episodes each.
# Usage: benchmarks/pretraining_data.sh FOLDER        (2 CPU cores: about 8 minutes, 1 GB)
# Seeds start at 3000000 (embodied/bench/experiment.py), so no demonstration or evaluation episode is among them.
set -euo pipefail
folder=$1
collect() {
  embodied collect "task=$1" "collect.expert=$2" "collect.seed=$3" "episodes=$4" collect.only_successes=false \
    collect.noise=0.2 workers=0 "store=$folder/$1-$2"
}
export -f collect
export folder
embodied list tasks --json | python3 -c 'import json, sys; print("\n".join(json.load(sys.stdin)))' |
  xargs -P "$(nproc)" -I{} bash -c 'collect {} mixed 3000000 4; collect {} random 3100000 2'
