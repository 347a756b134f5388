"""Check graphs of gradients with ONNX Runtime and onnx.checker.

    BCOSC_GRADIENTS=DIR cargo test --workspace --lib -- gradients_are_those_of_pytorch
    gradients.py DIR

The test writes DIR/CASE.onnx for each case of fixtures/derivative: the gradients of its operator, in standard
operators. They must be PyTorch's, within 1e-5 of the largest element of each.
Prints cases that differ or do not run; exits with 1 if one differs. `elsewhere` are those with operators that ONNX
Runtime lacks. Needs requirements.txt and safetensors.
"""

import argparse
import pathlib
import sys

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import load_file

from common import session

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "derivative"
TOLERANCE = 1e-5


def judge(path, tensors):
    """ok, elsewhere or WRONG, and why."""
    case = path.stem
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    numbers = {p.name: numpy_helper.to_array(p) for p in onnx.load(FIXTURES / path.name).graph.initializer}
    numbers |= {name: tensors[f"{case}/{name}"] for name in ("x", "s")}
    try:
        computing = session(path)
    except Exception as error:  # ONNX Runtime's errors have no common class
        return "elsewhere", str(error).splitlines()[0][:150]
    outputs = [output.name for output in computing.get_outputs()]
    found = computing.run(outputs, {i.name: numbers[i.name] for i in computing.get_inputs()})
    for name, grad in zip(outputs, found):
        want = tensors[f"{case}/{name}"]
        if grad.shape != want.shape:
            return "WRONG", f"{name}: {grad.shape}, not {want.shape}"
        error = np.abs(grad - want).max() / max(np.abs(want).max(), 1e-30)
        if not error <= TOLERANCE:
            return "WRONG", f"{name}: {error:.1e}"
    return "ok", ""


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=pathlib.Path)
    folder = p.parse_args().folder
    tensors = {}
    for path in sorted(FIXTURES.glob("*.safetensors")):
        tensors |= load_file(path)
    counts = dict.fromkeys(("ok", "elsewhere", "WRONG"), 0)
    for path in sorted(folder.glob("*.onnx")):
        verdict, why = judge(path, tensors)
        counts[verdict] += 1
        if verdict != "ok":
            print(f"{verdict} {path.stem}: {why}")
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    sys.exit(1 if counts["WRONG"] or not counts["ok"] else 0)


if __name__ == "__main__":
    main()
