#!/bin/sh
# Checks bcosc on a machine with an NVIDIA GPU, in at most six minutes, without network and without Rust.
#
#   run.sh BINARIES OUT [--networks DIR] [--images DIR] [--model FILE] [--limit SECONDS] [--only CHECK]...
#
#   BINARIES   what build.sh has made
#   OUT        folder for results: OUT/report.json has all figures, OUT/CHECK.log what each check said
#   --networks originals as ONNX files, such as resnet50.onnx: compared with tract, and measured. Needed for `networks`, `throughput`
#   --images   pictures in class folders (DIR/train, DIR/val): needed for `training`
#   --model    network to train, such as a ResNet-20 for CIFAR-10: needed for `training`
#   --limit    seconds for everything [default: 360]
#
# Checks, the most important first:
#   device       the driver and the libraries are there
#   layers       forward, input gradient and weight gradient of five layers of a ResNet-50
#   layers-torch the same in PyTorch, in both layouts, where it is installed
#   golden       forward, explanation and step of the golden networks against tract, state on the device, two runs alike
#   published    logits and gradients of the golden networks against the published implementation
#   networks     forward, explanation and step of --networks against tract
#   memcheck, racecheck  compute-sanitizer on a golden network, where it is installed
#   throughput   images per second of --networks, and throughput-torch the same in PyTorch
#   determinism  two short training runs of one seed have the same losses
#   training     three minutes of training on the device, or what is left of the time
#   training-cpu the same on the CPU, in the time that is left
#
# A check that fails or runs out of time does not stop the others. Exit status: 0, 1 if a check failed, 2 for wrong usage,
# 3 without a GPU.
set -u
usage() { sed -n '2,/^set -u/{/^# \{0,1\}/s/^# \{0,1\}//p}' "$0"; }
case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -ge 2 ] || { usage >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
binaries=$(cd "$1" 2>/dev/null && pwd) || { echo "there is no folder $1; build.sh makes it" >&2; exit 2; }
mkdir -p "$2" || exit 2
out=$(cd "$2" && pwd)
shift 2
networks= images= model= only= limit=360
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
    case $1 in
        --networks) networks=$(cd "$2" && pwd) || exit 2 ;;
        --images) images=$(cd "$2" && pwd) || exit 2 ;;
        --model) [ -f "$2" ] || { echo "there is no $2" >&2; exit 2; }
            model=$(cd "$(dirname "$2")" && pwd)/$(basename "$2") ;;
        --limit) case $2 in '' | *[!0-9]*) echo "--limit takes seconds" >&2; exit 2 ;; esac
            limit=$2 ;;
        --only) only="$only $2 " ;;
        *) echo "there is no $1" >&2; exit 2 ;;
    esac
    shift 2
done
for binary in bcosc throughput device training golden; do
    [ -x "$binaries/$binary" ] || { echo "there is no $binaries/$binary; build.sh makes it" >&2; exit 2; }
done
cd "$repository" || exit 2
begun=$(date +%s)
results=$out/checks.jsonl
: >"$results"
failed=0

left() { echo $((limit - ($(date +%s) - begun))); }

# Text as a JSON string.
quoted() { printf '"%s"' "$(printf %s "$1" | tr '\n\t' '  ' | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g')"; }

# note CHECK STATUS SECONDS REASON: one line of results, with the figures that the check printed.
note() {
    figures=$(sed -n 's/^figure: //p' "$out/$1.log" 2>/dev/null | paste -sd, -)
    printf '{"check": "%s", "status": "%s", "seconds": %s, "reason": %s, "figures": [%s]}\n' \
        "$1" "$2" "$3" "$(quoted "$4")" "$figures" >>"$results"
    printf '%-16s %-8s %4s s  %s\n' "$1" "$2" "$3" "$4"
}

