"""Count the arithmetic of explanation graphs, and compare it with a forward pass and an ideal backward pass.

    arithmetic.py --bcosc target/release/bcosc [--size 224] [--limit 1.3] MODEL.onnx...

Each model is converted with `--emit explain`. Products of convolutions and matrices are counted as multiply-adds,
exactly; other arithmetic as operations on elements: one per element of the output, or of the input for pools and
reductions. Structural operators, and those that do not depend on the input, count nothing.
The ideal is the forward pass, plus the same again for each node that the explanation differentiates.
Shapes are those of a run in ONNX Runtime, unoptimised. `--kinds` lists the
operations on elements by operator. Exits with 1 if a ratio is over the limit. Needs requirements.txt.
"""

import argparse
import math
import os
import sys
import tempfile
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort

from common import bcosc, last_line, table

MOVES = set("""Reshape Flatten Squeeze Unsqueeze Transpose Concat Slice Split Gather GatherND GatherElements Expand Tile
    Pad Identity Cast CastLike Shape Size ConstantOfShape Constant Range EyeLike DepthToSpace SpaceToDepth
    ScatterND ScatterElements Dropout Trilu""".split())


def shapes(model, feed):
    """Dimensions and types of every value, from a run."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {o.name for o in probe.graph.output}
    for node in probe.graph.node:
        probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name and name not in known)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {i.name: feed[i.name] for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    found = {name: (value.shape, value.dtype) for name, value in zip(names, session.run(names, feed))}
    found |= {name: (value.shape, value.dtype) for name, value in feed.items()}
    for tensor in model.graph.initializer:
        found[tensor.name] = (tuple(tensor.dims), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    return found


def cost(node, found):
    """(multiply-adds, operations on elements) of a node."""
    operands = [found[name][0] if name else None for name in node.input]
    out = found[node.output[0]][0]
    size = math.prod(out)
    attributes = {a.name: a for a in node.attribute}
    kind = node.op_type
    if kind == "Conv":
        return size * math.prod(operands[1][1:]), 0
    if kind == "ConvTranspose":
        return math.prod(operands[0]) * math.prod(operands[1][1:]), 0
    if kind == "MatMul":
        return size * operands[0][-1], 0
    if kind == "Gemm":
        turned = "transA" in attributes and attributes["transA"].i
        return size * operands[0][0 if turned else 1], 0
    if kind == "Einsum":
        equation = attributes["equation"].s.decode().replace(" ", "").split("->")[0].split(",")
        return math.prod({c: d for term, dims in zip(equation, operands) for c, d in zip(term, dims)}.values()), 0
    if kind in MOVES or not np.issubdtype(found[node.output[0]][1], np.floating) and size <= 64:
        return 0, 0
    if kind.endswith("Pool"):
        cells = math.prod(attributes["kernel_shape"].ints) if "kernel_shape" in attributes else 0
        return 0, size * cells if cells else math.prod(operands[0])
    if kind.startswith(("Reduce", "Arg")):
        return 0, math.prod(operands[0])
    return 0, size


def dependent(graph):
    """Nodes that depend on inputs, and not just on their shapes."""
    names = {i.name for i in graph.input} - {t.name for t in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type not in ("Shape", "Size") and names & set(node.input):
            names |= set(node.output)
            found.append(node)
    return found


def needed_for(graph, output):
    """Names of the nodes that a value needs."""
    maker = {name: node for node in graph.node for name in node.output}
    seen, open_ = set(), [output]
    while open_:
        node = maker.get(open_.pop())
        if node is not None and node.output[0] not in seen:
            seen.add(node.output[0])
            open_.extend(node.input)
    return seen


def count(path, feed):
    """Costs of a graph that explains: {part: [multiply-adds, operations on elements]}, and the latter by operator."""
    model = onnx.load(path)
    graph, found = model.graph, shapes(model, feed)
    forward = needed_for(graph, graph.output[0].name)
    nodes = dependent(graph)
    back = [node for node in nodes if node.output[0] not in forward]
    origin = lambda node: next((p.value for p in node.metadata_props if p.key == "bcosc.origin"), "")
    path_back = {origin(node) for node in back}
    sums = {"forward": np.zeros(2), "ideal": np.zeros(2), "back": np.zeros(2)}
    by_kind = {part: Counter() for part in sums}
    for node in nodes:
        spent = np.array(cost(node, found), float)
        if node.output[0] not in forward:
            parts = ["back"]
        else:
            parts = ["forward", "ideal"] if (node.name or node.output[0]) in path_back else ["forward"]
        for part in parts:
            sums[part] += spent
            by_kind[part][node.op_type] += spent[1]
    return sums, by_kind


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--limit", type=float, default=1.3)
    p.add_argument("--kinds", action="store_true")
    p.add_argument("models", nargs="+", metavar="MODEL.onnx")
    args = p.parse_args()
    rows, failed = [], False
    x = np.random.default_rng(0).normal(size=(1, 3, args.size, args.size)).astype(np.float32)
    for model in args.models:
        name = os.path.basename(model).removesuffix(".onnx")
        with tempfile.TemporaryDirectory() as tmp:
            out = os.path.join(tmp, "out.onnx")
            code, err = bcosc(args.bcosc, model, "-o", out, "--emit", "explain", "--verify", "off", "-q")
            if code:
                rows.append([name, f"FAIL exit code {code}: {last_line(err)}"] + [""] * 7)
                failed = True
                continue
            path = os.path.join(tmp, "out.explain.onnx")
            graph = onnx.load(path, load_external_data=False).graph
            image, target = (i.name for i in graph.input)
            sums, by_kind = count(path, {image: x, target: np.array([-1])})
        forward, ideal, back = sums["forward"], sums["ideal"], sums["back"]
        ratios = [*((forward + back) / (forward + ideal)), (forward + back).sum() / (forward + ideal).sum()]
        failed |= max(ratios[0], ratios[2]) > args.limit
        millions = [f"{v / 1e6:.1f}" for pair in zip(forward, back, ideal) for v in pair]
        rows.append([name, *(f"{'FAIL ' if i != 1 and r > args.limit else ''}{r:.3f}" for i, r in enumerate(ratios)),
                     " ".join(millions[:3]), " ".join(millions[3:])])
        if args.kinds:
            for part, counts in by_kind.items():
                kinds = ", ".join(f"{kind} {n / 1e6:.1f}" for kind, n in counts.most_common() if n >= 5e4)
                print(f"{name}, {part}: {kinds}")
    rows = [row + [""] * (6 - len(row)) for row in rows]
    heads = ["model", "multiply-adds", "elements", "together", "millions: forward back ideal", "elements: the same"]
    print(table(heads, [row[:6] for row in rows]))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
