"""INT8 ONNX: ranges that hold what counts, weights that no CPU saturates on, the same answers."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from contract.faces import FaceInput
from quantize.candidates import JETSON, Candidate
from quantize.graph import float_model
from quantize.onnx_int8 import activation_ranges, quantize_onnx
from quantize.rounding import moments_of
from tests.models import CLASSES, grating, reference_logits, tiny_graph

DEFAULT = Candidate("whole", "onnxruntime", range_quantile=0.97)


def graph_of(nodes: list[onnx.NodeProto], **stored: np.ndarray) -> onnx.ModelProto:
    """Uint8 `N×2×2×1` "faces" → "y", through `nodes`, which read the faces as float "x"."""
    cast = helper.make_node("Cast", ["faces"], ["x"], name="cast", to=TensorProto.FLOAT)
    graph = helper.make_graph(
        [cast, *nodes],
        "small",
        [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["n", 2, 2, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def centred(name: str) -> list[onnx.NodeProto]:
    """name = (x − 128) / 8: from −16 to 15.875."""
    return [
        helper.make_node("Sub", ["x", "half"], ["shifted"]),
        helper.make_node("Div", ["shifted", "eight"], [name]),
    ]


def constants() -> dict[str, np.ndarray]:
    return {"half": np.float32(128), "eight": np.float32(8)}


@pytest.fixture
def faces() -> np.ndarray:
    """Faces of the small graphs; the last is far out of the others' range."""
    rng = np.random.default_rng(1)
    rows = rng.integers(90, 170, (19, 2, 2, 1))
    far = np.array([0, 255, 0, 255]).reshape(1, 2, 2, 1)
    return np.concatenate([rows, far]).astype(np.uint8)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 1.0])
def test_a_range_ends_at_a_quantile_of_the_rows_own_extremes(
    faces: np.ndarray, quantile: float
) -> None:
    model = graph_of([*centred("z"), helper.make_node("Tanh", ["z"], ["y"])], **constants())
    values = (faces.reshape(20, 4).astype(np.float64) - 128) / 8
    # By hand: the k-th of 20 sorted extremes, halfway between where the quantile falls between two.
    position = quantile * 19
    below, share = int(position), position - int(position)
    least, most = np.sort(-values.min(axis=1)), np.sort(values.max(axis=1))

    def at(ordered: np.ndarray) -> float:
        above = min(below + 1, 19)
        return float(ordered[below] * (1 - share) + ordered[above] * share)

    assert activation_ranges(model, faces, quantile)["z"] == pytest.approx(
        (-at(least), at(most)), rel=1e-5
    )


def test_one_face_far_out_does_not_stretch_a_range(faces: np.ndarray) -> None:
    model = graph_of([*centred("z"), helper.make_node("Tanh", ["z"], ["y"])], **constants())
    low, high = activation_ranges(model, faces, 0.9)["z"]
    assert (low, high) > (-6, 0) and high < 6
    assert activation_ranges(model, faces, 1.0)["z"] == (-16.0, 15.875)


def test_zero_is_always_inside_and_no_range_is_empty() -> None:
    """Zero must be a value INT8 has: padding is made of it."""
    model = graph_of(
        [
            helper.make_node("Neg", ["x"], ["negative"]),
            helper.make_node("Mul", ["x", "none"], ["nothing"]),
            helper.make_node("Concat", ["negative", "nothing"], ["y"], axis=3),
        ],
        none=np.float32(0),
    )
    faces = np.full((4, 2, 2, 1), 100, np.uint8)
    ranges = activation_ranges(model, faces, 0.9)
    assert ranges["negative"][0] == -100
    for low, high in ranges.values():
        assert low <= 0 < high


