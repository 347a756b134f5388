"""Forms of the gradient of a convolution's weight: what autodiff/src/lower/weight_gradient.rs chooses, against others.

    cargo build --workspace --example latency
    weight_gradient.py [--latency target/debug/examples/latency] [--rounds 5] [--threads 1 2] [--only TEXT]

Graphs of all forms take turns in ONNX Runtime; times are medians, of the calling thread's processor time with one
thread and of wall time with several. With --latency they run on tract too (which has one thread; dependencies are
optimised in debug builds as well). Prints milliseconds of the chosen form, and the ratio of each other form to it.

| form | product |
|---|---|
| rows | [O, N P] x [N P, C] for each cell, slices of x with channels last |
| images | [N, O, P] x [N, P, C] for each cell, and a sum over the images |
| turned | as images, but [N, C, P] x [N, P, O]: slices of x as it is |
| columns | [O, N P] x [N P, cells C]: all cells side by side |
| swapped | one convolution of x with dy: batch and channels swapped, strides and dilations swapped |
| patches | [O, N P] x [N P, C cells]: windows side by side are axes of x |
| point | for 1x1: images, with the factor of fewer channels transposed |
| elements | for depthwise: dy times each cell's slice, and a sum |

Needs tests/python/requirements.txt.
"""

import argparse
import pathlib
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


class Layer:
    def __init__(self, batch, c, size, o, k, stride=1, pad=None, group=1):
        self.n, self.c, self.size, self.o, self.k, self.stride, self.group = batch, c, size, o, k, stride, group
        self.pad = k // 2 if pad is None else pad
        self.out = (size + 2 * self.pad - k) // stride + 1
        self.x, self.dy = [batch, c, size, size], [batch, o, self.out, self.out]
        groups = f", {group} groups" if group > 1 else ""
        self.name = f"{k}x{k}/{stride} {c}->{o} at {size}x{size}, batch {batch}{groups}"

    def chosen(self):
        """As Gradient::form in weight_gradient.rs."""
        if self.group > 1 and self.c == self.group:
            return "elements"
        if self.group == 1 and self.k == self.stride >= 4 and not self.pad:
            return "patches"
        if self.group == 1 and self.stride > 1 and self.c <= 8 and self.k**2 >= 25:
            return "swapped"
        if self.out**2 < 500:
            return "rows"
        return "point" if self.k == 1 else "images"

    def forms(self):
        if self.group > 1:
            depthwise = ["elements"] if self.c == self.group == self.o else []
            return [*depthwise, "rows", "images", "swapped"] + (["point"] if self.k == 1 else [])
        found = ["rows", "images", "turned", "swapped"] + (["point"] if self.k == 1 else ["columns"])
        if self.k == self.stride > 1 and not self.pad:
            found.append("patches")
        return found


LAYERS = [
    Layer(8, 64, 56, 64, 3), Layer(8, 128, 56, 32, 3), Layer(8, 128, 28, 128, 3), Layer(8, 128, 56, 128, 3, 2),
    Layer(8, 256, 14, 256, 3), Layer(8, 512, 7, 512, 3), Layer(32, 16, 32, 16, 3), Layer(32, 64, 8, 64, 3),
    Layer(8, 256, 56, 64, 1), Layer(8, 64, 56, 256, 1), Layer(8, 1024, 14, 256, 1), Layer(8, 2048, 7, 512, 1),
    Layer(8, 256, 56, 512, 1, 2),
    Layer(8, 3, 224, 64, 7, 2), Layer(8, 6, 224, 64, 7, 2), Layer(8, 6, 224, 32, 3, 2), Layer(32, 6, 32, 64, 3),
    Layer(8, 6, 112, 32, 5), Layer(8, 3, 224, 64, 11, 4, 2),
    Layer(8, 6, 224, 96, 4, 4, 0), Layer(8, 6, 224, 192, 16, 16, 0), Layer(8, 96, 56, 192, 2, 2, 0),
    Layer(8, 96, 56, 96, 3, group=96), Layer(8, 96, 112, 96, 3, 2, group=96), Layer(8, 960, 7, 960, 3, group=960),
    Layer(8, 96, 28, 96, 7, group=96),
    Layer(8, 128, 56, 128, 3, group=32), Layer(8, 1024, 7, 1024, 3, group=32), Layer(8, 240, 28, 240, 1, group=3),
]


