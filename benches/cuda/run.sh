#!/bin/sh
# Builds what is not built yet, measures, prints the tables.
#   run.sh OUTPUT-FOLDER [options of convolutions]
# Needs nvcc (only to build), and a python3 whose site-packages hold torch and NVIDIA's pip packages for CUDA 13.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$1
shift
mkdir -p "$out"
nvidia=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])')
libraries="$nvidia/cudnn/lib:$nvidia/cu13/lib"
build() {
    [ -x "$here/build/$1" ] && return
    mkdir -p "$here/build"
    name=$1
    shift
    nvcc -O2 -std=c++17 -arch=sm_90 -Wno-deprecated-declarations -I"$nvidia/cudnn/include" -I"$nvidia/cu13/include" \
        -L"$nvidia/cudnn/lib" -L"$nvidia/cu13/lib" -o "$here/build/$name" "$here/$name.cu" "$@"
}
build convolutions -l:libcudnn.so.9
build engine_costs -l:libcublasLt.so.13 -l:libnvrtc.so.13
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,power.limit --format=csv,noheader || true
LD_LIBRARY_PATH=$libraries "$here/build/engine_costs" "$out/costs.jsonl"
LD_LIBRARY_PATH=$libraries "$here/build/convolutions" "$out/cudnn.jsonl" "$@"
python3 "$here/convolutions.py" "$out/cudnn.jsonl" "$out/pytorch.jsonl"
python3 "$here/tables.py" "$out" >"$out/tables.md"
