"""Hard-swish as an INT8 addition that saturates: the same values, and no float hard-sigmoid."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantize.candidates import ONNX, Candidate
from quantize.graph import float_model
from quantize.hard_swish import read_back, with_added_gates, with_pooling
from quantize.onnx_int8 import quantize_onnx
from quantize.rounding import moments_of
from tests.models import reference_logits
from tests.quantize.nets import mobile_net, pictures

WHOLE = Candidate("whole", "onnxruntime", range_quantile=1.0)
EVERY = np.arange(256, dtype=np.uint8).reshape(64, 2, 2, 1)


def activation_net(slope: float = 0.0, share: float = 0.5) -> onnx.ModelProto:
    """Uint8 `N×2×2×1` "faces" → "y" `N×1×2×2`: x·gate(x) for x from −8 to 7.94, one per pixel.

    The gate is hard-swish's own, or a hard-sigmoid of `slope` and `share`.
    """
    stored = {
        "half": np.float32(128),
        "step": np.float32(16),
        "one": np.ones((1, 1, 1, 1), np.float32),
        "none": np.zeros(1, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["faces"], ["float"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], name="turn", perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["nchw", "half"], ["centred"], name="sub"),
        helper.make_node("Div", ["centred", "step"], ["x0"], name="div"),
        helper.make_node("Conv", ["x0", "one", "none"], ["x"], name="conv"),
    ]
    if slope:
        gate = helper.make_node("HardSigmoid", ["x"], ["h"], name="gate", alpha=slope, beta=share)
        nodes += [gate, helper.make_node("Mul", ["x", "h"], ["y"], name="product")]
    else:
        nodes.append(helper.make_node("HardSwish", ["x"], ["y"], name="swish"))
    graph = helper.make_graph(
        nodes,
        "activation",
        [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["n", 2, 2, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 2, 2])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantized(
    folder: Path, model: onnx.ModelProto, faces: np.ndarray, candidate: Candidate = WHOLE
) -> onnx.ModelProto:
    file = folder / "float.onnx"
    onnx.save(model, file)
    moments = moments_of(float_model(file), faces)
    return onnx.load(quantize_onnx(file, faces, folder / "int8.onnx", candidate, moments)[0])


def by_kind(model: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == kind]


@pytest.mark.parametrize(("slope", "share"), [(0.0, 0.5), (1 / 4, 0.5), (1 / 6, 0.25)])
def test_every_value_comes_out_as_a_hard_swish_has_it(
    tmp_path: Path, slope: float, share: float
) -> None:
    """By the formula, from where it is 0 to where it is x, within two steps of the output."""
    int8 = quantized(tmp_path, activation_net(slope, share), EVERY)
    assert not by_kind(int8, "HardSigmoid") and not by_kind(int8, "HardSwish")
    x = (EVERY.astype(np.float64) - 128) / 16
    expected = (x * np.clip(x * (slope or 1 / 6) + share, 0, 1)).transpose(0, 3, 1, 2)
    step = (expected.max() - expected.min()) / 255
    answers = reference_logits(int8, EVERY)
    assert np.abs(answers - expected).max() <= 2 * step
    assert (answers[x.transpose(0, 3, 1, 2) < -share / (slope or 1 / 6)] == 0).all()


def test_a_value_beyond_the_ranges_saturates_and_does_not_wrap(tmp_path: Path) -> None:
    """Ranges from x between −2 and 3.94; what is beyond is as the nearest value within."""
    seen = np.arange(96, 192, dtype=np.uint8).reshape(24, 2, 2, 1)
    answers = reference_logits(quantized(tmp_path, activation_net(), seen), EVERY).ravel()
    assert np.ptp(answers[192:]) == 0 and np.abs(answers[192] - 63 / 16) < 0.05
    # −2 · 1/6, as at −2 itself: INT8 knows nothing lower.
    assert np.ptp(answers[:96]) == 0 and np.abs(answers[0] + 2 / 6) < 0.05


def scales(model: onnx.ModelProto) -> dict[str, float]:
    return {
        each.name: numpy_helper.to_array(each).item()
        for each in model.graph.initializer
        if numpy_helper.to_array(each).size == 1
    }


@pytest.mark.parametrize("candidate", [WHOLE, *ONNX], ids=lambda each: each.name)
def test_of_a_whole_net_only_the_gate_of_squeeze_excite_is_a_hard_sigmoid(
    tmp_path: Path, candidate: Candidate
) -> None:
    model = mobile_net()
    (own,) = by_kind(model, "HardSigmoid")
    int8 = quantized(tmp_path, model, pictures(60), candidate)
    (left,) = by_kind(int8, "HardSigmoid")
    assert left.output[0] == own.output[0]
    given = [{each.name: each.f for each in node.attribute} for node in (left, own)]
    assert given[0] == given[1]
    assert not by_kind(int8, "HardSwish")
    readers = [node for node in int8.graph.node if own.output[0] in node.input]
    assert [node.op_type for node in readers] == ["QuantizeLinear"]
    stored = scales(int8)
    (back,) = (n for n in int8.graph.node if readers[0].output[0] in n.input)
    assert stored[back.input[1]] == stored[readers[0].input[1]], "read as it is written"


def test_the_gates_are_read_at_their_slope_times_what_they_are_written_at(tmp_path: Path) -> None:
    int8 = quantized(tmp_path, mobile_net(), pictures(60))
    stored, nodes = scales(int8), int8.graph.node
    constants = {name for name in stored if name.endswith("_offset_scale")}
    maker = {name: node for node in nodes for name in node.output}
    gates = []
    for add in by_kind(int8, "Add"):
        read = [maker[name].input[1] for name in add.input]
        if constants & set(read):
            gates.append(add.output[0])
    assert len(gates) == 5, "one for each hard-swish"
    for gate in gates:
        (write,) = (node for node in nodes if gate in node.input)
        (read_again,) = (node for node in nodes if write.output[0] in node.input)
        assert stored[write.input[1]] == pytest.approx(6 / 255, rel=1e-6)
        assert stored[write.input[2]] == 0
        assert stored[read_again.input[1]] == pytest.approx(1 / 255, rel=1e-6)


def test_a_whole_net_answers_as_in_float(tmp_path: Path) -> None:
    """INT8 moves answers by less than a fifth of what pictures do; weights here are random."""
    model, seen, unseen = mobile_net(), pictures(60), pictures(40, seed=6)
    int8 = quantized(tmp_path, model, seen)
    expected, answers = (reference_logits(each, unseen) for each in (model, int8))
    assert np.ptp(expected, axis=0).min() > 0.2, "it tells them apart"
    moved = np.square(answers - expected).mean() ** 0.5
    assert moved < 0.2 * expected.std(axis=0).mean()


def test_gates_and_their_ranges() -> None:
    """By hand: 0.25·x + 0.5 is a quarter of x + 2, and 1 where that is 4."""
    model = activation_net(slope=0.25)
    changed, (gate,) = with_added_gates(model)
    assert (gate.output, gate.offset, gate.slope) == ("h", 2.0, 0.25)
    assert gate.ranges == {"h": (0.0, 4.0), gate.offset_name: (0.0, 2.0)}
    (add,) = by_kind(changed, "Add")
    assert list(add.input) == ["x", gate.offset_name] and list(add.output) == ["h"]
    onnx.checker.check_model(changed, full_check=True)
    assert len(by_kind(model, "HardSigmoid")) == 1, "the model given must not change"


def test_a_gate_of_another_value_than_its_product_stays() -> None:
    """Squeeze-excite's: the gate reads a pooled map and scales a whole one."""
    changed, gates = with_added_gates(mobile_net())
    assert gates == []  # hard-swishes in one piece have no hard-sigmoid yet
    assert changed == mobile_net()


