"""Rounding that keeps a layer's answers: exact where nothing is correlated, better where it is."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from quantize.graph import group_of
from quantize.rounding import layers_of, moments_of, rounded
from tests.quantize.nets import mobile_net, pictures

MOST = 64


def moments_from(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """`1×K×K` of inputs `N×K`."""
    moments: NDArray[np.float64] = (inputs.T @ inputs)[None]
    return moments


def correlated(seed: int, count: int = 400, size: int = 12) -> NDArray[np.float64]:
    """Inputs `N×K`, none negative, that three hidden causes and a little noise make."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(0.5, 1, (count, 3)) @ rng.normal(0, 1, (3, size))
    return np.maximum(causes + rng.normal(0, 0.2, (count, size)), 0)


def weights(seed: int, out: int = 16, size: int = 12) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, (out, size)).astype(np.float32)


@given(st.integers(0, 999), st.floats(0.01, 2))
def test_inputs_that_have_nothing_in_common_leave_nearest_rounding(seed: int, scale: float) -> None:
    weight = weights(seed)
    steps = np.full(16, scale, np.float32)
    nearest = np.clip(np.round(weight / np.float64(np.float32(scale))), -MOST, MOST)
    np.testing.assert_array_equal(rounded(weight, steps, np.eye(12)[None], MOST), nearest)


def test_what_one_weight_loses_its_like_makes_good() -> None:
    """By hand: two inputs that are always equal see only the sum, 0.8; 0 + 1 is its nearest."""
    weight, scale = np.full((1, 2), 0.4, np.float32), np.ones(1, np.float32)
    assert rounded(weight, scale, np.ones((1, 2, 2)), MOST).tolist() == [[0, 1]]
    assert rounded(weight, scale, np.eye(2)[None], MOST).tolist() == [[0, 0]]


def test_inputs_that_are_always_opposite_move_weights_together() -> None:
    """By hand: only the difference of the weights counts, 0.4 − (−0.4)."""
    weight, opposite = np.array([[0.4, -0.4]], np.float32), np.array([[[1.0, -1], [-1, 1]]])
    first, second = rounded(weight, np.ones(1, np.float32), opposite, MOST)[0]
    assert first - second == 1


def test_the_most_active_input_is_rounded_first_and_the_rest_make_good() -> None:
    """The second input is four times the first: its weight stays nearest, 0.4 → 0.

    The output is then short of 4 · 0.4, which the first makes good: 0.4 + 1.6, less the damping.
    """
    inputs = np.array([[1.0, 4.0]])
    weight = np.full((1, 2), 0.4, np.float32)
    made = rounded(weight, np.ones(1, np.float32), moments_from(inputs), MOST)
    assert made.tolist() == [[1, 0]]


@given(st.integers(0, 999))
def test_weights_that_are_whole_steps_stay(seed: int) -> None:
    rng = np.random.default_rng(seed)
    integers = rng.integers(-MOST, MOST + 1, (16, 12))
    scale = rng.uniform(0.01, 1, 16).astype(np.float32)
    weight = (integers * scale[:, None]).astype(np.float32)
    made = rounded(weight, scale, moments_from(correlated(seed)), MOST)
    np.testing.assert_array_equal(made, integers)


def test_an_input_that_is_always_zero_is_no_obstacle() -> None:
    inputs = correlated(3)
    inputs[:, 5] = 0
    weight, scale = weights(3), np.full(16, 0.1, np.float32)
    made = rounded(weight, scale, moments_from(inputs), MOST)
    np.testing.assert_array_equal(made[:, 5], np.round(weight[:, 5] / scale))
    nothing = rounded(weight, scale, np.zeros((1, 12, 12)), MOST)
    np.testing.assert_array_equal(nothing, np.round(weight / scale[:, None]))


@settings(max_examples=40)
@given(st.integers(0, 9999), st.sampled_from([0.1, 0.2, 0.5]))
def test_answers_change_less_than_by_nearest_rounding(seed: int, scale: float) -> None:
    """On inputs that were not seen, too."""
    inputs, weight = correlated(seed, count=800), weights(seed)
    seen, unseen = inputs[:400], inputs[400:]
    steps = np.full(16, scale, np.float32)
    nearest = np.clip(np.round(weight / scale), -MOST, MOST)
    ours = rounded(weight, steps, moments_from(seen), MOST)
    for rows in (seen, unseen):
        spoilt = [np.square(rows @ (weight - scale * made).T).sum() for made in (nearest, ours)]
        assert spoilt[1] < spoilt[0]


