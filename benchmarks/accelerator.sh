#!/usr/bin/env bash
# What to measure on an accelerator, in about eight minutes: training and sampling of the networks in both dtypes, larger
# batches, the kernels of the 128×128 step, and the images per second of a run with the default config.
#
#     benchmarks/accelerator.sh FOLDER [PYTHON]
#
# FOLDER receives a table (.md) and numbers (.json) per part. A part that fails does not end the others.
set -uo pipefail
folder=${1:?give a folder for the results}
python=${2:-python}
mkdir -p "$folder" && folder=$(cd "$folder" && pwd) && cd "$(dirname "$0")/.." || exit 1
failed=0

measure() { # NAME MINUTES OPTIONS...
  local name=$1 minutes=$2
  shift 2
  echo "== $name"
  "$python" -m benchmarks.accelerator --minutes="$minutes" --json="$folder/$name.json" "$@" |
    tee "$folder/$name.md" || failed=1
}

measure kernels 1 --rows=train128 --kernels=25
measure large_batches 1 --rows=train28,train128 --dtypes=bfloat16 --batch=256,512
measure training 2.5 --rows=train28,prior7,prior32,transformer32
measure sampling 1.5 --rows=sample7,sample32,sample32_transformer

echo "== default config"
"$python" train.py --config=configs/default.py:vq --workdir="$folder/run" --config.data.name=fashion_mnist_mini \
  --config.data.data_dir="$folder/data" --config.stage=autoencoder --config.autoencoder.num_epochs=100 \
  --config.autoencoder.eval_every_steps=1000 --quiet || failed=1
"$python" - "$folder/run/metrics.jsonl" <<'END' | tee "$folder/default.md" || failed=1
import json, statistics, sys
records = [json.loads(line) for line in open(sys.argv[1])]
rates = [record["images_per_second"] for record in records if record["split"] == "train"]
print(f"images per second of the default config, median of {len(rates)} logs: {statistics.median(rates):,.0f}")
END
rm -rf "$folder/data" "$folder/run/checkpoints"
exit "$failed"
