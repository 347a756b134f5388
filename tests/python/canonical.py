"""An ONNX model as lines of text in which the names that a writer chose do not show: two models have the same graph
exactly if their lines are equal.

Left out      metadata_props, of the model and of whatever it holds; the names of nodes.
Renumbered    names of values that are neither inputs nor outputs of the model: `%0`, `%1`, ... in the order in which
              nodes mention them, inputs before outputs, and between them what the node's subgraphs mention. Names that
              no node mentions follow. Initializers, value_info and quantization annotations are listed in the order of
              these numbers: in the file their order may come from their names.
Kept          all else: the order of nodes, inputs, outputs and attributes, empty names, doc strings, types and shapes
              with the names of open dimensions, domains and versions, the producer, functions, sparse initializers,
              training information. Of a tensor the digest covers its whole message: every byte of its values, and the
              field that holds them. External data is read in first: where weights are stored does not count.
"""

import hashlib

import onnx
from onnx import AttributeProto

PLAIN = {AttributeProto.FLOAT: "f", AttributeProto.INT: "i", AttributeProto.STRING: "s"}
LISTS = {AttributeProto.FLOATS: "floats", AttributeProto.INTS: "ints", AttributeProto.STRINGS: "strings"}
GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def strip(message):
    """Without metadata_props, however deep."""
    for field, value in message.ListFields():
        if field.name == "metadata_props":
            message.ClearField(field.name)
        elif field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                strip(inner)


def digest(message, nameless=False):
    if nameless:
        message, named = type(message)(), message
        message.CopyFrom(named)
        message.ClearField("name")
    return "#" + hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()[:16]


def tensor(t, nameless=False):
    return f"{onnx.TensorProto.DataType.Name(t.data_type).lower()}{list(t.dims)} {digest(t, nameless)}"


def value(info):
    """Type and shape for people to read; the digest beside them covers the rest."""
    shown = info.type.WhichOneof("value") or "untyped"
    if shown == "tensor_type":
        t = info.type.tensor_type
        dims = [d.dim_param or (str(d.dim_value) if d.HasField("dim_value") else "?") for d in t.shape.dim]
        shown = onnx.TensorProto.DataType.Name(t.elem_type).lower() + f"[{', '.join(dims)}]" * t.HasField("shape")
    return f"{shown} {digest(info, nameless=True)}"


class Scope:
    """Names of one graph: those that it makes itself, and the numbers of those met so far."""

    def __init__(self, graph):
        self.made = {v.name for v in graph.input} | {t.name for t in graph.initializer}
        self.made |= {t.values.name for t in graph.sparse_initializer} | {o for n in graph.node for o in n.output}
        self.numbers = {}


class Canonical:
    def __init__(self, model):
        self.lines = []
        # What a name became, and the name, in order.
        self.names = []
        self.count = 0
        self.head(model)
        main = Scope(model.graph)
        main.numbers = {v.name: f"<{v.name}>" for v in [*model.graph.input, *model.graph.output]}
        self.graph(model.graph, [main], "")

    def head(self, model):
        opsets = ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
        self.lines.append(f"model: ir {model.ir_version}, opsets {opsets}, producer {model.producer_name!r} "
                          f"{model.producer_version!r}, {model.domain!r} {model.model_version} {model.doc_string!r}")
        self.lines += [f"function {f.domain}.{f.name}.{f.overload} {digest(f)}" for f in model.functions]
        self.lines += [f"training information {digest(t)}" for t in model.training_info]

    def name(self, name, scopes):
        """What a name became. It belongs to the innermost graph that makes it."""
        if not name:
            return "''"
        known = next((s.numbers[name] for s in reversed(scopes) if name in s.numbers), None)
        if known is None:
            owner = next((s for s in reversed(scopes) if name in s.made), scopes[0])
            known = owner.numbers[name] = f"%{self.count}"
            self.count += 1
            self.names.append(f"{known} {name}")
        return known

    def graph(self, graph, scopes, indent):
        self.lines.append(f"{indent}graph {graph.name!r} {graph.doc_string!r}")
        indent += "  "
        self.lines += [f"{indent}input {self.name(v.name, scopes)}: {value(v)}" for v in graph.input]
        for node in graph.node:
            self.node(node, scopes, indent)
        self.lines += [f"{indent}output {self.name(v.name, scopes)}: {value(v)}" for v in graph.output]
        held = [(t.name, f"initializer {{}}: {tensor(t, nameless=True)}") for t in graph.initializer]
        held += [(t.values.name, f"sparse initializer {{}}: {list(t.dims)} {digest(t.values, nameless=True)} "
                                 f"{digest(t.indices, nameless=True)}") for t in graph.sparse_initializer]
        held += [(v.name, f"value {{}}: {value(v)}") for v in graph.value_info]
        for q in graph.quantization_annotation:
            parts = ", ".join(f"{p.key} {self.name(p.value, scopes)}" for p in q.quant_parameter_tensor_names)
            held.append((q.tensor_name, f"quantization {{}}: {parts}"))
        held = [(self.name(name, scopes), line) for name, line in held]
        self.lines += [indent + line.format(name) for name, line in sorted(held, key=lambda h: (len(h[0]), h))]

    def node(self, node, scopes, indent):
        inputs = ", ".join([self.name(i, scopes) for i in node.input])
        at = len(self.lines)
        attributes = ", ".join([self.attribute(a, scopes, indent) for a in node.attribute])
        outputs = ", ".join([self.name(o, scopes) for o in node.output])
        kind = ".".join(filter(None, [node.domain, node.op_type, node.overload]))
        doc = f" {node.doc_string!r}" if node.doc_string else ""
        self.lines.insert(at, f"{indent}{outputs} = {kind}({inputs}) {{{attributes}}}{doc}")
        self.names.append(f"node {node.name}")

    def attribute(self, a, scopes, indent):
        """In one line; subgraphs go to lines of their own."""
        doc = f"{a.doc_string!r} " if a.doc_string else ""
        if a.type in PLAIN:
            shown = repr(getattr(a, PLAIN[a.type]))
        elif a.type in LISTS:
            shown = repr(list(getattr(a, LISTS[a.type])))
        elif a.type == AttributeProto.TENSOR:
            shown = tensor(a.t)
        elif a.type in GRAPHS:
            shown = "graph"
            for g in [a.g] if a.type == AttributeProto.GRAPH else a.graphs:
                self.graph(g, [*scopes, Scope(g)], indent + "  ")
        else:
            shown = digest(a)
        return f"{a.name}={doc}{shown}"


def canonical(path):
    """(lines, names): the lines of a model, and what they leave out of names."""
    model = onnx.load(path)
    strip(model)
    read = Canonical(model)
    return read.lines, read.names
