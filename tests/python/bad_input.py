"""Broken, hostile and unsupported input must end in a clear error, never in a panic or a partial output.

    bad_input.py --bcosc target/release/bcosc --model MODEL [--flips 1000] [--jobs 2]

MODEL is a small convolutional network. Made from it: every prefix in 1 % steps; seeded byte flips, half of
them outside the weights; bad external data (missing, short, out of range, `..`, absolute, symlinks); cycles,
duplicate and undefined names; impossible dimensions; deep nesting; an unsupported op; files of other kinds;
places that cannot be written to.
A case passes if bcosc exits with a code that is neither 0, a panic's (101) nor a signal, within a minute and
2 GiB, says `error: ...` naming the file (or what else the case demands), and leaves nothing behind.
A flip may also be harmless (exit code 0). Exits with 1 if any case failed.
Needs requirements.txt.
"""

import argparse
import collections
import concurrent.futures
import os
import random
import shutil
import sys
import tempfile
import threading

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MEMORY = 2 << 30
SECONDS = 60


def execute(argv, errors):
    """(exit code or minus signal, stderr, peak memory in bytes, timed out?)"""
    with open(errors, "wb") as stderr, open(os.devnull, "wb") as null:
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=[
            (os.POSIX_SPAWN_DUP2, null.fileno(), 1), (os.POSIX_SPAWN_DUP2, stderr.fileno(), 2)])
        late = threading.Event()
        timer = threading.Timer(SECONDS, lambda: (late.set(), os.kill(pid, 9)))
        timer.start()
        _, status, usage = os.wait4(pid, 0)
        timer.cancel()
    with open(errors, errors="replace") as f:
        return os.waitstatus_to_exitcode(status), f.read(), usage.ru_maxrss * 1024, late.is_set()


class Case:
    """A file to convert and the expected result.

    `make(path)` returns the file's bytes, or makes what should be there itself. `names`: what the error must
    name beside the file. `wants`: "error", "fine" or "either". `out`: where the output goes.
    """

    def __init__(self, name, make, names=(), wants="error", out="out.onnx"):
        self.name, self.make, self.names, self.wants, self.out = name, make, names, wants, out

    def judge(self, exe, tmp):
        """None, or what is wrong."""
        folder = tempfile.mkdtemp(dir=tmp)
        source, results = os.path.join(folder, "in"), os.path.join(folder, "results")
        os.mkdir(source)
        os.mkdir(results)
        path = os.path.join(source, "model.onnx")
        made = self.make(path)
        if isinstance(made, bytes):
            with open(path, "wb") as f:
                f.write(made)
        inputs = sorted(os.listdir(source))
        out = os.path.join(results, self.out)
        if self.out == "file/out.onnx":
            open(os.path.join(results, "file"), "w").close()
        elif self.out == "folder":
            os.mkdir(out)
        before = sorted(os.listdir(results))
        code, err, memory, late = execute([exe, path, "-o", out], os.path.join(folder, "stderr"))
        after = sorted(os.listdir(results))
        named = path if self.out == "out.onnx" else os.path.basename(self.out)

        def verdict():
            if late:
                return f"no end within {SECONDS} s"
            if "panicked" in err or code == 101:
                return f"panic: {next((l for l in err.splitlines() if 'panicked' in l), err[:200])}"
            if code < 0:
                return f"killed by signal {-code}: {err[:200]}"
            if memory > MEMORY:
                return f"took {memory >> 20} MiB"
            if sorted(os.listdir(source)) != inputs:
                return f"wrote beside the input: {os.listdir(source)}"
            if code == 0:
                return "accepted" if self.wants == "error" else None
            if self.wants == "fine":
                return f"exit code {code}: {err[:300]}"
            if after != before:
                return f"left behind: {after}"
            line = next((l for l in err.splitlines() if l.startswith("error:")), None)
            if line is None:
                return f"no line starts with 'error:': {err[:200]!r}"
            missing = [n for n in (os.path.basename(named), *self.names) if n not in err]
            return f"{missing} not named in {err[:300]!r}" if missing else None

        problem = verdict()
        shutil.rmtree(folder)
        return code, problem


