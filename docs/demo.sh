#!/usr/bin/env bash
# What `make demo` runs: every step a command that a person could type, each shown before it runs. A step that an
# earlier run finished is not done again.
set -euo pipefail
dir=${1:-demo}
bin=${BIN:-.venv/bin}

run() {
  printf '\n$ %s\n' "$*"
  "$@"
}

mkdir -p "$dir"
if [ ! -f "$dir/.recorded" ]; then
  if [ -e "$dir/raw" ]; then
    echo "$dir/raw was left unfinished by an earlier run: remove it (rm -r $dir/raw), then run this again" >&2
    exit 2
  fi
  run vlapipe demo "$dir/raw" --episodes 160
  touch "$dir/.recorded"
fi
[ -f "$dir/data/manifest.json" ] || run vlapipe ingest --dataset "$dir/raw" --out "$dir/data" --image-size 128x96
run vlapipe inspect "$dir/data"
if [ -f "$dir/run/config.json" ]; then
  run vlapipe train --out "$dir/run" --resume
else
  run vlapipe train --data "$dir/data" --out "$dir/run" --config docs/demo.toml
fi
run vlapipe eval "$dir/run" --env demo --episodes 10 --seed 1 --films 3

cat <<END

Everything is in $dir/: the recordings in raw, the dataset in data, the training run in run, film strips of what the
policy does in run/eval/demo-seed-1. Where to go from here:

  $bin/vlapipe inspect $dir/data --episode 0                    one episode, stream by stream
  $bin/vlapipe eval $dir/run --data $dir/data                   predicted beside recorded actions, with plots
  $bin/vlapipe train --out $dir/run --resume --max-steps 2000   train on, from exactly here
  $bin/vlapipe schema infer YOUR_RECORDINGS --out mine.toml     begin with your own: what lies in their files
END