# check NAME SECONDS COMMAND...: runs it for at most so many seconds, and not beyond the limit.
check() {
    name=$1 most=$2
    shift 2
    [ -z "$only" ] || case $only in *" $name "*) ;; *) return 0 ;; esac
    rest=$(left)
    [ "$most" -lt "$rest" ] || most=$rest
    if [ "$most" -lt 3 ]; then
        note "$name" skipped 0 "no time is left"
        return 0
    fi
    start=$(date +%s)
    timeout -k 5 "$most" "$@" >"$out/$name.log" 2>&1
    code=$?
    took=$(($(date +%s) - start))
    case $code in
        0) note "$name" passed "$took" "" ;;
        124 | 137) failed=1; note "$name" timeout "$took" "it was stopped after $most s" ;;
        *) failed=1; note "$name" failed "$took" "exit status $code: $(grep -v '^figure: ' "$out/$name.log" | tail -n 3)" ;;
    esac
    return "$code"
}

skip() {
    [ -z "$only" ] || case $only in *" $1 "*) ;; *) return 0 ;; esac
    : >"$out/$1.log"
    note "$1" skipped 0 "$2"
}

# The report, also when the script is interrupted.
report() {
    gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1)
    {
        printf '{"gpu": %s, "bcosc": %s, "seconds": %s, "checks": [\n' "$(quoted "$gpu")" \
            "$(quoted "$("$binaries/bcosc" --version 2>/dev/null)")" "$(($(date +%s) - begun))"
        sed '$!s/$/,/' "$results"
        printf ']}\n'
    } >"$out/report.json"
}
trap report EXIT
trap 'exit 1' INT TERM HUP

torch() { python3 -c 'import torch, torchvision, sys; sys.exit(not torch.cuda.is_available())' >/dev/null 2>&1; }
check device 30 "$binaries/throughput" --layers --batch 1 --precision fp32 --seconds 0.01
code=$?
if [ "$code" -eq 3 ]; then
    echo "there is no GPU that can be used: $(tail -n 1 "$out/device.log")" >&2
    exit 3
fi
torch && has_torch=yes || has_torch=
check layers 60 "$binaries/throughput" --layers --batch 64 --seconds 0.1
if [ -n "$has_torch" ]; then
    check layers-torch 40 python3 "$here/pytorch.py" --layers --batch 64 --seconds 0.1
else
    skip layers-torch "PyTorch with a GPU is not installed"
fi
crate=CARGO_MANIFEST_DIR=$repository/engine-cuda
root=CARGO_MANIFEST_DIR=$repository
check golden 80 env "$crate" "$binaries/device" --nocapture --test-threads 1
check published 60 env "$root" BCOSC_TEST_DEVICE=cuda sh -c '"$1/training" --nocapture && "$1/golden" --nocapture b_2' \
    sh "$binaries"
if [ -n "$networks" ]; then
    check networks 60 env "$crate" "BCOSC_NETWORKS=$networks" "$binaries/device" --nocapture networks_of_a_folder
else
    skip networks "no --networks"
fi
for tool in memcheck racecheck; do
    if command -v compute-sanitizer >/dev/null 2>&1; then
        check "$tool" 40 env "$crate" compute-sanitizer --tool "$tool" --error-exitcode 9 "$binaries/device" \
            --nocapture state_stays
    else
        skip "$tool" "compute-sanitizer is not installed"
    fi
done
if [ -n "$networks" ]; then
    check throughput 80 "$binaries/throughput" --batch 64 --seconds 0.5 "$networks"/*.onnx
else
    skip throughput "no --networks"
fi
if [ -n "$networks" ] && [ -n "$has_torch" ]; then
    names=$(for file in "$networks"/*.onnx; do basename "$file" | sed 's/[.].*//'; done | sort -u)
    # shellcheck disable=SC2086 # a list of names
    check throughput-torch 60 python3 "$here/pytorch.py" --batch 64 --seconds 0.5 --compile $names
else
    skip throughput-torch "PyTorch with a GPU is not installed, or no --networks"
fi
if [ -n "$images" ] && [ -n "$model" ]; then
    check determinism 40 "$here/train.sh" twice "$binaries" "$model" "$images" "$out"
    most=$(($(left) - 20))
    [ "$most" -le 180 ] || most=180
    check training $((most + 10)) "$here/train.sh" cuda "$binaries" "$model" "$images" "$out" "$most"
    most=$(($(left) - 15))
    [ "$most" -le 180 ] || most=180
    check training-cpu $((most + 10)) "$here/train.sh" cpu "$binaries" "$model" "$images" "$out" "$most"
else
    for name in determinism training training-cpu; do skip "$name" "no --images or no --model"; done
fi
exit "$failed"
