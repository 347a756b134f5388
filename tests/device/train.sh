#!/bin/sh
# Training runs of run.sh; prints lines `figure: JSON`.
#   train.sh twice BINARIES MODEL IMAGES OUT           two runs of one seed on the device, which must have the same losses
#   train.sh cuda|cpu BINARIES MODEL IMAGES OUT SECS   a run that takes about so long
set -eu
what=$1 binaries=$2 model=$3 images=$4 out=$5 seconds=${6:-0}

# train NAME DEVICE OPTIONS...
train() {
    name=$1 device=$2
    shift 2
    rm -rf "$out/$name.run"
    "$binaries/bcosc" train "$model" --data "$images" -o "$out/$name.onnx" --work-dir "$out/$name.run" --device "$device" \
        --input add-inverse --normalization imagenet --augment shift --seed 0 -v "$@"
}

# A field of the lines that have a loss.
field() { sed -n "s/.*\"$1\":\([^,}]*\).*/\1/p" "$2"; }

case $what in
    twice)
        for run in first second; do
            train "$run" cuda --steps 40 --sheet 0 --val-images 64 --completeness 0
            field loss "$out/$run.run/metrics.jsonl" >"$out/$run.losses"
        done
        [ -s "$out/first.losses" ]
        cmp "$out/first.losses" "$out/second.losses"
        echo "figure: {\"losses\": [$(paste -sd, "$out/first.losses")]}"
        ;;
    cuda)
        # As many steps as fit, by the speed of the runs before; a quarter of the time is for evaluations.
        rate=$(field images_per_second "$out/second.run/metrics.jsonl" | sort -g | awk '{r[NR] = $1} END {print r[int((NR + 1) / 2)]}')
        steps=$(awk -v rate="${rate:-1000}" -v seconds="$seconds" 'BEGIN {n = int(0.75 * seconds * rate / 128); print n < 10 ? 10 : n}')
        train training cuda --epochs 100000 --steps "$steps"
        sed 's/^/figure: /' "$out/training.run/metrics.jsonl"
        ;;
    cpu)
        # It is stopped: its checkpoint and its metrics stay.
        rm -rf "$out/training-cpu.run"
        timeout -s INT "$seconds" "$binaries/bcosc" train "$model" --data "$images" -o "$out/training-cpu.onnx" \
            --work-dir "$out/training-cpu.run" --device cpu --input add-inverse --normalization imagenet --augment shift \
            --seed 0 --epochs 100000 || true
        [ -s "$out/training-cpu.run/metrics.jsonl" ]
        sed 's/^/figure: /' "$out/training-cpu.run/metrics.jsonl"
        ;;
    *) sed -n '2,4s/^# //p' "$0" >&2; exit 2 ;;
esac
