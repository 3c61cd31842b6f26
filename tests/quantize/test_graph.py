"""The float graph as quantizers see it: tidy, named, its parts known by what they do."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quantize.graph import nodes_by_part, shapes_of, with_names, without_idle_casts
from tests.models import reference_logits
from tests.quantize.nets import mobile_net, pictures


def with_cast(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with a cast of float32 to float32 behind the node `name`.

    Readers read the cast; where the node makes the graph's output, the cast makes it.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    place = next(i for i, node in enumerate(graph.node) if node.name == name)
    made = graph.node[place].output[0]
    is_output = made in {value.name for value in graph.output}
    before, after = (f"{made}.before", made) if is_output else (made, f"{made}.after")
    graph.node[place].output[0] = before
    for node in graph.node[place + 1 :]:
        for i, read in enumerate(node.input):
            if read == made:
                node.input[i] = after
    cast = helper.make_node("Cast", [before], [after], name=f"{name}.cast", to=TensorProto.FLOAT)
    graph.node.insert(place + 1, cast)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def operations(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("place", ["stem", "project", "head", "fc"])
def test_a_cast_that_casts_nothing_goes(place: str) -> None:
    plain = mobile_net()
    model = with_cast(plain, place)
    assert operations(model).count("Cast") == 2
    tidy = without_idle_casts(model)
    assert operations(tidy) == operations(plain), "only the idle one goes: faces are still bytes"
    assert [value.name for value in tidy.graph.output] == ["logits"]
    assert [value.name for value in tidy.graph.input] == ["faces"]
    faces = pictures(3)
    np.testing.assert_array_equal(reference_logits(tidy, faces), reference_logits(plain, faces))
    assert operations(model).count("Cast") == 2, "the model given must not change"


def test_casts_behind_each_other_all_go() -> None:
    plain = mobile_net()
    model = with_cast(with_cast(with_cast(plain, "fc"), "fc"), "expand")
    tidy = without_idle_casts(model)
    assert operations(tidy) == operations(plain)
    faces = pictures(3)
    np.testing.assert_array_equal(reference_logits(tidy, faces), reference_logits(plain, faces))


@pytest.mark.parametrize("between", ["", "scale"])
def test_parts_are_found_by_what_they_do(between: str) -> None:
    assert nodes_by_part(mobile_net(between=between)) == {
        "stem": ["stem"],
        "depthwise": ["depthwise.1", "depthwise.2"],
        "squeeze-excite": ["squeeze", "excite"],
        "head": ["head"],
        "classifier": ["fc"],
    }


def test_parts_do_not_depend_on_names() -> None:
    model = mobile_net()
    order = {node.name: i for i, node in enumerate(model.graph.node)}
    expected = {
        part: [order[name] for name in names] for part, names in nodes_by_part(model).items()
    }
    for i, node in enumerate(model.graph.node):
        node.name = f"node/{i}"
    found = nodes_by_part(model)
    assert {part: [int(n.removeprefix("node/")) for n in names] for part, names in found.items()} \
        == expected  # fmt: skip


def test_shapes_are_of_one_face() -> None:
    shapes = shapes_of(mobile_net(stem=12, wide=20))
    assert shapes["faces"] == (1, 16, 16, 1)
    assert shapes["depthwise.1.out"] == (1, 20, 16, 16)
    assert shapes["squeeze.out"] == (1, 8, 1, 1)
    assert shapes["logits"] == (1, 7)


def test_every_node_gets_a_name_of_its_own_and_keeps_the_one_it_has() -> None:
    model = mobile_net()
    for node in model.graph.node:
        if node.op_type == "HardSwish":
            node.name = ""
        elif node.op_type == "Relu":
            node.name = "twice"
    named = [node.name for node in with_names(model).graph.node]
    assert len(set(named)) == len(named) and all(named)
    assert {"stem", "fc", "twice"} <= set(named)
    assert not all(node.name for node in model.graph.node), "the model given must not change"
