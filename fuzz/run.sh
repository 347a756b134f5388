#!/bin/sh
# Fuzzes one target: fuzz/run.sh reader|import|printer|convert [SECONDS]
# Needs a nightly compiler, cargo-fuzz (`cargo install cargo-fuzz`) and Python with onnx.
# The corpus lies in fuzz/corpus and grows from run to run; an input that crashes goes to fuzz/artifacts.
set -eu
target=$1
seconds=${2:-600}
cd "$(dirname "$0")/.."

python3 fuzz/seeds.py "fuzz/corpus/$target"
# There is no unsafe code in what `convert` runs of ours, and with the address sanitizer tract takes an hour to compile.
options=
[ "$target" != convert ] || options="--features=convert --sanitizer=none"
exec cargo +nightly fuzz run $options "$target" -- \
    -max_total_time="$seconds" -max_len=65536 -timeout=30 -rss_limit_mb=4096