def test_other_pairs_are_read_as_they_are_written() -> None:
    model = activation_net()
    before = model.SerializeToString()
    read_back(model, [])
    assert model.SerializeToString() == before


def pooling_net(opset: int, axes: list[int], **settings: int) -> onnx.ModelProto:
    """Uint8 `N×2×3×4` "faces" → "y": a mean over `axes`."""
    as_input, rank = opset >= 18, 4 if settings.get("keepdims", 1) else 4 - len(axes)
    node = helper.make_node(
        "ReduceMean",
        ["x", "axes"] if as_input else ["x"],
        ["y"],
        name="mean",
        **(settings if as_input else {**settings, "axes": axes}),
    )
    cast = helper.make_node("Cast", ["faces"], ["x"], name="cast", to=TensorProto.FLOAT)
    graph = helper.make_graph(
        [cast, node],
        "pooling",
        [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["n", 2, 3, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(np.array(axes, np.int64), "axes")] if as_input else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize(
    ("axes", "settings", "expected"),
    [
        ([2, 3], {}, "GlobalAveragePool"),
        ([-1, -2], {"keepdims": 1}, "GlobalAveragePool"),
        ([2, 3], {"keepdims": 0}, "ReduceMean"),
        ([3], {}, "ReduceMean"),
        ([1, 2], {}, "ReduceMean"),
    ],
)
def test_a_mean_over_the_map_is_pooling_and_every_answer_stays(
    opset: int, axes: list[int], settings: dict[str, int], expected: str
) -> None:
    model = pooling_net(opset, axes, **settings)
    changed = with_pooling(model)
    onnx.checker.check_model(changed, full_check=True)
    assert [node.op_type for node in changed.graph.node] == ["Cast", expected]
    faces = np.random.default_rng(0).integers(0, 256, (5, 2, 3, 4)).astype(np.uint8)
    answers = [reference_logits(each, faces) for each in (model, changed)]
    assert answers[0].shape == answers[1].shape
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-5)