@given(st.integers(0, 999), st.integers(1, 127), st.floats(0.001, 1))
def test_no_integer_is_larger_than_allowed(seed: int, most: int, scale: float) -> None:
    made = rounded(
        weights(seed), np.full(16, scale, np.float32), moments_from(correlated(seed)), most
    )
    assert made.dtype == np.int8
    assert np.abs(made.astype(int)).max() <= most


def test_padded_inputs_and_outputs_get_zeros() -> None:
    inputs, weight = correlated(7), weights(7, out=3, size=12)
    scale = np.array([0.1, 0.2, 0.3], np.float32)
    wider = np.zeros((4, 16), np.float32)
    wider[:3, :12] = weight
    made = rounded(wider, np.append(scale, np.float32(1)), moments_from(inputs), MOST)
    assert not made[3].any() and not made[:, 12:].any()
    nearest = np.round(weight / scale[:, None])
    spoilt = [
        np.square(inputs @ (weight - scale[:, None] * integers).T).sum(axis=0)
        for integers in (nearest, made[:3, :12])
    ]
    assert (spoilt[1] <= spoilt[0]).all() and spoilt[1].sum() < 0.7 * spoilt[0].sum()


def test_padded_groups_get_zeros_and_the_others_their_own_moments() -> None:
    weight = weights(8, out=3, size=9).reshape(3, 1, 3, 3)
    moments = np.concatenate([moments_from(correlated(n, size=9)) for n in range(3)])
    scale = np.array([0.1, 0.2, 0.3], np.float32)
    wider = np.concatenate([weight, np.zeros((5, 1, 3, 3), np.float32)])
    made = rounded(wider, np.append(scale, np.ones(5, np.float32)), moments, MOST)
    assert made.shape == (8, 1, 3, 3) and not made[3:].any()
    for n in range(3):
        alone = rounded(weight[n : n + 1], scale[n : n + 1], moments[n : n + 1], MOST)
        np.testing.assert_array_equal(made[n : n + 1], alone)


def changed(model: onnx.ModelProto, layer: str, **attributes: list[int]) -> onnx.ModelProto:
    """The net with other attributes of a convolution."""
    node = next(node for node in model.graph.node if node.name == layer)
    kept = [each for each in node.attribute if each.name not in attributes]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(name, v) for name, v in attributes.items())
    return model


def outputs_of(model: onnx.ModelProto, faces: np.ndarray, *names: str) -> list[np.ndarray]:
    """What the nodes of these names answer, in ONNX Runtime."""
    made = {node.name: node.output[0] for node in model.graph.node}
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    probed.graph.output.extend(
        helper.make_tensor_value_info(made[name], TensorProto.FLOAT, None) for name in names
    )
    session = ort.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"faces": faces}))


@pytest.mark.parametrize("strided", [False, True])
def test_moments_tell_how_large_a_layers_answers_are(strided: bool) -> None:
    """wᵀHw is the sum of squares of what the layer itself answers, less its bias."""
    model = mobile_net()
    if strided:
        changed(model, "stem", strides=[2, 1], pads=[0, 1, 2, 0])
        changed(model, "depthwise.2", strides=[1, 3])
    faces = pictures(11)
    moments = moments_of(model, faces)
    layers = layers_of(model)
    assert set(moments) == {
        "stem", "expand", "depthwise.1", "squeeze", "excite", "project", "depthwise.2", "last",
        "head", "fc",
    }  # fmt: skip
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for name, answer in zip(layers, outputs_of(model, faces, *layers), strict=True):
        node, weight = layers[name]
        bias = stored[node.input[2]].reshape(-1, *[1] * (answer.ndim - 2))
        over = tuple(axis for axis in range(answer.ndim) if axis != 1)
        expected = np.square((answer - bias).astype(np.float64)).sum(axis=over)
        groups = group_of(node)
        rows = weight.reshape(groups, len(weight) // groups, -1).astype(np.float64)
        found = np.einsum("gok,gkl,gol->go", rows, moments[name], rows).ravel()
        np.testing.assert_allclose(found, expected, rtol=1e-3, err_msg=name)


def test_kinds_of_layers_it_does_not_know_are_left_out() -> None:
    dilated = changed(mobile_net(), "stem", dilations=[2, 2], pads=[2] * 4)
    assert set(layers_of(mobile_net())) - set(layers_of(dilated)) == {"stem"}
    assert "stem" not in moments_of(dilated, pictures(2))
    turned = mobile_net()
    (fc,) = (node for node in turned.graph.node if node.name == "fc")
    del fc.attribute[:]
    weight = next(each for each in turned.graph.initializer if each.name == "fc.weight")
    turned_weight = np.ascontiguousarray(numpy_helper.to_array(weight).T)
    weight.CopyFrom(numpy_helper.from_array(turned_weight, "fc.weight"))
    assert "fc" not in layers_of(turned)
