"""A net built as the student is, only small: what the graph tools of `quantize` work on."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 16


class _Net:
    """Nodes and weights, added one after another."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def stored(self, name: str, *shape: int) -> str:
        """Random weights, large enough that what goes through a layer does not fade."""
        deviation = 2 * float(np.prod(shape[1:])) ** -0.5 if len(shape) > 1 else 0.2
        value = self.rng.normal(0, deviation, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def constant(self, name: str, value: float) -> str:
        """A scalar."""
        self.weights.append(numpy_helper.from_array(np.float32(value), name))
        return name

    def op(self, kind: str, *inputs: str, **settings: object) -> str:
        """One more node; its output's name, which is `<kind>_<number>`."""
        made = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [made], name=made, **settings))
        return made

    def conv(
        self, name: str, source: str, into: int, out: int, kernel: int = 1, group: int = 1
    ) -> str:
        weight = self.stored(f"{name}.weight", out, into // group, kernel, kernel)
        bias = self.stored(f"{name}.bias", out)
        pads = [kernel // 2] * 4
        inputs = [source, weight, bias]
        node = helper.make_node("Conv", inputs, [f"{name}.out"], name=name, group=group, pads=pads)
        self.nodes.append(node)
        return f"{name}.out"


def mobile_net(stem: int = 12, wide: int = 20, between: str = "", seed: int = 0) -> onnx.ModelProto:
    """Stem, an inverted residual with squeeze-excite, a depthwise layer, head, classifier.

    Uint8 `N×16×16×1` "faces" → "logits" `N×7`. The depthwise layers have `wide` and `stem`
    channels. `between` puts something more in front of the first: `softmax` over channels, `scale`
    per channel, or `double`, a scalar.
    """
    net = _Net(seed)
    x = net.op("Transpose", net.op("Cast", "faces", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    x = start = net.op(
        "HardSwish", net.conv("stem", net.op("Mul", x, net.constant("unit", 1 / 128)), 1, stem, 3)
    )
    x = net.op("HardSwish", net.conv("expand", x, stem, wide))
    if between == "softmax":
        x = net.op("Softmax", x, axis=1)
    elif between == "scale":
        x = net.op("Mul", x, net.stored("scale", 1, wide, 1, 1))
    elif between == "double":
        x = net.op("Mul", x, net.constant("two", 2))
    x = net.op("HardSwish", net.conv("depthwise.1", x, wide, wide, 3, group=wide))
    gate = net.conv("squeeze", net.op("GlobalAveragePool", x), wide, 8)
    gate = net.conv("excite", net.op("Relu", gate), 8, wide)
    x = net.op("Mul", x, net.op("HardSigmoid", gate, alpha=1 / 6, beta=0.5))
    x = net.op("Add", net.conv("project", x, wide, stem), start)
    x = net.op("HardSwish", net.conv("depthwise.2", x, stem, stem, 5, group=stem))
    x = net.op("GlobalAveragePool", net.op("Relu", net.conv("last", x, stem, 24)))
    x = net.op("Flatten", net.op("HardSwish", net.conv("head", x, 24, 10)))
    inputs = [x, net.stored("fc.weight", 7, 10), net.stored("fc.bias", 7)]
    net.nodes.append(helper.make_node("Gemm", inputs, ["logits"], name="fc", transB=1))
    graph = helper.make_graph(
        net.nodes,
        "mobile",
        [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["n", SIZE, SIZE, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 7])],
        net.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def pictures(count: int, seed: int = 5) -> np.ndarray:
    """`count×16×16×1` uint8: random patches, in another light in each picture."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (count, 4, 4, 1)) * rng.uniform(0.2, 1, (count, 1, 1, 1))
    return patches.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