class Graph:
    """A graph from x and dy to dw."""

    def __init__(self, layer):
        self.layer, self.nodes, self.constants = layer, [], []

    def __getattr__(self, op_type):
        def add(*inputs, **attributes):
            name = f"v{len(self.nodes)}"
            inputs = [i if isinstance(i, str) else self.constant(i) for i in inputs]
            self.nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
            return name

        return add

    def constant(self, values):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
        return name

    def padded(self):
        pad = self.layer.pad
        return self.Pad("x", [0, 0, pad, pad, 0, 0, pad, pad]) if pad else "x"

    def cells(self, x, first):
        """A slice for each cell of the window, of x whose height is axis `first`."""
        q = self.layer
        if q.k == q.stride == 1:
            return [x]
        end = q.stride * (q.out - 1) + 1
        return [self.Slice(x, [i, j], [i + end, j + end], [first, first + 1], [q.stride] * 2)
                for i in range(q.k) for j in range(q.k)]

    def stacked(self, parts):
        q = self.layer
        parts = self.Reshape(self.Concat(*parts, axis=0), [q.k**2, q.o, q.c // q.group])
        return self.Reshape(self.Transpose(parts, perm=[1, 2, 0]), [q.o, q.c // q.group, q.k, q.k])

    def model(self, form):
        result = getattr(self, f"form_{form}")()
        self.nodes.append(helper.make_node("Identity", [result], ["dw"]))
        sizes = (("x", self.layer.x), ("dy", self.layer.dy))
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in sizes]
        output = helper.make_tensor_value_info("dw", TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, form, inputs, [output], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    def split(self):
        q = self.layer
        size = q.size + 2 * q.pad
        return self.Reshape(self.padded(), [q.n, q.group, q.c // q.group, size, size])

    def rows_of_dy(self):
        q = self.layer
        dy = self.Transpose(self.Reshape("dy", [q.n, q.group, q.o // q.group, -1]), perm=[1, 2, 0, 3])
        return self.Reshape(dy, [q.group, q.o // q.group, -1] if q.group > 1 else [q.o, -1])

    def form_rows(self):
        q = self.layer
        if q.group == 1:
            x, dy = self.Transpose(self.padded(), perm=[0, 2, 3, 1]), self.rows_of_dy()
            return self.stacked([self.MatMul(dy, self.Reshape(c, [-1, q.c])) for c in self.cells(x, 1)])
        x, dy = self.Transpose(self.split(), perm=[1, 0, 3, 4, 2]), self.rows_of_dy()
        rows = [q.group, -1, q.c // q.group]
        return self.stacked([self.MatMul(dy, self.Reshape(c, rows)) for c in self.cells(x, 2)])

    def form_images(self):
        q = self.layer
        if q.group == 1:
            x, first, dy = self.Transpose(self.padded(), perm=[0, 2, 3, 1]), 1, self.Reshape("dy", [q.n, q.o, -1])
            rows = [q.n, -1, q.c]
        else:
            x, first = self.Transpose(self.split(), perm=[0, 1, 3, 4, 2]), 2
            dy, rows = self.Reshape("dy", [q.n, q.group, q.o // q.group, -1]), [q.n, q.group, -1, q.c // q.group]
        products = [self.MatMul(dy, self.Reshape(c, rows)) for c in self.cells(x, first)]
        return self.stacked([self.ReduceSum(p, [0], keepdims=0) for p in products])

    def form_turned(self):
        q = self.layer
        dy = self.Transpose(self.Reshape("dy", [q.n, q.o, -1]), perm=[0, 2, 1])
        products = [self.MatMul(self.Reshape(c, [q.n, q.c, -1]), dy) for c in self.cells(self.padded(), 2)]
        sums = [self.ReduceSum(p, [0], keepdims=0) for p in products]
        return self.stacked([self.Transpose(p, perm=[1, 0]) for p in sums])

    def form_point(self):
        q = self.layer
        (x,) = self.cells("x", 2)
        x = self.Reshape(x, [q.n, q.group, q.c // q.group, -1])
        dy = self.Reshape("dy", [q.n, q.group, q.o // q.group, -1])
        if q.c > q.o:
            product = self.MatMul(x, self.Transpose(dy, perm=[0, 1, 3, 2]))
            product = self.Transpose(self.ReduceSum(product, [0], keepdims=0), perm=[0, 2, 1])
        else:
            product = self.ReduceSum(self.MatMul(dy, self.Transpose(x, perm=[0, 1, 3, 2])), [0], keepdims=0)
        return self.Reshape(product, [q.o, q.c // q.group, 1, 1])

    def form_columns(self):
        q = self.layer
        x = self.Transpose(self.padded(), perm=[0, 2, 3, 1])
        columns = self.Reshape(self.Concat(*self.cells(x, 1), axis=3), [-1, q.k**2 * q.c])
        product = self.Reshape(self.MatMul(self.rows_of_dy(), columns), [q.o, q.k, q.k, q.c])
        return self.Transpose(product, perm=[0, 3, 1, 2])

    def form_swapped(self):
        q = self.layer
        per_group = q.c // q.group
        x = self.Transpose(self.Reshape("x", [q.n, q.group, per_group, -1]), perm=[2, 1, 0, 3])
        x = self.Reshape(x, [per_group, q.group * q.n, q.size, q.size])
        dy = self.Transpose("dy", perm=[1, 0, 2, 3])
        result = self.Conv(x, dy, kernel_shape=[q.out] * 2, dilations=[q.stride] * 2, pads=[q.pad] * 4, group=q.group)
        return self.Transpose(self.Slice(result, [0, 0], [q.k, q.k], [2, 3]), perm=[1, 0, 2, 3])

    def form_patches(self):
        q = self.layer
        x = self.Reshape("x", [q.n, q.c, q.out, q.k, q.out, q.k])
        x = self.Reshape(self.Transpose(x, perm=[0, 2, 4, 1, 3, 5]), [-1, q.c * q.k**2])
        return self.Reshape(self.MatMul(self.rows_of_dy(), x), [q.o, q.c, q.k, q.k])

    def form_elements(self):
        products = [self.Mul(c, "dy") for c in self.cells(self.padded(), 2)]
        return self.stacked([self.ReduceSum(p, [0, 2, 3], keepdims=0) for p in products])


def runtime(models, layer, threads, rounds):
    """Milliseconds in ONNX Runtime; fails unless all forms agree."""
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal(layer.x, np.float32), "dy": rng.standard_normal(layer.dy, np.float32)}
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    providers = ["CPUExecutionProvider"]
    sessions = {form: ort.InferenceSession(m.SerializeToString(), options, providers) for form, m in models.items()}
    clock = time.thread_time if threads == 1 else time.perf_counter
    times, expected = {form: [] for form in models}, None
    for turn in range(rounds + 1):
        for form, session in sessions.items():
            start = clock()
            (dw,) = session.run(None, inputs)
            taken = clock() - start
            if turn:
                times[form].append(taken * 1e3)
                continue
            expected = dw if expected is None else expected
            error = np.abs(dw - expected).max() / np.abs(expected).max()
            assert dw.shape == expected.shape and error < 1e-4, f"{layer.name}: {form}: {dw.shape}, {error:.1e}"
    return {form: np.median(taken) for form, taken in times.items()}


def tract(models, latency, rounds):
    """Milliseconds on the default engine."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {str(pathlib.Path(folder, f"{form}.onnx")): form for form in models}
        for path, form in paths.items():
            onnx.save(models[form], path)
        done = subprocess.run([latency, str(rounds), *paths], capture_output=True, text=True, check=True)
        lines = (line.rsplit(" ", 1) for line in done.stdout.splitlines())
        return {paths[path]: float(taken) for path, taken in lines}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--latency", metavar="EXE")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    p.add_argument("--only", default="", metavar="TEXT")
    args = p.parse_args()
    for layer in (layer for layer in LAYERS if args.only in layer.name):
        models = {form: Graph(layer).model(form) for form in layer.forms()}
        measured = {f"ONNX Runtime, {n} threads": runtime(models, layer, n, args.rounds) for n in args.threads}
        if args.latency:
            measured["tract"] = tract(models, args.latency, args.rounds)
        chosen = layer.chosen()
        print(f"{layer.name}: {chosen}")
        for where, times in measured.items():
            ratios = (f"{form} {taken / times[chosen]:.2f}" for form, taken in times.items() if form != chosen)
            print(f"    {where}: {times[chosen]:.1f} ms; {', '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
