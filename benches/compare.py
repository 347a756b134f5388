"""Speed and memory of bcosc compared with other tools, in one run.

    compare.py --bcosc target/release/bcosc --model resnet50.dynamo.onnx [--rounds 7] [--skip-large]

Commands take turns (A B A B ...) so that a busy machine slows them alike; medians are compared.
  copy    `bcosc --verify off` beside `cp` of the same file, page cache warm: at most 3 times as long, and
          bcosc's peak resident memory under 1.3 times the file;
  proof   the whole run with its proof beside onnxslim and onnxsim with their checks on: faster than both;
  large   a model of more than 3 GB with external data, made here, converts (--verify off).
onnxslim and onnxsim are on PATH or beside the Python that runs this. Needs tests/python/requirements.txt. Exits with 1 if a limit is missed.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

COPY_LIMIT, MEMORY_LIMIT = 3.0, 1.3


# A process counts its parent's memory as its own peak until it has started its program, so commands are started
# from a process that has next to none.
LAUNCHER = """
import os, sys, time
start = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, usage = os.wait4(pid, 0)
seconds = time.perf_counter() - start
print(os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss * 1024)
"""


def timed(argv):
    """(seconds, peak resident bytes) of a command that must succeed."""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", LAUNCHER, *argv], check=True, capture_output=True)
    code, seconds, peak = done.stdout.split()
    if int(code) != 0:
        sys.exit(f"{' '.join(argv)}: exit code {int(code)}\n{done.stderr.decode(errors='replace')[-800:]}")
    return float(seconds), int(peak)


def interleaved(commands, rounds, outputs):
    """{name: (median seconds, largest peak)}; the first round only warms up. `outputs` are removed each time."""
    times, peaks = {n: [] for n in commands}, {n: 0 for n in commands}
    for turn in range(rounds + 1):
        for name, argv in commands.items():
            for path in outputs:
                if os.path.exists(path):
                    os.remove(path)
            seconds, peak = timed(argv)
            if turn:
                times[name].append(seconds)
                peaks[name] = max(peaks[name], peak)
    return {n: (statistics.median(t), peaks[n]) for n, t in times.items()}


def tool(name):
    beside = os.path.join(os.path.dirname(sys.executable), name)
    found = beside if os.path.exists(beside) else shutil.which(name)
    return found or sys.exit(f"{name} not found")


def report(results, base):
    for name, (seconds, peak) in results.items():
        ratio = seconds / results[base][0]
        print(f"  {name:<28} {seconds * 1e3:9.1f} ms   {ratio:6.2f} x {base:<6}  peak {peak / 1e6:8.1f} MB")


def write_large(folder, width=16384):
    """A convolution and three huge Gemm layers with seeded weights in one external file; returns (path, bytes)."""
    rng = np.random.default_rng(0)
    path, sidecar = os.path.join(folder, "large.onnx"), os.path.join(folder, "large.data")
    initializers, nodes, last = [], [], "flat"
    first = rng.standard_normal((16, 3, 3, 3)).astype(np.float32) / 5
    initializers.append(numpy_helper.from_array(first, "conv.weight"))
    nodes.append(helper.make_node("Conv", ["input", "conv.weight"], ["conv"], "conv", strides=[2, 2], pads=[1] * 4))
    nodes.append(helper.make_node("Relu", ["conv"], ["relu"], "relu"))
    nodes.append(helper.make_node("Flatten", ["relu"], ["flat"], "flat"))
    with open(sidecar, "wb") as f:
        for i, (rows, columns) in enumerate([(width, 4096), (width, width), (width, width), (width, width), (10, width)]):
            weight = TensorProto(name=f"fc{i}.weight", data_type=TensorProto.FLOAT, dims=[rows, columns],
                                 data_location=TensorProto.EXTERNAL)
            offset = f.tell()
            for start in range(0, rows, 1024):  # in pieces: the script should not need the memory either
                piece = rng.random((min(1024, rows - start), columns), np.float32) - np.float32(0.5)
                piece *= np.float32(4 / columns**0.5)
                f.write(piece.tobytes())
            for key, value in (("location", "large.data"), ("offset", offset), ("length", f.tell() - offset)):
                weight.external_data.add(key=key, value=str(value))
            bias = rng.standard_normal(rows).astype(np.float32) / 10
            initializers += [weight, numpy_helper.from_array(bias, f"fc{i}.bias")]
            nodes.append(helper.make_node("Gemm", [last, f"fc{i}.weight", f"fc{i}.bias"], [f"fc{i}"], f"fc{i}", transB=1))
            last = f"fc{i}"
            if rows > 10:
                nodes.append(helper.make_node("Relu", [last], [f"relu{i}"], f"relu{i}"))
                last = f"relu{i}"
        size = f.tell()
    graph = helper.make_graph(
        nodes, "large",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["batch", 10])], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path, size + os.path.getsize(path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--model", required=True, help="resnet50, as exported")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--skip-large", action="store_true")
    p.add_argument("--tmp", metavar="DIR", help="where outputs go (default: the system's); best a memory disk")
    args = p.parse_args()
    size = os.path.getsize(args.model)
    missed = []

    with tempfile.TemporaryDirectory(dir=args.tmp) as tmp:
        out = os.path.join(tmp, "out.onnx")
        commands = {
            "cp": ["cp", args.model, out],
            "bcosc --verify off": [args.bcosc, args.model, "-o", out, "--verify", "off", "-q"],
        }
        print(f"copy: {os.path.basename(args.model)}, {size / 1e6:.1f} MB")
        results = interleaved(commands, 3 * args.rounds, [out])
        report(results, "cp")
        seconds, peak = results["bcosc --verify off"]
        ratio, memory = seconds / results["cp"][0], peak / size
        print(f"  time {ratio:.2f} x cp (limit {COPY_LIMIT}), memory {memory:.2f} x file (limit {MEMORY_LIMIT})")
        missed += ["copy: time"] * (ratio > COPY_LIMIT) + ["copy: memory"] * (memory > MEMORY_LIMIT)

        shape = f"{onnx.load(args.model, load_external_data=False).graph.input[0].name}:1,3,224,224"
        commands = {
            "bcosc": [args.bcosc, args.model, "-o", out, "-q"],
            "onnxslim --model-check": [tool("onnxslim"), args.model, out, "--model-check", "--model-check-inputs", shape],
            "onnxsim, 1 check": [tool("onnxsim"), args.model, out, "1", "--test-input-shape", shape],
        }
        print("proof:")
        results = interleaved(commands, args.rounds, [out])
        report(results, "bcosc")
        missed += [f"proof: slower than {n}" for n, (t, _) in results.items() if t < results["bcosc"][0]]

        if not args.skip_large:
            os.remove(out)
            path, size = write_large(tmp)
            seconds, peak = timed([args.bcosc, path, "-o", out, "--verify", "off", "-q"])
            written = sum(os.path.getsize(os.path.join(tmp, f)) for f in os.listdir(tmp) if f.startswith("out"))
            print(f"large: {size / 1e9:.2f} GB in {seconds:.1f} s, wrote {written / 1e9:.2f} GB, "
                  f"peak {peak / 1e9:.2f} GB ({peak / size:.2f} x the model)")
            if written < 0.99 * size:
                missed.append("large: weights are missing")
    for m in missed:
        print("MISSED", m)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
