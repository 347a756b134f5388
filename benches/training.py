"""Seconds per training step against PyTorch eager, on the same B-cos networks, in one run.

    training.py --bcosc target/release/bcosc [--threads 2] [--steps 5] [--profile target/release/examples/profile] [NETWORK ...]

The networks are resnet20 (32x32, batch 128), resnet50 and vit_b_16 (224x224, batch 8), with random weights. PyTorch runs a B-cos
network made of the original by replacing modules: forward, binary cross-entropy, backward and AdamW. ONNX Runtime runs the
training-step graph that bcosc writes of the exported original; tract runs it too with --profile (`cargo build --release
--workspace --example profile`), on one thread and in processor time, and prints where its time goes. They take turns, each in a process of
its own; medians of the steps after the first count. Peak memory is that of the process. Prints seconds, ratios, and the floor: multiply-adds of the step's convolutions and products over the rate of a large matrix
product. On a machine that does other work, `--threads 1 --processor` compares processor time instead of wall time. Needs tests/python/requirements-torch.txt.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

CLOCK = time.process_time if "--processor" in sys.argv else time.perf_counter
NETWORKS = {"resnet20": (128, 32, 10), "resnet50": (8, 224, 1000), "vit_b_16": (8, 224, 1000)}


def original(name):
    import torch
    import torchvision
    from torch import nn

    torch.manual_seed(0)
    if name != "resnet20":
        return getattr(torchvision.models, name)(weights=None).eval()

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.relu = nn.ReLU()
            self.down = None
            if stride > 1 or inputs != outputs:
                self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            return self.relu(y + (x if self.down is None else self.down(x)))

    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    inputs = 16
    for outputs, stride in ((16, 1), (32, 2), (64, 2)):
        for index in range(3):
            layers.append(Block(inputs, outputs, stride if index == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()


def bcos(net):
    """The B-cos network of a network: B = 2, no biases, uncentred norms, average pools, head before pooling left as it is."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Conv(nn.Module):
        def __init__(self, conv, doubled):
            super().__init__()
            weight = torch.cat([conv.weight, -conv.weight], 1) / 2 if doubled else conv.weight
            self.weight = nn.Parameter(weight.detach().clone())
            self.how = (conv.stride, conv.padding, conv.dilation, conv.groups)
            self.register_buffer("ones", torch.ones(conv.groups, 1, *conv.kernel_size))
            self.groups = conv.groups

        def forward(self, x):
            stride, padding, dilation, groups = self.how
            y = F.conv2d(x, self.weight, None, stride, padding, dilation, groups)
            n, c, h, w = x.shape
            squares = (x * x).view(n, groups, c // groups, h, w).sum(2)
            norm = (F.conv2d(squares, self.ones, None, stride, padding, dilation, groups) + 1e-6).sqrt()
            if groups > 1:
                norm = norm.repeat_interleave(y.shape[1] // groups, 1)
            return y * (y.abs() / norm)

    class Linear(nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.weight = linear.weight

        def forward(self, x):
            y = F.linear(x, self.weight)
            return y * (y.abs() / (x.norm(dim=-1, keepdim=True) + 1e-12))

    class Norm(nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.weight, self.eps = norm.weight, norm.eps
            self.register_buffer("running_var", norm.running_var.clone())

        def forward(self, x):
            var = x.var((0, 2, 3), unbiased=False)
            self.running_var.mul_(0.9).add_(0.1 * var.detach())
            return x * (self.weight / (var + self.eps).sqrt())[:, None, None]

    class Double(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(torch.cat([x, -x], 1))

    first = [True]

    def replace(module):
        for name, child in module.named_children():
            if isinstance(child, nn.MultiheadAttention):
                child.in_proj_bias = None
                child.out_proj.bias = None
            elif isinstance(child, nn.Conv2d):
                setattr(module, name, Conv(child, first[0]))
                first[0] = False
            elif isinstance(child, nn.Linear):
                setattr(module, name, Linear(child))
            elif isinstance(child, nn.BatchNorm2d):
                setattr(module, name, Norm(child))
            elif isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, nn.LayerNorm):
                child.bias = None
            else:
                replace(child)

    replace(net)
    return Double(net)


def report(seconds, extra=None):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak": peak, **(extra or {})}), flush=True)


def pytorch(name, threads, steps):
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    batch, side, classes = NETWORKS[name]
    net = bcos(original(name)).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.0)
    x, labels = torch.randn(batch, 3, side, side), torch.randint(classes, (batch,))
    targets = torch.full((batch, classes), 1 / classes).scatter_(1, labels[:, None], 1.0)
    seconds = []
    for _ in range(steps + 1):
        begin = CLOCK()
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(net(x), targets).backward()
        optimizer.step()
        seconds.append(CLOCK() - begin)
    size = 1024
    a, b = torch.randn(size, size), torch.randn(size, size)
    begin = CLOCK()
    for _ in range(20):
        a @ b
    rate = 20 * size**3 / (CLOCK() - begin)
    report(seconds[1:], {"rate": rate})


def onnxruntime(path, threads, steps, name):
    import onnx
    import onnxruntime as ort
    from safetensors.numpy import load_file

    batch, side, classes = NETWORKS[name]
    entries = {e.key: e.value for e in onnx.load(path, load_external_data=False).metadata_props}
    pairs = json.loads(entries["bcosc.training.state"])
    state = load_file(str(path).removesuffix(".onnx") + ".safetensors")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = [o.name for o in session.get_outputs()]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 3, side, side)).astype(np.float32)
    labels = rng.integers(0, classes, batch)
    values = {name: ort.OrtValue.ortvalue_from_numpy(x) for name, x in state.items()}
    seconds = []
    for step in range(steps + 1):
        begin = CLOCK()
        given = {
            session.get_inputs()[0].name: x, "targets": labels, "learning_rate": np.array(1e-4, np.float32), "step": np.array(step + 1),
        }
        feeds = {name: ort.OrtValue.ortvalue_from_numpy(x) for name, x in given.items()} | values
        found = dict(zip(outputs, session.run_with_ort_values(outputs, feeds)))
        values = {name: found[following] for name, following, _ in pairs}
        seconds.append(CLOCK() - begin)
    report(seconds[1:])


def child(*arguments):
    flags = ["--processor"] if "--processor" in sys.argv else []
    done = subprocess.run([sys.executable, __file__, *map(str, arguments), *flags], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def tract(profile, path, steps, name):
    """Seconds per step, and the table of the profile. Freed memory is kept, as `bcosc` keeps it."""
    import onnx

    batch, _, _ = NETWORKS[name]
    model = onnx.load(path)
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "batch":
                dim.ClearField("dim_param")
                dim.dim_value = batch
    fixed = path.with_name("fixed.onnx")
    onnx.save(model, fixed)
    memory = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
    done = subprocess.run([profile, str(steps), fixed], check=True, capture_output=True, text=True, env=os.environ | memory)
    return float(done.stdout.split()[0]) / 1e3, done.stdout


def multiply_adds(path, name):
    """Of convolutions and products, in the graph of one step."""
    import onnx

    batch, side, _ = NETWORKS[name]
    model = onnx.load(path)
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = batch if dim is value.type.tensor_type.shape.dim[0] else side
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in [*model.graph.value_info, *model.graph.input, *model.graph.output]}
    shapes |= {i.name: list(i.dims) for i in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        a, b = (shapes.get(name, []) for name in (node.input[0], node.input[1] if len(node.input) > 1 else ""))
        out = shapes.get(node.output[0], [])
        if node.op_type == "Conv":
            total += np.prod(out) * np.prod(b[1:])
        elif node.op_type == "ConvTranspose":
            total += np.prod(a) * np.prod(b[1:])
        elif node.op_type == "MatMul" and a:
            total += np.prod(out) * a[-1]
        elif node.op_type == "Gemm":
            total += np.prod(out) * (a[0] if any(x.name == "transA" and x.i for x in node.attribute) else a[1])
    return float(total)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bcosc", required=True)
    parser.add_argument("--profile")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--processor", action="store_true")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    args = parser.parse_args()
    import torch

    for name in args.networks:
        batch, side, _ = NETWORKS[name]
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            paths = [folder / f"{part}.onnx" for part in ("net", "bcos", "step")]
            net = original(name)
            torch.onnx.export(
                net, torch.randn(2, 3, side, side), str(paths[0]), dynamo=False, input_names=["images"], output_names=["logits"],
                dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}}, opset_version=17, do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE,
            )
            run = lambda *flags: subprocess.run([args.bcosc, *map(str, flags), "-q"], check=True)
            run(paths[0], "-o", paths[1], "--verify", "off")
            run("train-graph", paths[1], "-o", paths[2])
            rounds = [(child("--pytorch", name, args.threads, args.steps), child("--ort", paths[2], args.threads, args.steps, name)) for _ in range(2)]
            theirs, ours = ([second for r in rounds for second in r[side]["seconds"]] for side in (0, 1))
            median_theirs, median_ours = statistics.median(theirs), statistics.median(ours)
            memory = [max(r[side]["peak"] for r in rounds) for side in (0, 1)]
            floor = multiply_adds(paths[2], name) / max(r[0]["rate"] for r in rounds)
            print(
                f"{name:10} batch {batch}: PyTorch {median_theirs:.3f} s, ONNX Runtime {median_ours:.3f} s, ratio {median_ours / median_theirs:.2f}; "
                f"peak {memory[0]:.0f} and {memory[1]:.0f} MiB, ratio {memory[1] / memory[0]:.2f}; floor {floor:.3f} s",
                flush=True,
            )
            if args.profile:
                seconds, table = tract(args.profile, paths[2], args.steps, name)
                print(f"tract {seconds:.3f} s, ratio {seconds / median_theirs:.2f}\n{table}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pytorch"]:
        pytorch(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["--ort"]:
        onnxruntime(pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    else:
        main()
