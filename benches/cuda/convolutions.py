"""The cells of `convolutions` in PyTorch, on the same card: one JSON line each, beside the ceilings of the card.

    convolutions.py CELLS OUTPUT [SECONDS]

CELLS is what `convolutions` wrote. PyTorch chooses by `torch.backends.cudnn.benchmark`, and is timed as that program
times itself: replays of a CUDA graph whose launches take turns over buffer sets larger than the L2. Matrix products
follow, of the shapes that `engine_costs` uses.
"""

import json
import statistics
import sys
import time

import torch

ROTATED = 192 << 20
LINEARS = {
    "1x1 1024-256 14 b64": (64 * 196, 1024, 256),
    "1x1 64-256 56 b64": (64 * 3136, 64, 256),
    "vit_s qkv b64": (64 * 197, 384, 1152),
    "vit_s mlp b64": (64 * 197, 384, 1536),
    "classifier b64": (64, 2048, 1000),
}


def device_us(work):
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) * 1e3


def measure(launch, sets, target_us=3000, repeats=7):
    """Median microseconds a launch, whether they are graph replays, and what one eager launch costs the CPU."""
    kept = [None] * sets  # outputs rotate too

    def run(count):
        for i in range(count):
            kept[i % sets] = launch(i % sets)

    run(1)
    torch.cuda.synchronize()
    host = 0.0

    def few():
        nonlocal host
        begin = time.perf_counter()
        run(4)
        host = (time.perf_counter() - begin) / 4 * 1e6

    rough = device_us(few) / 4
    count = max(sets, min(200, int(target_us / max(rough, 1.0)) + 1))
    captured = True
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run(count)
        replay = graph.replay
    except RuntimeError:
        captured = False
        torch.cuda.synchronize()

        def replay():
            run(count)

    device_us(replay)
    us = statistics.median(device_us(replay) / count for _ in range(repeats))
    return {"us": us, "captured": captured, "host_us": host}


def uniform(shape, dtype, layout=torch.contiguous_format):
    return torch.empty(shape, device="cuda", dtype=dtype, memory_format=layout).uniform_(-1, 1)


def set_precision(precision):
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def convolution(cell):
    kernel, channels, size = cell["layer"].split()
    window, _, stride = kernel.partition("/")
    r, stride, (c, k), h = int(window.split("x")[0]), int(stride or 1), map(int, channels.split("-")), int(size)
    pad, n, dtype = r // 2, cell["batch"], set_precision(cell["precision"])
    layout = torch.channels_last if cell["layout"] == "nhwc" else torch.contiguous_format
    sets = max(1, min(16, -(-ROTATED // cell["bytes"])))
    p = (h + 2 * pad - r) // stride + 1
    xs = [uniform((n, c, h, h), dtype, layout) for _ in range(sets)]
    ws = [uniform((k, c, r, r), dtype, layout) for _ in range(sets)]
    if cell["direction"] == "forward":
        return sets, lambda i: torch.conv2d(xs[i], ws[i], None, stride, pad)
    ys = [uniform((n, k, p, p), dtype, layout) for _ in range(sets)]
    mask = [cell["direction"] == "input", cell["direction"] == "weight", False]
    backward = torch.ops.aten.convolution_backward
    return sets, lambda i: backward(
        ys[i], xs[i], ws[i], None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, mask
    )


def product(shape, direction, precision):
    rows, inner, outer = shape
    dtype = set_precision(precision)
    sizes = {"forward": (rows, inner, outer), "input": (rows, outer, inner), "weight": (outer, rows, inner)}
    m, k, n = sizes[direction]
    element = 2 if precision == "bf16" else 4
    sets = max(1, min(16, ROTATED // ((m * k + k * n + m * n) * element)))
    xs = [uniform((k, m) if direction == "weight" else (m, k), dtype) for _ in range(sets)]
    ws = [uniform((n, k) if direction == "forward" else (k, n), dtype) for _ in range(sets)]
    if direction == "forward":
        return sets, lambda i: xs[i] @ ws[i].t()
    if direction == "weight":
        return sets, lambda i: xs[i].t() @ ws[i]
    return sets, lambda i: xs[i] @ ws[i]


def ceilings():
    size = 8192
    rates = {}
    for precision in ("fp32", "tf32", "bf16"):
        dtype = set_precision(precision)
        a, b = uniform((size, size), dtype), uniform((size, size), dtype)
        out = a @ b
        us = statistics.median(device_us(lambda: torch.mm(a, b, out=out)) for _ in range(7))
        rates[precision] = 2 * size**3 / us / 1e6
    source = uniform((1 << 30,), torch.float32)
    target = torch.empty_like(source)
    target.copy_(source)
    us = statistics.median(device_us(lambda: target.copy_(source)) for _ in range(7))
    return {"tflop_s": rates, "gb_s": 2 * source.nbytes / us / 1e3}


def main():
    cells_path, output = sys.argv[1:3]
    limit = float(sys.argv[3]) if len(sys.argv) > 3 else 1e9
    begin = time.perf_counter()
    cells = [json.loads(line) for line in open(cells_path)]
    cells = [cell for cell in cells if cell.get("interface") == "legacy"]
    torch.backends.cudnn.benchmark = True
    with open(output, "w") as out:

        def write(entry):
            out.write(json.dumps(entry) + "\n")
            out.flush()

        write({"torch": torch.__version__, "cudnn": torch.backends.cudnn.version(), **ceilings()})
        for shape_name, shape in LINEARS.items():
            for precision in ("fp32", "tf32", "bf16"):
                for direction in ("forward", "input", "weight"):
                    sets, launch = product(shape, direction, precision)
                    entry = {"what": "product", "name": shape_name, "precision": precision, "direction": direction}
                    write({**entry, **measure(launch, sets, 1500, 5)})
        done = 0
        for cell in cells:
            if time.perf_counter() - begin > limit:
                break
            start = time.perf_counter()
            sets, launch = convolution(cell)
            timing = measure(launch, sets)
            key = {name: cell[name] for name in ("layer", "batch", "precision", "layout", "direction")}
            write({**key, "interface": "pytorch", **timing, "total_ms": (time.perf_counter() - start) * 1e3})
            done += 1
            del launch
        print(f"{done} of {len(cells)} cells in {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
