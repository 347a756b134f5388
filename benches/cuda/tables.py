"""Tables of what `run.sh` measured, in Markdown: tables.py FOLDER."""

import json
import math
import sys
from pathlib import Path

KEY = ("layer", "batch", "precision", "layout", "direction")
PRECISIONS, LAYOUTS, DIRECTIONS = ("fp32", "tf32", "bf16"), ("nchw", "nhwc"), ("forward", "input", "weight")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def mean(ratios):
    """Geometric."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row) + " |")
    print()


class Cells:
    def __init__(self, folder):
        entries = lines(folder / "cudnn.jsonl")
        self.card = entries[0]
        pytorch = lines(folder / "pytorch.jsonl")
        self.ceilings = pytorch[0]
        self.products = [entry for entry in pytorch if entry.get("what") == "product"]
        self.by = {}
        for entry in entries[1:] + [entry for entry in pytorch if "interface" in entry]:
            self.by.setdefault(tuple(entry[name] for name in KEY), {})[entry["interface"]] = entry
        # A cell counts once all three are there.
        self.by = {key: cell for key, cell in self.by.items() if len(cell) == 3}

    def us(self, key, interface, field="us"):
        return self.by[key].get(interface, {}).get(field, math.nan)

    def floor(self, key):
        cell = self.by[key]["legacy"]
        arithmetic = cell["flops"] / self.ceilings["tflop_s"][cell["precision"]] / 1e6
        return max(arithmetic, cell["bytes"] / self.ceilings["gb_s"] / 1e3)

    def select(self, **fixed):
        wanted = {KEY.index(name): value for name, value in fixed.items()}
        return [key for key in self.by if all(key[i] == value for i, value in wanted.items())]

    def ratios(self, keys, over, under, field="us"):
        pairs = [(self.us(key, over, field), self.us(key, under)) for key in keys]
        return [a / b for a, b in pairs if not (math.isnan(a) or math.isnan(b))]


def summary(cells):
    print("Time over PyTorch's (geometric mean over layers and batches; worst cell in brackets). Below 1: faster.\n")
    rows = []
    for precision in PRECISIONS:
        for layout in LAYOUTS:
            for direction in DIRECTIONS:
                keys = cells.select(precision=precision, layout=layout, direction=direction)
                row = [precision, layout, direction, len(keys)]
                for interface in ("legacy", "graph"):
                    for field in ("us", "deterministic_us"):
                        ratios = cells.ratios(keys, interface, "pytorch", field)
                        row.append(f"{mean(ratios):.2f} ({max(ratios):.2f})" if ratios else "none")
                row.append(f"{mean(cells.ratios(keys, 'graph', 'pytorch', 'unsearched_us')):.2f}")
                floors = [cells.us(key, "pytorch") / cells.floor(key) for key in keys]
                row.append(f"{mean(floors):.2f}")
                rows.append(row)
    head = ["precision", "layout", "direction", "cells", "legacy", "legacy, same bits", "graph", "graph, same bits"]
    table(head + ["graph, first choice", "PyTorch over floor"], rows)


def layouts(cells):
    print("Fastest channels-last time over fastest channels-first time, by interface (geometric mean over layers).\n")
    rows = []
    for precision in PRECISIONS:
        for direction in DIRECTIONS:
            row = [precision, direction]
            for interface in ("legacy", "graph", "pytorch"):
                ratios = []
                for key in cells.select(precision=precision, layout="nchw", direction=direction):
                    other = (*key[:3], "nhwc", key[4])
                    if other in cells.by:
                        ratios.append(cells.us(other, interface) / cells.us(key, interface))
                row.append(f"{mean([r for r in ratios if not math.isnan(r)]):.2f}")
            rows.append(row)
    table(["precision", "direction", "legacy", "graph", "PyTorch"], rows)


def all_cells(cells):
    print("Every cell, microseconds: legacy / graph / PyTorch.\n")
    rows = []
    for key in sorted({(key[1], key[0], PRECISIONS.index(key[2]), DIRECTIONS.index(key[4])) for key in cells.by}):
        batch, layer, precision, direction = key[0], key[1], PRECISIONS[key[2]], DIRECTIONS[key[3]]
        row = [layer, batch, precision, direction]
        for layout in LAYOUTS:
            full = (layer, batch, precision, layout, direction)
            if full in cells.by:
                row.append(" / ".join(f"{cells.us(full, name):.0f}" for name in ("legacy", "graph", "pytorch")))
                floor = f"{cells.floor(full):.0f}"
            else:
                row.append("")
        rows.append([*row, floor])
    table(["layer", "batch", "precision", "direction", "nchw", "nhwc", "floor"], rows)


def searches(cells):
    print("What choosing costs, and what one call costs the CPU (medians).\n")
    rows = []
    for interface in ("legacy", "graph", "pytorch"):
        entries = [cell[interface] for cell in cells.by.values()]

        def middle(field):
            values = sorted(entry[field] for entry in entries if field in entry)
            return f"{values[len(values) // 2]:.1f}" if values else ""

        worst = max((entry.get("search_ms", 0) for entry in entries), default=0)
        wrong = sum(entry.get("right") is False for entry in entries)
        none = sum("us" not in entry for entry in entries)
        uncaptured = sum(bool(entry.get("uncaptured", not entry.get("captured", True))) for entry in entries)
        errors = [
            max((e["error"] for e in entries if e.get("error") and e["precision"] == precision), default=0)
            for precision in PRECISIONS
        ]
        # PyTorch's launches allocate their outputs anew, and its results are not checked here.
        ours = interface != "pytorch"
        row = [interface, middle("search_ms"), f"{worst:.0f}" if ours else "", middle("host_us") if ours else "", none]
        row += [wrong if ours else "", uncaptured]
        rows.append(row + [" / ".join(f"{error:.1e}" for error in errors) if ours else ""])
    head = ["interface", "search ms", "longest ms", "host us a call", "no candidate", "wrong", "not capturable"]
    table(head + ["largest error fp32 / tf32 / bf16"], rows)


def costs(folder, cells):
    entries = lines(folder / "costs.jsonl")
    print("Launches, compilation, uploads.\n")
    for entry in entries:
        if entry["what"] not in ("pointwise", "product"):
            print("- " + ", ".join(f"{name} {value}" for name, value in entry.items()))
    print("\nGenerated pointwise kernels.\n")
    rows = [(e["name"], e["mb"], e["us"], e["gb_s"]) for e in entries if e["what"] == "pointwise"]
    table(["kernel", "MB", "us", "GB/s"], rows)
    print("Matrix products by cuBLASLt, microseconds: first choice / best of 8 / PyTorch.\n")
    pytorch = {(e["name"], e["precision"], e["direction"]): e["us"] for e in cells.products}
    by = {}
    for e in entries:
        if e["what"] == "product":
            theirs = pytorch.get((e["name"], e["precision"], e["direction"]))
            times = [e["first_us"], e["us"]] + ([theirs] if theirs else [])
            by.setdefault((e["name"], e["precision"]), {})[e["direction"]] = " / ".join(f"{us:.0f}" for us in times)
    columns = ["forward", "input", "weight", "forward bias", "forward bias gelu", "forward nchw", "input nchw"]
    rows = [[*key, *(cell.get(name, "") for name in columns)] for key, cell in by.items()]
    table(["product", "precision", *columns], rows)


def main():
    folder = Path(sys.argv[1])
    cells = Cells(folder)
    print(f"{cells.card} {cells.ceilings}\n")
    summary(cells)
    layouts(cells)
    searches(cells)
    all_cells(cells)
    costs(folder, cells)


if __name__ == "__main__":
    main()
