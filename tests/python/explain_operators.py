"""Check explanations of the onnx package's node cases against differences computed with ONNX Runtime.

    explain_operators.py --bcosc target/release/bcosc [--only OPERATOR ...] [--jobs 2]

Each case of `operators.py` becomes a network: a picture of one row is reshaped to the case's first input, and its first
output goes through random weights to four logits. Of the explanation graph that bcosc makes of it,
  its logits are the network's;
  the weights are finite, and for operators that are linear (piecewise at least) W d is what the logits differ by
  between x and x + d, to 2 % of it (steps are small, and single precision);
  for all others, contributions and the outputs for a picture of zeros add up to the logits.
`refused` counts cases that bcosc reports as not explainable, `elsewhere` those that ONNX Runtime cannot run.
Prints WRONG cases, and counts; exits with 1 if there are any.
Needs requirements.txt.
"""

import os
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common import bcosc, last_line, session
from operators import tally

LINEAR = set("""Add AveragePool BatchNormalization Cast CastLike Clip Compress Concat Conv ConvTranspose CumSum DepthToSpace Div
    Dropout Einsum Expand Flatten Gather GatherElements GatherND Gemm GlobalAveragePool GlobalMaxPool GridSample Identity
    LeakyRelu MatMul Max MaxPool Mean Min Mul Neg PRelu Pad ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape
    Resize ReverseSequence ScatterElements ScatterND Slice SpaceToDepth Split Squeeze Sub Sum Tile TopK Transpose Trilu Unsqueeze
    Upsample Where""".split())
# ONNX Runtime rounds the size that corners are aligned to; what bcosc folds follows the standard.
ELSEWHERE = {f"test_resize_downsample_scales_{mode}_align_corners" for mode in ("linear", "cubic")}
CLASSES = 4


def network(case, inputs, expected, rng):
    (node,), declared = case.model.graph.node, case.model.graph.input
    picture = helper.make_tensor_value_info("_picture", TensorProto.FLOAT, [1, 1, 1, inputs[0].size])
    logits = helper.make_tensor_value_info("_logits", TensorProto.FLOAT, [1, CLASSES])
    head = rng.standard_normal((expected.size, CLASSES)).astype(np.float32)
    parameters = {"_dims": np.array(inputs[0].shape, np.int64), "_row": np.array([1, -1], np.int64), "_head": head}
    parameters |= {info.name: a for a, info in zip(inputs[1:], declared[1:])}
    nodes = [
        helper.make_node("Reshape", ["_picture", "_dims"], [declared[0].name]),
        node,
        helper.make_node("Reshape", [next(filter(None, node.output)), "_row"], ["_flat"]),
        helper.make_node("MatMul", ["_flat", "_head"], ["_logits"]),
    ]
    initializers = [numpy_helper.from_array(a, name) for name, a in parameters.items()]
    graph = helper.make_graph(nodes, "case", [picture], [logits], initializers)
    found = helper.make_model(graph, opset_imports=case.model.opset_import)
    found.ir_version = case.model.ir_version
    return found


def judge(exe, case, inputs, expected):
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("network.onnx", "explanation.onnx")]
        onnx.save(network(case, inputs, expected, rng), paths[0])
        code, err = bcosc(exe, "explain-graph", paths[0], "-o", paths[1], "-q")
        if code == 1:
            return "refused", last_line(err)
        if code != 0:
            return "WRONG", f"exit code {code}: {last_line(err)}"
        # Away from where pieces meet.
        x = inputs[0].reshape(1, 1, 1, -1) + rng.uniform(0.01, 0.02, (1, 1, 1, inputs[0].size))
        x = x.astype(np.float32)
        try:
            original, explained = map(session, paths)
            run = lambda x: original.run(None, {"_picture": x})[0][0].astype(np.float64)
            y = run(x)
            outputs = [explained.run(None, {"_picture": x, "target": np.array([t])}) for t in range(CLASSES)]
        except Exception as e:  # ONNX Runtime's errors have no common class
            return "elsewhere", str(e).splitlines()[0][:150]
        logits = outputs[0][0][0]
        weights, contributions = (np.stack([o[i].ravel() for o in outputs]).astype(np.float64) for i in (2, 3))
        scale = max(np.abs(y).max(), 1e-6)
        if np.abs(logits - y).max() > 1e-4 * scale:
            return "WRONG", f"logits are {logits}, not {y}"
        if not np.isfinite(weights).all():
            return "WRONG", "weights are not finite"
        if case.model.graph.node[0].op_type in LINEAR:
            near = (x + rng.standard_normal(x.shape) * 2e-4).astype(np.float32)
            differs = run(near) - y
            error = np.abs(differs - weights @ (near.astype(np.float64) - x).ravel()).max()
            error /= max(np.abs(differs).max(), 1e-4 * scale)
            return ("ok", "") if error < 0.02 else ("WRONG", f"W d differs from what the network does by {error:.1e}")
        # What constants add is what is left of zeros, for operators that have such a part at all.
        left = np.nan_to_num(run(np.zeros_like(x)))
        sums = contributions.sum(1)
        error = min(np.abs(sums - y).max(), np.abs(sums + left - y).max()) / scale
        return ("ok", "") if error < 1e-3 else ("WRONG", f"contributions add up to {sums}, not {y} ({left} of zeros)")


def in_floats(case, _, expected):
    return expected.dtype == np.float32 and case.name not in ELSEWHERE


if __name__ == "__main__":
    tally(__doc__, judge, ("ok", "refused", "elsewhere", "WRONG"), in_floats)
