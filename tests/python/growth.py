"""How the time of a conversion grows with the size of the graph.

    growth.py --bcosc target/release/bcosc [--models DIR] [--repeats 3] [--extra FLAGS]

depth    a ViT and a Swin transformer with 1, 2, 4 and 8 times the layers, exported through TorchScript (no
         optimiser: its graphs have the most nodes), converted with `--verify off`. Twice the layers may take at
         most 3 times as long: linear passes double, quadratic ones quadruple.
proof    a chain of 100, 200, 400 and 800 residual blocks on small images, converted with the proof on: the same limit.
form     torchvision's swin_t from the TorchScript exporter (thousands of shape nodes) against its folded dynamo
         export: at most 5 times as long. With --models, DIR/swin_t.{ts,dynamo}.onnx are taken from there.

Times are the CPU time of the process, the least of several runs, so that a busy machine matters little; wall
times are printed too. Exits with 1 if anything took too long or failed.
Needs requirements-torch.txt.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common import bcosc, last_line, table

TIMES = (1, 2, 4, 8)
BLOCKS = 100
DOUBLED_LIMIT, FORM_LIMIT = 3.0, 5.0


def vit(times):
    from torchvision.models import VisionTransformer

    return VisionTransformer(image_size=64, patch_size=16, num_layers=3 * times, num_heads=4, hidden_dim=64,
                             mlp_dim=128, num_classes=10)


def swin(times):
    from torchvision.models import SwinTransformer

    return SwinTransformer(patch_size=[4, 4], embed_dim=32, depths=[2 * times, 2 * times], num_heads=[2, 4],
                           window_size=[4, 4], num_classes=10)


def chain(blocks, path):
    """Convolution, batch norm, ReLU, scale and sum, so many times: little arithmetic, many nodes."""
    random, nodes, weights, channels = np.random.default_rng(0), [], [], 4

    def weight(name, array):
        weights.append(numpy_helper.from_array(np.asarray(array, dtype=np.float32), name))
        return name

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    normal = lambda *shape: random.normal(size=shape)
    value = node("Conv", ["image", weight("stem", normal(channels, 3, 1, 1) / 2)], "stem_out")
    for i in range(blocks):
        mixed = node("Conv", [value, weight(f"w{i}", normal(channels, channels, 1, 1) / 2)], f"mixed{i}")
        statistics = {"gamma": 1 + normal(channels) / 10, "beta": normal(channels) / 10,
                      "mean": normal(channels) / 10, "var": 1 + random.random(channels)}
        operands = [weight(f"{name}{i}", array) for name, array in statistics.items()]
        normed = node("BatchNormalization", [mixed, *operands], f"normed{i}")
        active = node("Relu", [normed], f"active{i}")
        scaled = node("Mul", [active, weight(f"scale{i}", 0.1 + random.random() / 100)], f"scaled{i}")
        value = node("Add", [value, scaled], f"sum{i}")
    pooled = node("Flatten", [node("GlobalAveragePool", [value], "pooled")], "flat")
    node("Gemm", [pooled, weight("head", normal(channels, 10)), weight("bias", normal(10))], "logits")
    tensor = lambda name, *dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    graph = helper.make_graph(nodes, "chain", [tensor("image", "N", 3, 8, 8)], [tensor("logits", "N", 10)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def export(net, side, path, dynamo):
    import torch

    x, names = torch.rand(2, 3, side, side), {"input_names": ["input"], "output_names": ["logits"]}
    if dynamo:
        torch.onnx.export(net.eval(), (x,), path, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
                          external_data=False, verbose=False, **names)
    else:
        torch.onnx.export(net.eval(), (x,), path, dynamo=False, opset_version=17,
                          dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}}, **names)
    return path


def swin_t(folder, form):
    import torchvision

    path = os.path.join(folder, f"swin_t.{form}.onnx")
    if not os.path.exists(path):
        export(torchvision.models.swin_t(weights=None), 224, path, form == "dynamo")
    return path


def cost(exe, model, out, repeats, flags):
    """(CPU seconds, wall seconds) of one conversion, each the least of several."""
    runs = []
    for _ in range(repeats):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        code, err = bcosc(exe, model, "-o", out, "-q", *flags)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if code != 0:
            raise SystemExit(f"{model}: exit code {code}: {last_line(err)}")
        runs.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall))
    return min(cpu for cpu, _ in runs), min(wall for _, wall in runs)


def row(name, model, cpu, wall, ratio, limit):
    nodes = len(onnx.load(model, load_external_data=False).graph.node)
    judged = "" if limit is None else f"{ratio:.2f} (limit {limit:g})"
    return [name, nodes, f"{cpu:.2f} s", f"{wall:.2f} s", judged, "FAIL" if limit and ratio > limit else ""]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--models", metavar="DIR", help="where swin_t's exports are")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--extra", default="", help="more flags for bcosc, in one string")
    args = p.parse_args()
    warnings.filterwarnings("ignore")

    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "out.onnx")
        path = os.path.join(tmp, "model.onnx")
        extra = args.extra.split()
        measure = lambda model, *flags: cost(args.bcosc, model, out, args.repeats, [*flags, *extra])
        off = ("--verify", "off")
        depths = {
            "vit": (lambda times: export(vit(times), 64, path, dynamo=False), off),
            "swin": (lambda times: export(swin(times), 64, path, dynamo=False), off),
            "chain, proved": (lambda times: chain(BLOCKS * times, path), ()),
        }
        for name, (build, flags) in depths.items():
            before = None
            for times in TIMES:
                model = build(times)
                cpu, wall = measure(model, *flags)
                limit = DOUBLED_LIMIT if before else None
                rows.append(row(f"{name} x{times}", model, cpu, wall, cpu / (before or cpu), limit))
                print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
                before = cpu
        folder = args.models or tmp
        models = [(form, swin_t(folder, form)) for form in ("dynamo", "ts")]
        (folded, folded_wall), (traced, traced_wall) = (measure(model, *off) for _, model in models)
        rows.append(row("swin_t dynamo", models[0][1], folded, folded_wall, 1, None))
        rows.append(row("swin_t ts", models[1][1], traced, traced_wall, traced / folded, FORM_LIMIT))
    print(table(["model", "nodes", "CPU", "wall", "of the one before", ""], rows))
    sys.exit(any(r[-1] for r in rows))


if __name__ == "__main__":
    main()
