"""A cut is seeded, keeps groups whole, and takes its share of every label."""

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from trainer.data.splits import counts, cut_groups

labelled = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(["happy", "sad", "fear"])), max_size=150
)
shares = st.floats(0, 1)
seeds = st.integers(0, 2**32)


@given(labelled, shares, seeds)
def test_no_group_is_divided_and_every_label_gives_its_share(
    pairs: list[tuple[int, str]], share: float, seed: int
) -> None:
    groups = [group for group, _ in pairs]
    labels = [label for _, label in pairs]
    chosen = cut_groups(pairs, groups, labels, share, seed)
    assert chosen <= set(range(len(pairs)))
    for group in set(groups):
        members = {n for n, g in enumerate(groups) if g == group}
        assert members <= chosen or not members & chosen

    sizes = Counter(groups)
    stratum = {group: labels[groups.index(group)] for group in sizes}  # its first item's label
    of_label: dict[str, list[int]] = defaultdict(list)
    for group, label in stratum.items():
        of_label[label].append(group)
    for members_of in of_label.values():
        total = sum(sizes[group] for group in members_of)
        taken = sum(1 for n in chosen if groups[n] in members_of)
        # No nearer is possible in general: half of one group.
        assert abs(taken - share * total) <= max(sizes[group] for group in members_of) / 2 + 1e-9


@given(labelled, shares, seeds)
def test_the_seed_decides(pairs: list[tuple[int, str]], share: float, seed: int) -> None:
    groups, labels = [g for g, _ in pairs], [label for _, label in pairs]
    first = cut_groups(pairs, groups, labels, share, seed)
    assert cut_groups(pairs, groups, labels, share, seed) == first


@given(seeds)
def test_another_seed_is_another_cut(seed: int) -> None:
    items = list(range(200))
    labels = ["happy"] * 200
    assert cut_groups(items, items, labels, 0.3, seed) != cut_groups(
        items, items, labels, 0.3, seed + 1
    )


@given(seeds)
def test_the_labels_of_others_do_not_move_a_cut(seed: int) -> None:
    """Each label is shuffled on its own: a corrected label elsewhere leaves the rest in place."""
    items = list(range(100))
    before = cut_groups(items, items, ["sad"] * 50 + ["happy"] * 50, 0.2, seed)
    after = cut_groups(items, items, ["sad"] * 50 + ["happy"] * 49 + ["fear"], 0.2, seed)
    assert {n for n in before if n < 50} == {n for n in after if n < 50}


def test_counts_are_in_the_order_of_the_names() -> None:
    assert list(counts(["b", "a", "b"]).items()) == [("a", 1), ("b", 2)]