def external(model, location="weights.bin", offset=None, length=None):
    """The model with its largest initializer in a file of its own; returns (model, that file's bytes)."""
    m = onnx.ModelProto()
    m.CopyFrom(model)
    t = max(m.graph.initializer, key=lambda t: len(t.raw_data))
    data = t.raw_data
    t.ClearField("raw_data")
    t.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            t.external_data.add(key=key, value=str(value))
    return m, data


def edited(model, edit):
    m = onnx.ModelProto()
    m.CopyFrom(model)
    edit(m.graph)
    return m.SerializeToString()


def nested(depth):
    """A model whose graph holds `depth` If nodes inside one another, built from bytes: no library nests so deep."""

    def field(number, payload):
        size, n = bytearray(), len(payload)
        while n >= 128:
            size.append(n & 127 | 128)
            n >>= 7
        return bytes([number << 3 | 2]) + bytes([*size, n]) + payload

    graph = b""
    for _ in range(depth):  # AttributeProto.g = 6, NodeProto.attribute = 5, GraphProto.node = 1
        attribute = field(1, b"then_branch") + field(6, graph)
        graph = field(1, field(4, b"If") + field(5, attribute))
    return bytes([1 << 3, 10]) + field(7, graph) + field(8, bytes([2 << 3, 17]))


