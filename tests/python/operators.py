"""Check the results of bcosc on the node cases of the onnx package, operator by operator.

    operators.py --bcosc target/release/bcosc [--only OPERATOR ...] [--jobs 2]

Cases of one standard operator whose first input is in single precision and whose first output is finite and not all
zeros. Each becomes two models with the same idle input: one computes that output, all inputs of the case but the first
being constants, the other has the expected output as a constant. `bcosc verify` must report that they agree. A case that bcosc
reports as unsupported is `refused`; one with a wrong result, or any other failure, is WRONG.
Prints both, and counts; exits with 1 if any is WRONG.
Needs requirements.txt.
"""

import argparse
import collections
import concurrent.futures
import os
import sys
import tempfile
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common import bcosc, last_line

# Some cases give four digits.
TOLERANCE = "3e-4"


def cases(only):
    warnings.simplefilter("ignore")  # the cases overflow and divide by zero on purpose
    from onnx.backend.test.case.node import collect_testcases

    for case in collect_testcases(None):
        if case.model is None or not case.data_sets:
            continue
        nodes = case.model.graph.node
        inputs, outputs = case.data_sets[0]
        arrays = all(isinstance(a, np.ndarray) for a in [*inputs, *outputs])
        if len(nodes) != 1 or nodes[0].domain or not arrays or (only and nodes[0].op_type not in only):
            continue
        first = next((a for a, name in zip(outputs, filter(None, nodes[0].output))), None)
        usable = inputs and inputs[0].dtype == np.float32 and first is not None and first.size and inputs[0].size
        if usable and first.dtype.kind in "fiub" and np.isfinite(first.astype(np.float64)).all():
            yield case, inputs, first


def pair(case, inputs, expected):
    """A model that computes the case, and one with its expected result."""
    (node,), declared = case.model.graph.node, case.model.graph.input
    idle = helper.make_tensor_value_info("_idle", TensorProto.FLOAT, inputs[0].shape)
    result = helper.make_tensor_value_info("_result", TensorProto.FLOAT, None)
    zero = numpy_helper.from_array(np.zeros((), np.float32), "_zero")

    def model(nodes, parameters):
        graph = helper.make_graph(nodes, "case", [idle], [result], [zero, *parameters])
        found = helper.make_model(graph, opset_imports=case.model.opset_import)
        found.ir_version = case.model.ir_version
        return found

    first = declared[0].name
    parameters = [numpy_helper.from_array(a, info.name) for a, info in zip(inputs[1:], declared[1:])]
    computed = [
        helper.make_node("Mul", ["_idle", "_zero"], ["_nothing"]),
        helper.make_node("Add", ["_nothing", "_given"], [first]),
        node,
        helper.make_node("Cast", [next(filter(None, node.output))], ["_result"], to=TensorProto.FLOAT),
    ]
    known = [
        helper.make_node("ReduceSum", ["_idle"], ["_sum"], keepdims=0),
        helper.make_node("Mul", ["_sum", "_zero"], ["_nothing"]),
        helper.make_node("Add", ["_nothing", "_expected"], ["_result"]),
    ]
    expected = numpy_helper.from_array(expected.astype(np.float32), "_expected")
    given = numpy_helper.from_array(inputs[0], "_given")
    return model(computed, [given, *parameters]), model(known, [expected])


def judge(exe, case, inputs, expected):
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("known.onnx", "computed.onnx")]
        computed, known = pair(case, inputs, expected)
        for path, model in zip(paths, (known, computed)):
            onnx.save(model, path)
        code, err = bcosc(exe, "verify", *paths, "--rtol", TOLERANCE, "-q")
    if code == 0:
        return "ok", ""
    line = err.strip().splitlines()[-1] if "cannot run" in err else last_line(err)
    # A signal or a panic is as bad as a wrong number.
    refused = code == 1 and "cannot run" in err
    return ("refused" if refused else "WRONG"), line


def tally(doc, judge, verdicts, wanted, shown=("WRONG",)):
    """Run the cases in parallel, print the results, and count."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--only", nargs="+", default=[], metavar="OPERATOR")
    p.add_argument("--jobs", type=int, default=2)
    args = p.parse_args()
    counts = collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        found = filter(lambda c: wanted(*c), cases(set(args.only)))
        jobs = [(c[0], pool.submit(judge, args.bcosc, *c)) for c in found]
        for case, job in jobs:
            verdict, why = job.result()
            counts[verdict] += 1
            if verdict in shown:
                print(f"{verdict}  {case.name}  {why.strip()}", flush=True)
    print(", ".join(f"{counts[v]} {v}" for v in verdicts))
    sys.exit(counts["WRONG"] > 0 or not counts["ok"])


if __name__ == "__main__":
    # A result of zeros would say nothing.
    tally(__doc__, judge, ("ok", "refused", "WRONG"), lambda _, __, expected: expected.any(), ("refused", "WRONG"))
