import pytest

from ampere.config.cluster_shape import Nodes, node_price, parse_prices, parse_shape


def test_shape_names_nodes_cores_and_gpus() -> None:
    assert parse_shape("head=1x0, cpu=16x8,gpu-spot=4x8x2") == (
        Nodes("head", 1, 0),
        Nodes("cpu", 16, 8),
        Nodes("gpu-spot", 4, 8, 2),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--cluster has ''; expected NAME=NODESxCORES"),
        ("cpu=16", "--cluster has 'cpu=16'; expected NAME=NODESxCORES"),
        ("cpu=16x8x1x1", "expected NAME=NODESxCORES"),
        ("cpu=-1x8", "expected NAME=NODESxCORES"),
        ("cpu=16x8,", "--cluster has ''; expected"),
        ("16x8", "--cluster has '16x8'; expected"),
        ("cluster.yaml", "--cluster has 'cluster.yaml'; expected"),
        ("cpu=1x8,cpu=2x8", "expected each name once"),
        ("cpu=0x8", "--cluster has no node of type cpu; leave it out"),
        ("head=1x0", "whose nodes have no cores"),
    ],
)
def test_bad_shape_is_refused_with_an_example(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_shape(text)


def test_prices_belong_to_node_types() -> None:
    shape = parse_shape("cpu=16x8,gpu=4x8x1")
    assert parse_prices(["gpu=1.5", "cpu=0"], shape) == {"gpu": 1.5, "cpu": 0.0}
    assert parse_prices([], shape) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu", "expected NAME=PRICE of a node per hour, as in cpu=0.5"),
        ("cpu=cheap", "expected NAME=PRICE"),
        ("cpu=-1", "expected NAME=PRICE"),
        ("cpu=nan", "expected NAME=PRICE"),
        ("tpu=1", "--prices names 'tpu'; expected a type of --cluster"),
    ],
)
def test_bad_price_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_prices([text], parse_shape("cpu=16x8"))


def test_repeated_price_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        parse_prices(["cpu=1", "cpu=2"], parse_shape("cpu=16x8"))


def test_price_of_nodes_is_unknown_without_that_of_each_type() -> None:
    prices = {"cpu": 0.5, "gpu": 2.0}
    assert node_price(prices, {"cpu": 3, "gpu": 1}) == 3.5
    assert node_price(prices, {"cpu": 3, "tpu": 1}) is None
    assert node_price(prices, {}) == 0
    assert node_price({}, {}) is None
