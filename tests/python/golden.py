"""Compare conversions with the results of the reference implementation of B-cosification.

    golden.py --bcosc target/release/bcosc --golden DIR

DIR holds resnet_tiny, resnet_tiny_grouped and densenet_tiny in three export forms each. Columns:
  exact        B=1, no altering pass, against the original's logits, relative to the largest: 1e-5;
  B=2, B=1.5   `--input add-inverse --normalization imagenet`, against the reference's logits, relative to
               their spread (untrained B-cos logits are nearly constant): 1e-3. Required for model.onnx; in
               the other forms norms are folded, which gives another B-cos network: reported in brackets.
               Exits with 1 if a requirement is not met.

densenet_tiny: the B=2 and B=1.5 numbers are not those of the network that the rules describe. The reference
keeps the stem's max pool and has the average pool that should replace it after the last norm, before its ReLU.
(Determined by experiment: only this gives its logits, to 1e-5, and its explanations.) So that the rest can be compared,
`as_the_reference` inserts that pool into the original, which is then converted with --keep-max-pool: the rows
`altered`. The unaltered network's distance is reported, in brackets.
Needs requirements.txt.
"""

import argparse
import json
import os
import sys
import tempfile

import numpy as np
import onnx
from safetensors.numpy import load_file

from common import EXACT, bcosc, last_line, relative, run, table

NETWORKS = ("resnet_tiny", "resnet_tiny_grouped", "densenet_tiny")
FORMS = ("model.onnx", "model.folded.onnx", "model.opset13.onnx")


def as_the_reference(model, path):
    """densenet_tiny with a 3x3 average pool, stride 2, after its last norm; written to `path`."""
    m = onnx.load(model)
    at, norm = [(i, n) for i, n in enumerate(m.graph.node) if n.op_type == "BatchNormalization"][-1]
    value, norm.output[0] = norm.output[0], norm.output[0] + "_normed"
    pool = onnx.helper.make_node("AveragePool", [norm.output[0]], [value], "reference_pool",
                                 kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, count_include_pad=1)
    m.graph.node.insert(at + 1, pool)
    m.graph.ClearField("value_info")  # shapes from here on are others
    onnx.save(m, path)
    return path


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--golden", required=True, metavar="DIR")
    args = p.parse_args()

    rows, failed = [], False
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "out.onnx")

        def figure(model, flags, x, want, scale, limit, demanded=True):
            nonlocal failed
            code, err = bcosc(args.bcosc, model, "-o", out, *flags, "-q")
            text = f"FAIL exit code {code}: {last_line(err)}"
            error = float("inf")
            if code == 0:
                try:
                    # `relative` divides by the largest magnitude; bring it to the scale asked for
                    error = relative(run(out, x), want) * np.abs(want).max() / scale
                    text = f"{error:.1e}"
                except Exception as e:  # whatever ONNX Runtime has against the file
                    text = str(e).strip().splitlines()[0][:120]
                if error > limit and demanded:
                    text = f"FAIL {text}"
            failed |= demanded and error > limit
            return text if demanded else f"({text})"

        for network in NETWORKS:
            folder = os.path.join(args.golden, network)
            data = load_file(os.path.join(folder, "golden.safetensors"))
            facts = json.load(open(os.path.join(folder, "golden.json")))
            mean, std = (np.array(facts[k], np.float32)[:, None, None] for k in ("mean", "std"))
            image = data["image"]
            for form in FORMS:
                model = os.path.join(folder, form)
                want = data["original.logits"]
                exact = figure(model, EXACT, (image - mean) / std, want, np.abs(want).max(), 1e-5)
                quirk = network == "densenet_tiny"
                for altered in (False, True) if quirk else (False,):
                    row = [f"{network}/{form}" + (", altered" if altered else ""), "" if altered else exact]
                    for b, key in (("2", "b2.logits"), ("1.5", "b1_5.logits")):
                        flags = ["--input", "add-inverse", "--normalization", "imagenet", "--b", b]
                        source = model
                        if altered:
                            flags.append("--keep-max-pool")
                            source = as_the_reference(model, os.path.join(tmp, form))
                        want = data[key]
                        row.append(figure(source, flags, np.concatenate([image, 1 - image], 1), want, np.ptp(want),
                                          1e-3, form == FORMS[0] and altered == quirk))
                    rows.append(row)
    print(table(["model", "exact", "B=2", "B=1.5"], rows))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
