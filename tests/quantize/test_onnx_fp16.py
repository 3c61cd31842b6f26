"""Half-precision weights: a smaller file, the same model."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from contract.bundle import golden_inputs
from contract.faces import FaceInput
from quantize.onnx_fp16 import with_fp16_weights
from tests.models import reference_logits, tiny_graph


def graph_of(weights: np.ndarray) -> onnx.ModelProto:
    """y = x · weights, for a 1-row x."""
    rows, columns = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", columns])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weights_seen(model: onnx.ModelProto, rows: int) -> np.ndarray:
    """The weights a runtime computes with: the answer to the identity."""
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.eye(rows, dtype=np.float32)})[0])


@given(
    arrays.arrays(
        np.float32, (32, 16), elements=st.floats(-60000, 60000, width=32, allow_subnormal=False)
    )
)
def test_a_weight_changes_by_no_more_than_float16_rounding(weights: np.ndarray) -> None:
    seen = weights_seen(with_fp16_weights(graph_of(weights)), 32)
    bound = np.maximum(np.abs(weights) * 2.0**-11, 2.0**-25)
    assert (np.abs(seen.astype(np.float64) - weights) <= bound).all()


@pytest.mark.parametrize("value", [70000.0, np.inf])
def test_weights_beyond_float16_stay_as_they_are(value: float) -> None:
    weights = np.ones((32, 16), np.float32)
    weights[3, 3] = value
    model = with_fp16_weights(graph_of(weights))
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), weights)


def test_the_file_is_about_half_and_the_answers_are_the_same(tmp_path: Path) -> None:
    face = FaceInput(size=48)
    before = tiny_graph(face)
    after = with_fp16_weights(before)
    assert len(after.SerializeToString()) < 0.6 * len(before.SerializeToString())
    faces = golden_inputs(1, 8, face)
    np.testing.assert_allclose(
        reference_logits(after, faces), reference_logits(before, faces), atol=0.05
    )
    assert before == tiny_graph(face), "the model given must not change"
