"""Train with a training-step graph, in ONNX Runtime and numpy alone.

    bcosc train-graph net.bcos.onnx -o net.train.onnx
    python examples/train.py net.train.onnx images.npy labels.npy tuned.safetensors
    bcosc merge net.bcos.onnx tuned.safetensors -o tuned.onnx

images.npy is float32, in the input format of the model, and labels.npy int64.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime as ort
from safetensors.numpy import load_file, save_file

graph, images, labels, tuned = sys.argv[1:]
images, labels = np.load(images), np.load(labels).astype(np.int64)
model = onnx.load(graph, load_external_data=False)
entries = {entry.key: entry.value for entry in model.metadata_props}
pairs = json.loads(entries["bcosc.training.state"])  # [input, output, kind]
state = load_file(graph.removesuffix(".onnx") + ".safetensors")

session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
taken = session.get_inputs()[0].name
outputs = [output.name for output in session.get_outputs()]
steps, batch, rate = 400, min(128, len(images)), 1e-3
rng = np.random.default_rng(0)
for step in range(steps):
    chosen = rng.choice(len(images), batch, replace=False)
    inputs = {
        taken: images[chosen],
        "targets": labels[chosen],
        "learning_rate": np.array(rate * (1 + np.cos(np.pi * step / steps)) / 2, np.float32),
        "step": np.array(step + 1),
    }
    found = dict(zip(outputs, session.run(None, {**inputs, **state})))
    state = {name: found[following] for name, following, _ in pairs}
    if step % 20 == 0:
        print(f"step {step}: loss {found['loss']:.4f}")
kept = {name: state[name] for name, _, kind in pairs if kind in ("parameter", "statistic")}
save_file(kept, tuned)