def test_what_is_only_moved_keeps_its_range_and_pixels_are_bytes(faces: np.ndarray) -> None:
    """Whatever these faces hold, others may hold darker and brighter pixels."""
    nodes = [
        *centred("z"),
        helper.make_node("Transpose", ["z"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Flatten", ["turned"], ["flat"]),
        helper.make_node("Tanh", ["flat"], ["y"]),
    ]
    ranges = activation_ranges(graph_of(nodes, **constants()), faces[:-1], 0.9)
    assert ranges["x"] == (0, 255)
    assert ranges["turned"] == ranges["flat"] == ranges["z"] != (0, 255)


def hard_swish_apart() -> list[onnx.NodeProto]:
    """y = z · hardsigmoid(z), with hard-swish's slope."""
    return [
        *centred("z"),
        helper.make_node("HardSigmoid", ["z"], ["h"], alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", ["z", "h"], ["y"]),
    ]


def test_below_minus_three_a_hard_swish_reads_nothing(faces: np.ndarray) -> None:
    model = graph_of(hard_swish_apart(), **constants())
    ranges = activation_ranges(model, faces, 1.0)
    assert ranges["z"] == pytest.approx((-3, 15.875), abs=1e-5)
    assert ranges["h"] == (0, 1)


def test_beyond_three_a_hard_sigmoid_reads_nothing(faces: np.ndarray) -> None:
    gate = helper.make_node("HardSigmoid", ["z"], ["y"], alpha=1 / 6, beta=0.5)
    model = graph_of([*centred("z"), gate], **constants())
    assert activation_ranges(model, faces, 1.0)["z"] == pytest.approx((-3, 3), abs=1e-5)


def test_a_hard_sigmoid_has_onnx_defaults_where_none_are_given(faces: np.ndarray) -> None:
    """Slope 0.2 about 0.5: 0 at −2.5 and 1 at 2.5."""
    gate = helper.make_node("HardSigmoid", ["z"], ["y"])
    model = graph_of([*centred("z"), gate], **constants())
    assert activation_ranges(model, faces, 1.0)["z"] == pytest.approx((-2.5, 2.5), abs=1e-5)


def test_what_something_else_reads_too_is_not_cut_off(faces: np.ndarray) -> None:
    nodes = [
        *centred("z"),
        helper.make_node("HardSigmoid", ["z"], ["h"], alpha=1 / 6, beta=0.5),
        helper.make_node("Add", ["z", "h"], ["y"]),
    ]
    ranges = activation_ranges(graph_of(nodes, **constants()), faces, 1.0)
    assert ranges["z"] == (-16.0, 15.875)


def test_cutting_off_loses_nothing(faces: np.ndarray) -> None:
    """Clipping to the range and not clipping give the same output, bit for bit."""
    for nodes in (hard_swish_apart(), hard_swish_apart()[:-1]):
        made = nodes[-1].output[0]
        nodes[-1].output[0] = "y"
        plain = graph_of(nodes, **constants())
        low, high = activation_ranges(plain, faces, 1.0)["z"]
        clipped = [
            *centred("all"),
            helper.make_node("Clip", ["all", "low", "high"], ["z"]),
            *nodes[2:],
        ]
        bounds = {"low": np.float32(low), "high": np.float32(high)}
        cut = graph_of(clipped, **constants(), **bounds)
        every = np.arange(256, dtype=np.uint8).reshape(64, 2, 2, 1)
        np.testing.assert_allclose(
            reference_logits(cut, every), reference_logits(plain, every), atol=1e-6, err_msg=made
        )


def quantized(folder: Path, candidate: Candidate) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The tiny net, and what a candidate makes of it with ranges from 70 gratings."""
    model = tiny_graph(FaceInput(size=48))
    graph = folder / "float.onnx"
    onnx.save(model, graph)
    faces = gratings(70, seed=2)
    moments = moments_of(float_model(graph), faces)
    files = quantize_onnx(graph, faces, folder / "int8.onnx", candidate, moments)
    assert files == [folder / "int8.onnx"]
    return model, onnx.load(files[0])


def gratings(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([grating(n % CLASSES, rng)[..., None] for n in range(count)])


def weights_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """What the convolutions and matrix products read as weights, by node, as it is stored."""
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    maker = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            name = node.input[1]
            while name not in stored:
                name = maker[name].input[0]
            found[node.name] = stored[name]
    return found


@pytest.mark.parametrize("candidate", [DEFAULT, JETSON[0]], ids=lambda each: each.name)
def test_the_int8_model_answers_as_the_float_one_does(tmp_path: Path, candidate: Candidate) -> None:
    model, int8 = quantized(tmp_path, candidate)
    faces = gratings(210, seed=11)
    one, other = (reference_logits(each, faces).argmax(1) for each in (model, int8))
    assert len(set(one)) == CLASSES
    assert (one == other).mean() >= 0.97


def test_weights_have_seven_bits(tmp_path: Path) -> None:
    """With eight, sums saturate on CPUs without VNNI."""
    _, int8 = quantized(tmp_path, DEFAULT)
    weights = weights_of(int8)
    assert len(weights) == 3
    for name, values in weights.items():
        assert values.dtype == np.int8, name
        assert 48 < np.abs(values.astype(int)).max() <= 64, f"{name}: seven bits, and used"


def test_parts_left_float_have_float_weights(tmp_path: Path) -> None:
    candidate = Candidate("float-classifier", "onnxruntime", ("stem", "classifier"))
    _, int8 = quantized(tmp_path, candidate)
    kinds = [values.dtype for values in weights_of(int8).values()]
    assert kinds == [np.float32, np.int8, np.float32]


def test_for_tensorrt_everything_is_symmetric_and_biases_are_float(tmp_path: Path) -> None:
    _, int8 = quantized(tmp_path, JETSON[0])
    stored = {each.name: numpy_helper.to_array(each) for each in int8.graph.initializer}
    pairs = [n for n in int8.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero = stored[node.input[2]]
        assert zero.dtype == np.int8, node.name
        assert not zero.any(), node.name
    biases = [n.input[2] for n in int8.graph.node if n.op_type in ("Conv", "Gemm")]
    assert len(biases) == 3
    assert all(stored[name].dtype == np.float32 for name in biases)


def test_a_runtime_takes_it_one_face_or_many_at_a_time(tmp_path: Path) -> None:
    _, int8 = quantized(tmp_path, DEFAULT)
    session = ort.InferenceSession(int8.SerializeToString(), providers=["CPUExecutionProvider"])
    faces = gratings(5, seed=3)
    together = session.run(None, {"faces": faces})[0]
    alone = np.concatenate([session.run(None, {"faces": face[None]})[0] for face in faces])
    np.testing.assert_allclose(alone, together, atol=1e-5)
