"""INT8 for OpenVINO: weights that INT8 kernels take, rounded as ours are, the same answers."""

from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest

from contract.faces import FaceInput
from quantize.candidates import OPENVINO
from quantize.graph import float_model
from quantize.openvino_int8 import quantize_openvino
from quantize.rounding import Moments, moments_of
from runtime.openvino_settings import openvino_core
from tests.models import CLASSES, grating, reference_logits, tiny_graph
from tests.quantize.nets import mobile_net, pictures


def gratings(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([grating(n % CLASSES, rng)[..., None] for n in range(count)])


def quantized(
    folder: Path, model: onnx.ModelProto, faces: np.ndarray, moments: Moments | None = None
) -> ov.Model:
    """What the first candidate makes of a net; with its moments on `faces`, unless others given."""
    file = folder / "float.onnx"
    onnx.save(model, file)
    if moments is None:
        moments = moments_of(float_model(file), faces)
    rows = (faces, np.zeros(len(faces), np.int64))
    files = quantize_openvino(file, faces, folder / "int8.xml", OPENVINO[0], rows, 1.0, moments)
    assert files == [folder / "int8.xml", folder / "int8.bin"]
    return ov.Core().read_model(files[0])


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> ov.Model:
    return quantized(tmp_path_factory.mktemp("mobile"), mobile_net(), pictures(20))


@pytest.fixture(scope="module")
def nearest(tmp_path_factory: pytest.TempPathFactory) -> ov.Model:
    """The same with weights as NNCF rounds them."""
    return quantized(tmp_path_factory.mktemp("nearest"), mobile_net(), pictures(20), moments={})


def products(model: ov.Model, kind: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Integers and scales of the weights of every layer of a kind."""
    found = []
    for each in model.get_ops():
        if each.get_type_name() == kind:
            scaled = each.input_value(1).get_node()
            assert scaled.get_type_name() == "Multiply", each.get_friendly_name()
            converted = scaled.input_value(0).get_node()
            assert converted.get_type_name() == "Convert"
            integers = converted.input_value(0).get_node()
            found.append((integers.data, scaled.input_value(1).get_node().data))
    return found


def test_depthwise_weights_are_int8_with_one_scale_per_channel(mobile: ov.Model) -> None:
    """Any other scales, as one per column of a kernel, have no INT8 kernel: it would run float."""
    layers = products(mobile, "GroupConvolution")
    assert {integers.shape for integers, _ in layers} == {(20, 1, 1, 3, 3), (12, 1, 1, 5, 5)}
    for integers, scale in layers:
        assert integers.dtype == np.int8
        assert np.abs(integers.astype(int)).max() > 48, "the integers are used"
        assert scale.shape == (len(integers), 1, 1, 1, 1)
        assert len(np.unique(scale)) > 1, "not one for all"


def test_every_layer_has_int8_weights(mobile: ov.Model) -> None:
    for kind, count in (("Convolution", 7), ("GroupConvolution", 2), ("MatMul", 1)):
        layers = products(mobile, kind)
        assert len(layers) == count
        for integers, scale in layers:
            assert integers.dtype == np.int8
            assert scale.size == len(integers), "one scale per output"
            if (
                kind != "GroupConvolution"
            ):  # NNCF gives depthwise kernels, which add no pairs, eight
                assert np.abs(integers.astype(int)).max() <= 64, "seven bits"


def constants(model: ov.Model) -> list[np.ndarray]:
    return [op.data for op in model.get_ordered_ops() if op.get_type_name() == "Constant"]


def test_rounding_again_changes_integers_and_nothing_else(
    mobile: ov.Model, nearest: ov.Model
) -> None:
    kinds = [[op.get_type_name() for op in each.get_ordered_ops()] for each in (mobile, nearest)]
    assert kinds[0] == kinds[1]
    moved = 0
    for ours, theirs in zip(constants(mobile), constants(nearest), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if ours.dtype == np.int8:
            moved += bool((ours != theirs).any())
        else:
            np.testing.assert_array_equal(ours, theirs)
    assert moved == 10, "every layer has some that move"


def answers(model: ov.Model, faces: np.ndarray) -> np.ndarray:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    return np.asarray(openvino_core().compile_model(model, "CPU", settings)(faces)[0])


def test_rounding_again_brings_answers_nearer(mobile: ov.Model, nearest: ov.Model) -> None:
    faces = pictures(40, seed=6)
    expected = reference_logits(mobile_net(), faces)
    ours, theirs = (np.square(answers(m, faces) - expected).mean() for m in (mobile, nearest))
    assert ours < theirs


def test_the_int8_model_answers_as_the_float_one_does(tmp_path: Path) -> None:
    """This net's nodes have no names, and its weights are rounded again all the same."""
    model, seen, unseen = tiny_graph(FaceInput(size=48)), gratings(70, 2), gratings(210, 11)
    assert not any(node.name for node in model.graph.node)
    int8 = quantized(tmp_path, model, seen)
    one, other = reference_logits(model, unseen).argmax(1), answers(int8, unseen).argmax(1)
    assert len(set(one)) == CLASSES
    assert (one == other).mean() >= 0.97
    (mixed, scale), _ = sorted(products(int8, "Convolution"), key=lambda each: each[1].size)
    mix = tiny_weight(model, "mix") / scale
    assert (np.abs(mixed - mix) > 0.75).any(), "some weight is not at its nearest integer"


def tiny_weight(model: onnx.ModelProto, name: str) -> np.ndarray:
    (tensor,) = (each for each in model.graph.initializer if each.name == name)
    return np.asarray(onnx.numpy_helper.to_array(tensor))