def cases(model, data, flips, seed):
    first = next(n for n in model.graph.node if n.op_type == "Conv")
    weight = max(model.graph.initializer, key=lambda t: len(t.raw_data)).name
    node = helper.make_node

    for percent in range(100):
        yield Case(f"prefix/{percent}", lambda _, p=percent: data[: len(data) * p // 100])

    # half of the flips go where they hurt: outside the weights
    inside = np.zeros(len(data), bool)
    for t in model.graph.initializer:
        if len(t.raw_data) > 64:
            at = data.find(t.raw_data)
            inside[at : at + len(t.raw_data)] = True
    structure = np.flatnonzero(~inside)
    rng = random.Random(seed)
    for i in range(flips):
        at = int(rng.choice(structure)) if i % 2 else rng.randrange(len(data))
        value = rng.randrange(1, 256)
        yield Case(f"flip/{at}^{value}", lambda _, a=at, v=value: data[:a] + bytes([data[a] ^ v]) + data[a + 1 :],
                   wants="either")

    def outside(path, make_link):
        """External data that exists, but outside the model's folder."""
        m, raw = external(model)
        target = os.path.join(os.path.dirname(os.path.dirname(path)), "outside.bin")
        with open(target, "wb") as f:
            f.write(raw)
        m.graph.initializer[[t.name for t in m.graph.initializer].index(weight)].external_data[0].value = make_link(target)
        return m.SerializeToString()

    def link(path, to_folder):
        folder = os.path.dirname(path)

        def make(target):
            if to_folder:
                os.symlink(os.path.dirname(target), os.path.join(folder, "sub"))
                return "sub/outside.bin"
            os.symlink(target, os.path.join(folder, "link.bin"))
            return "link.bin"

        return outside(path, make)

    def beside(path, keep=1.0, **where):
        m, raw = external(model, **where)
        with open(os.path.join(os.path.dirname(path), "weights.bin"), "wb") as f:
            f.write(raw[: int(len(raw) * keep)])
        return m.SerializeToString()

    yield Case("external/fine", beside, wants="fine")
    yield Case("external/missing", lambda _: external(model)[0].SerializeToString(), [weight])
    yield Case("external/short", lambda p: beside(p, keep=0.5), [weight])
    yield Case("external/empty", lambda p: beside(p, keep=0), [weight])
    for name, where in {
        "offset past the end": {"offset": 1 << 40}, "offset negative": {"offset": -4},
        "offset overflows": {"offset": (1 << 64) - 4, "length": 8}, "offset no number": {"offset": "x"},
        "length too large": {"length": 1 << 60}, "length too small": {"length": 4},
        "length negative": {"length": -1},
    }.items():
        yield Case(f"external/{name}", lambda p, w=where: beside(p, **w), [weight])
    yield Case("external/no location", lambda _: external(model, location=None)[0].SerializeToString(), [weight])
    yield Case("external/empty location", lambda _: external(model, location="")[0].SerializeToString(), [weight])
    yield Case("external/a folder", lambda _: external(model, location=".")[0].SerializeToString(), [weight])
    yield Case("external/device", lambda _: external(model, location="/dev/zero")[0].SerializeToString(), [weight])
    yield Case("external/..", lambda p: outside(p, lambda t: "../" + os.path.basename(t)), [weight])
    yield Case("external/sub/../..", lambda p: outside(p, lambda t: "sub/../../" + os.path.basename(t)), [weight])
    yield Case("external/absolute", lambda p: outside(p, lambda t: t), [weight])
    yield Case("external/symlink out", lambda p: link(p, False), [weight])
    yield Case("external/symlinked folder", lambda p: link(p, True), [weight])

    def graph(name, edit, names=(), **kwargs):
        return Case(f"graph/{name}", lambda _: edited(model, edit), names, **kwargs)

    def add(g, *nodes):
        g.node.extend(nodes)

    def set_dims(dims):
        def edit(g):
            t = next(t for t in g.initializer if t.name == weight)
            t.ClearField("dims")
            t.dims.extend(dims)
        return edit

    def to_first(g, **fields):
        n = next(n for n in g.node if n.op_type == "Conv")
        for k, v in fields.items():
            setattr(n, k, v)

    def read_own_output(g):
        n = next(n for n in g.node if n.op_type == "Conv")
        n.input[0] = n.output[0]

    yield graph("self cycle", read_own_output)
    yield graph("cycle", lambda g: (add(g, node("Relu", ["loop_b"], ["loop_a"], "turn_a"),
                                        node("Relu", ["loop_a"], ["loop_b"], "turn_b"),
                                        node("Add", [g.output[0].name, "loop_a"], ["looped"], "turn_c")),
                                    setattr(g.output[0], "name", "looped")))
    yield graph("value computed twice", lambda g: add(g, node("Relu", [g.input[0].name], [first.output[0]], "twin")),
                [first.output[0]])
    yield graph("initializer twice", lambda g: g.initializer.append(g.initializer[0]))
    yield graph("input twice", lambda g: g.input.append(g.input[0]))
    yield graph("node writes an initializer", lambda g: add(g, node("Relu", [g.input[0].name], [weight], "twin")), [weight])
    yield graph("undefined value", lambda g: to_first(g) or next(
        n for n in g.node if n.op_type == "Conv").input.__setitem__(0, "nowhere"), ["nowhere"])
    yield graph("undefined output", lambda g: setattr(g.output[0], "name", "nowhere"), ["nowhere"])
    yield graph("no outputs", lambda g: g.ClearField("output"))
    yield graph("convolution without weights", lambda g: next(
        n for n in g.node if n.op_type == "Conv").input.__delitem__(slice(1, None)))
    yield graph("unsupported op", lambda g: (
        add(g, node("Mystery", [g.output[0].name], ["mystery_out"], "the_mystery_node", domain="com.example")),
        setattr(g.output[0], "name", "mystery_out")), ["Mystery", "the_mystery_node"])
    yield graph("unknown op of the standard", lambda g: (
        add(g, node("Mystery", [g.output[0].name], ["mystery_out"], "the_mystery_node")),
        setattr(g.output[0], "name", "mystery_out")), ["Mystery", "the_mystery_node"])
    for name, dims in {"2^60": [1 << 60], "overflow": [1 << 32, 1 << 32], "overflow of bytes": [1 << 62],
                       "negative": [-4, 16], "too few": [1], "too many": [1 << 33]}.items():
        yield graph(f"dims {name}", set_dims(dims), [weight])
    yield graph("fill of 2^60", lambda g: (
        g.initializer.append(numpy_helper.from_array(np.array([1 << 60], np.int64), "huge_shape")),
        add(g, node("ConstantOfShape", ["huge_shape"], ["huge"], "the_huge_node"),
            node("ReduceMax", ["huge"], ["huge_max"], "huge_reduce", keepdims=0),
            node("Add", [g.output[0].name, "huge_max"], ["huge_out"], "huge_add")),
        setattr(g.output[0], "name", "huge_out")), wants="either")
    yield graph("kernel of 2^60", lambda g: next(
        a for n in g.node if n.op_type == "Conv" for a in n.attribute if a.name == "kernel_shape"
    ).ints.__setitem__(0, 1 << 60))
    yield graph("stride of 0", lambda g: next(
        a for n in g.node if n.op_type == "Conv" for a in n.attribute if a.name == "strides"
    ).ints.__setitem__(0, 0))
    yield graph("group of 0", lambda g: setattr(next(
        a for n in g.node if n.op_type == "Conv" for a in n.attribute if a.name == "group"), "i", 0))
    yield graph("attribute twice", lambda g: next(n for n in g.node if n.op_type == "Conv").attribute.append(
        helper.make_attribute("group", 2)))
    yield Case("graph/nested 2,000 deep", lambda _: nested(2_000))
    yield Case("graph/nested 20,000 deep", lambda _: nested(20_000))
    yield Case("graph/no opset", lambda _: onnx.ModelProto(graph=model.graph, ir_version=8).SerializeToString())
    yield Case("graph/opset of the future", lambda _: onnx.ModelProto(
        graph=model.graph, ir_version=8, opset_import=[helper.make_opsetid("", 9999)]).SerializeToString())
    yield Case("graph/no graph", lambda _: onnx.ModelProto(ir_version=8).SerializeToString())

    jpeg = bytes.fromhex("ffd8ffe000104a46494600010101006000600000ffdb0043") + bytes(range(256)) * 8
    header = b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    yield Case("file/empty", lambda _: b"")
    yield Case("file/jpeg", lambda _: jpeg)
    yield Case("file/safetensors", lambda _: len(header).to_bytes(8, "little") + header + bytes(16))
    yield Case("file/text", lambda _: b"Dear compiler,\nplease convert me.\n")
    yield Case("file/zeros", lambda _: bytes(1 << 16))
    yield Case("file/ones", lambda _: b"\xff" * (1 << 16))
    yield Case("file/a folder", lambda p: os.mkdir(p))
    yield Case("file/missing", lambda _: None)
    yield Case("file/dangling link", lambda p: os.symlink("nowhere", p))
    yield Case("output/folder missing", lambda _: data, out="missing/out.onnx")
    yield Case("output/folder is a file", lambda _: data, out="file/out.onnx")
    yield Case("output/is a folder", lambda _: data, out="folder")
    yield Case("output/read-only file system", lambda _: data, out="/proc/bcosc-out.onnx")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--flips", type=int, default=1000)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--only", default="", help="only cases whose name starts with this")
    args = p.parse_args()
    exe = os.path.abspath(args.bcosc)
    with open(args.model, "rb") as f:
        data = f.read()
    model = onnx.load_from_string(data)

    todo = [c for c in cases(model, data, args.flips, args.seed) if c.name.startswith(args.only)]
    with tempfile.TemporaryDirectory() as tmp, concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda c: (c.name, *c.judge(exe, tmp)), todo))

    total, codes, bad = collections.Counter(), collections.Counter(), 0
    for name, code, problem in results:
        total[name.split("/")[0]] += 1
        codes[code] += 1
        if problem:
            bad += 1
            print(f"FAIL {name}: {problem}")
    print("cases:", ", ".join(f"{k} {v}" for k, v in total.items()))
    print("exit codes:", ", ".join(f"{k}: {v}" for k, v in sorted(codes.items())))
    print(f"{len(results) - bad} of {len(results)} passed")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
