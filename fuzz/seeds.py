"""Write the corpus that fuzzing begins with: fixtures without their large weights.

    seeds.py OUTDIR

Floating-point initializers of more than 16 elements keep their shape and lose their data; the target `convert` fills
them in again. What is larger than fuzzing takes is left out. Needs tests/python/requirements.txt.
"""

import pathlib
import sys

import onnx

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
LARGEST = 16
LONGEST = 1 << 16  # -max_len in run.sh


def skeleton(path):
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.raw_data) > 4 * LARGEST:
            tensor.ClearField("raw_data")
    # Exporters note where in the source each node comes from: most of a small model's bytes.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    del model.graph.value_info[:]
    return model.SerializeToString(deterministic=True)


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(FIXTURES.rglob("*.onnx")):
        data = skeleton(path)
        if len(data) <= LONGEST:
            (out / "-".join(path.relative_to(FIXTURES).parts)).write_bytes(data)


if __name__ == "__main__":
    main()
