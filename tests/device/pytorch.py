"""The same measurements as the example `throughput`, in PyTorch on the same card: one line `figure: JSON` each.

    pytorch.py [--layers] [--batch 64,256] [--precision fp32,tf32,bf16] [--seconds 1] [--compile] [NETWORK ...]

Networks are those of torchvision, as B-cos networks (see benches/training.py): forward, input gradient of one logit, which costs what
an explanation does, and a step with AdamW. --compile measures torch.compile too. Exit status 3 without a GPU.
"""

import argparse
import contextlib
import json
import pathlib
import sys
import time

import torch
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benches"))
from training import bcos, original  # noqa: E402

# Channels before and after, kernel, stride and side, as in the example.
LAYERS = [(6, 64, 7, 2, 224), (64, 256, 1, 1, 56), (64, 64, 3, 1, 56), (256, 256, 3, 2, 28), (512, 512, 3, 1, 7)]


def timed(run, seconds):
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    begin, runs = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds or runs < 3:
        for _ in range(5):
            run()
        torch.cuda.synchronize()
        runs += 5
    return (time.perf_counter() - begin) / runs


def note(about, batch, run, seconds):
    line = {"device": torch.cuda.get_device_name(), "batch": batch, **about}
    torch.cuda.reset_peak_memory_stats()
    try:
        each = timed(run, seconds)
        line["result"] = {"milliseconds": each * 1e3, "images_per_second": batch / each,
                          "peak_bytes": torch.cuda.max_memory_allocated()}
    except Exception as error:  # out of memory, or what torch.compile does not take: a result too
        line["error"] = str(error).splitlines()[0][:200]
    print("figure:", json.dumps(line), flush=True)
    torch.cuda.empty_cache()


def layers(batch, precision, seconds):
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for inputs, outputs, kernel, stride, side in LAYERS:
        for form in (torch.contiguous_format, torch.channels_last):
            x = torch.rand(batch, inputs, side, side, device="cuda", dtype=dtype).to(memory_format=form)
            w = torch.rand(outputs, inputs, kernel, kernel, device="cuda", dtype=dtype).to(memory_format=form)
            how = ([stride] * 2, [kernel // 2] * 2, [1, 1])
            dy = torch.rand_like(F.conv2d(x, w, None, *how))

            def backward(which, x=x, w=w, dy=dy, how=how):
                mask = [which == "input", which == "weight", False]
                torch.ops.aten.convolution_backward(dy, x, w, None, *how, False, [0, 0], 1, mask)

            about = {"network": f"{kernel}x{kernel} {inputs}-{outputs}/{stride} {side}", "precision": precision,
                     "layout": "nchw" if form is torch.contiguous_format else "nhwc"}
            note({**about, "graph": "forward"}, batch, lambda: F.conv2d(x, w, None, *how), seconds)
            note({**about, "graph": "input gradient"}, batch, lambda: backward("input"), seconds)
            note({**about, "graph": "weight gradient"}, batch, lambda: backward("weight"), seconds)


def network(name, batch, precision, compiled, seconds):
    def cast():
        return torch.autocast("cuda", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()

    net = bcos(original(name)).cuda()
    run = torch.compile(net) if compiled else net
    x = torch.rand(batch, 3, 224, 224, device="cuda")
    targets = torch.full((batch, 1000), 1e-3, device="cuda")
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.0, fused=True)

    def forward():
        with torch.no_grad(), cast():
            run(x)

    def explanation():
        images = x.detach().requires_grad_()
        with cast():
            logits = run(images)
        torch.autograd.grad(logits.amax(1).sum(), images)

    def step():
        optimizer.zero_grad()
        with cast():
            loss = F.binary_cross_entropy_with_logits(run(x).float(), targets)
        loss.backward()
        optimizer.step()

    about = {"network": name, "precision": precision, "mode": "compile" if compiled else "eager"}
    for graph, work in (("forward", forward), ("explanation", explanation), ("step", step)):
        note({**about, "graph": graph}, batch, work, seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--batch", default="64,256")
    parser.add_argument("--precision", default="fp32,tf32,bf16")
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("PyTorch finds no GPU", file=sys.stderr)
        raise SystemExit(3)
    torch.backends.cudnn.benchmark = True
    for precision in args.precision.split(","):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        for batch in map(int, args.batch.split(",")):
            if args.layers:
                layers(batch, precision, args.seconds)
            for name in args.networks:
                for compiled in (False, True)[: 1 + args.compile]:
                    network(name, batch, precision, compiled, args.seconds)


if __name__ == "__main__":
    main()
