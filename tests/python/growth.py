"""How the time of a conversion grows with the size of the graph.

    growth.py --bcosc target/release/bcosc [--models DIR] [--repeats 3] [--extra FLAGS]

depth    a ViT and a Swin transformer with 1, 2, 4 and 8 times the layers, exported through TorchScript (no
         optimiser: its graphs have the most nodes), converted with `--verify off`. Twice the layers may take at
         most 3 times as long: linear passes double, quadratic ones quadruple.
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

import onnx

from common import bcosc, last_line, table

TIMES = (1, 2, 4, 8)
DOUBLED_LIMIT, FORM_LIMIT = 3.0, 5.0


def vit(times):
    from torchvision.models import VisionTransformer

    return VisionTransformer(image_size=64, patch_size=16, num_layers=3 * times, num_heads=4, hidden_dim=64,
                             mlp_dim=128, num_classes=10)


def swin(times):
    from torchvision.models import SwinTransformer

    return SwinTransformer(patch_size=[4, 4], embed_dim=32, depths=[2 * times, 2 * times], num_heads=[2, 4],
                           window_size=[4, 4], num_classes=10)


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


def cost(exe, model, out, repeats, extra):
    """(CPU seconds, wall seconds) of one conversion, each the least of several."""
    runs = []
    for _ in range(repeats):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        code, err = bcosc(exe, model, "-o", out, "--verify", "off", "-q", *extra)
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
        measure = lambda model: cost(args.bcosc, model, out, args.repeats, args.extra.split())
        for build in (vit, swin):
            before = None
            for times in TIMES:
                model = export(build(times), 64, os.path.join(tmp, "model.onnx"), dynamo=False)
                cpu, wall = measure(model)
                limit = DOUBLED_LIMIT if before else None
                rows.append(row(f"{build.__name__} x{times}", model, cpu, wall, cpu / (before or cpu), limit))
                print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
                before = cpu
        folder = args.models or tmp
        models = [(form, swin_t(folder, form)) for form in ("dynamo", "ts")]
        (folded, folded_wall), (traced, traced_wall) = (measure(model) for _, model in models)
        rows.append(row("swin_t dynamo", models[0][1], folded, folded_wall, 1, None))
        rows.append(row("swin_t ts", models[1][1], traced, traced_wall, traced / folded, FORM_LIMIT))
    print(table(["model", "nodes", "CPU", "wall", "of the one before", ""], rows))
    sys.exit(any(r[-1] for r in rows))


if __name__ == "__main__":
    main()
