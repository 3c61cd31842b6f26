"""Depthwise widths in whole vectors: another graph, the same model."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from quantize.graph import group_of
from quantize.pad_channels import pad_depthwise
from tests.models import reference_logits
from tests.quantize.nets import mobile_net, pictures


def widths(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Channels out of and into every convolution, groups counted in, by the node's name."""
    stored = {each.name: numpy_helper.to_array(each).shape for each in model.graph.initializer}
    return {
        node.name: (stored[node.input[1]][0], stored[node.input[1]][1] * group_of(node))
        for node in model.graph.node
        if node.op_type == "Conv"
    }


def assert_same_model(padded: onnx.ModelProto, original: onnx.ModelProto) -> None:
    faces = pictures(4)
    before, after = reference_logits(original, faces), reference_logits(padded, faces)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())


def test_widths_grow_through_gates_and_residuals_and_no_answer_changes() -> None:
    model = mobile_net(stem=12, wide=20)
    untouched = model.SerializeToString()
    padded = pad_depthwise(model)
    assert np.ptp(reference_logits(model, pictures(4)), axis=0).max() > 0.5, "it tells them apart"
    assert widths(padded) == {
        "stem": (16, 1),
        "expand": (32, 16),
        "depthwise.1": (32, 32),
        "squeeze": (8, 32),
        "excite": (32, 8),
        "project": (16, 32),
        "depthwise.2": (16, 16),
        "last": (24, 16),
        "head": (10, 24),
    }
    assert_same_model(padded, model)
    assert model.SerializeToString() == untouched, "the model given must not change"


@settings(max_examples=15)
@given(st.integers(2, 40), st.integers(2, 40), st.sampled_from([4, 8, 16]), st.integers(0, 99))
def test_any_widths_become_multiples(stem: int, wide: int, multiple: int, seed: int) -> None:
    model = mobile_net(stem, wide, seed=seed)
    padded = pad_depthwise(model, multiple)
    made, given_ = widths(padded), widths(model)
    for name in ("depthwise.1", "depthwise.2"):
        assert made[name][0] % multiple == 0
        assert 0 <= made[name][0] - given_[name][0] < multiple, "no wider than it has to be"
    assert_same_model(padded, model)


def test_whole_vectors_are_left_as_they_are() -> None:
    model = mobile_net(stem=16, wide=32)
    assert widths(pad_depthwise(model)) == widths(model)


@pytest.mark.parametrize("between", ["softmax", "scale"])
def test_channels_that_something_unknown_reads_keep_their_width(between: str) -> None:
    """A softmax over channels would count the added ones; a scale per channel would not fit."""
    model = mobile_net(stem=12, wide=20, between=between)
    padded = pad_depthwise(model)
    # What is read by it stays; the depthwise layer's own channels are joined to it.
    assert widths(padded)["expand"] == (20, 16)
    assert widths(padded)["depthwise.1"] == (20, 20)
    assert widths(padded)["depthwise.2"] == (16, 16), "the other layer is padded all the same"
    assert_same_model(padded, model)


def test_a_scalar_factor_is_no_obstacle() -> None:
    model = mobile_net(stem=12, wide=20, between="double")
    padded = pad_depthwise(model)
    assert widths(padded)["depthwise.1"] == (32, 32)
    assert_same_model(padded, model)
