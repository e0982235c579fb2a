"""States of a stage's rows, and the fingerprints that decide them."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.config.embed import EmbedSettings
from ampere.fingerprint import fingerprint
from ampere.models.model_folder import SETTINGS_FILE
from ampere.pipeline.embed import EmbedStage, input_rows
from ampere.pipeline.runner.plan import Plan, make_plan
from ampere.records import FAILURES, FRAMES, SAMPLES, SUMMARIES
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace
from tests.helpers.workspaces import embedding_model


def test_fingerprints_do_not_change_between_versions() -> None:
    """They are in the tables: a change would make every row of every workspace stale."""
    assert fingerprint("image", ["/a.jpg"], ["uniform", 8, 256, 90]) == "7a79d48a9061e713"


def test_fingerprints_distinguish_values() -> None:
    parts: list[tuple[Any, ...]] = [
        (), ("",), ("", ""), (None,), ("None",), ("a", "b"), ("ab",), (["a", "b"],), (["a"], "b"),
        (1,), ("1",), (1.5,), (True,), ({"a": 1, "b": 2},), ({"a": 2, "b": 1},), ("云",), ("岚",),
    ]  # fmt: skip
    assert len({fingerprint(*p) for p in parts}) == len(parts)
    assert all(len(fingerprint(*p)) == 16 for p in parts)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(deadline=None)
@given(values, values)
def test_equal_values_have_equal_fingerprints(one: Any, other: Any) -> None:
    assert fingerprint(one) == fingerprint(json.loads(json.dumps(one)))
    assert (fingerprint(one) == fingerprint(other)) == (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


def test_fingerprints_ignore_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint(("a", "b")) == fingerprint(
        ["a", "b"]
    )  # a row read back from Arrow has lists


def inputs(**fingerprints: str) -> pa.Table:
    return pa.table({"sample_id": list(fingerprints), "fingerprint": list(fingerprints.values())})


def fill(
    workspace: Workspace, made: dict[str, str], failed: dict[str, str], stage: str = "decode"
) -> None:
    workspace.table(FRAMES).upsert(
        [{"sample_id": name, "fingerprint": f} for name, f in made.items()]
    )
    workspace.table(FAILURES).upsert(
        [
            {"stage": stage, "sample_id": name, "fingerprint": f, "attempts": 1}
            for name, f in failed.items()
        ]
    )


def states(plan: Plan) -> dict[str, str]:
    states = {}
    masks = zip(*(mask.to_pylist() for mask in (plan.done, plan.failed, plan.stale)), strict=True)
    for name, (done, failed, stale) in zip(
        plan.inputs["sample_id"].to_pylist(), masks, strict=True
    ):
        assert done + failed + stale <= 1
        states[name] = "done" if done else "failed" if failed else "stale" if stale else "pending"
    return states


def to_process(plan: Plan, *, retry_failed: bool = False) -> list[str]:
    return plan.rows_to_process(retry_failed=retry_failed)["sample_id"].to_pylist()


def test_states_by_hand(workspace: Workspace) -> None:
    fill(
        workspace,
        made={
            "done": "1",
            "stale": "old",
            "redone": "1",
            "changed": "old",
            "removed": "1",
        },
        failed={"failed": "1", "failed on old input": "old", "redone": "1", "changed": "1"},
    )
    names = ["done", "stale", "redone", "changed", "failed", "failed on old input", "new"]
    plan = make_plan(
        workspace, "decode", workspace.table(FRAMES), inputs(**dict.fromkeys(names, "1"))
    )
    assert states(plan) == {
        "done": "done",
        "stale": "stale",
        "redone": "done",  # its row wins over an old failure
        "changed": "failed",  # it has an old row, and its new input failed
        "failed": "failed",
        "failed on old input": "pending",
        "new": "pending",
    }
    assert plan.counts() == {"done": 2, "pending": 2, "failed": 2, "stale": 1}
    assert to_process(plan) == ["stale", "failed on old input", "new"]
    assert to_process(plan, retry_failed=True) == [
        "stale",
        "changed",
        "failed",
        "failed on old input",
        "new",
    ]


def test_rows_without_input_are_orphans(workspace: Workspace) -> None:
    fill(workspace, {"a": "1", "b": "1", "c": "1"}, {})
    plan = make_plan(workspace, "decode", workspace.table(FRAMES), inputs(a="1", c="2"))
    assert plan.orphans.to_pylist() == ["b"]


def test_everything_is_pending_before_the_first_commit(workspace: Workspace) -> None:
    plan = make_plan(workspace, "decode", workspace.table(FRAMES), inputs(a="1", b="2"))
    assert plan.counts() == {"done": 0, "pending": 2, "failed": 0, "stale": 0}
    assert to_process(plan) == to_process(plan, retry_failed=True) == ["a", "b"]


@pytest.mark.parametrize("filled", [False, True])
def test_no_inputs_no_rows_to_process(workspace: Workspace, filled: bool) -> None:
    if filled:
        fill(workspace, {"a": "1"}, {"b": "1"})
    empty = pa.table(
        {"sample_id": pa.array([], pa.string()), "fingerprint": pa.array([], pa.string())}
    )
    plan = make_plan(workspace, "decode", workspace.table(FRAMES), empty)
    assert plan.counts() == {"done": 0, "pending": 0, "failed": 0, "stale": 0}
    assert to_process(plan) == []


def test_failures_of_other_stages_do_not_count(workspace: Workspace) -> None:
    fill(workspace, {}, {"a": "1"}, stage="summarize")
    assert to_process(make_plan(workspace, "decode", workspace.table(FRAMES), inputs(a="1"))) == [
        "a"
    ]


def test_rows_of_other_methods_do_not_count(workspace: Workspace) -> None:
    workspace.table(SUMMARIES).upsert(
        [
            {"sample_id": "a", "method": "uie", "model": "", "fingerprint": "1"},
            {"sample_id": "b", "method": "llm", "model": "", "fingerprint": "1"},
        ]
    )
    plan = make_plan(
        workspace,
        "summarize",
        workspace.table(SUMMARIES),
        inputs(a="1", b="1"),
        pc.field("method") == "llm",
    )
    assert states(plan) == {"a": "pending", "b": "done"}


def test_input_columns_and_order_stay(workspace: Workspace) -> None:
    fill(workspace, {"b": "1"}, {})
    rows = inputs(c="1", b="1", a="1").append_column("text", pa.array(["3", "2", "1"]))
    assert make_plan(workspace, "decode", workspace.table(FRAMES), rows).rows_to_process(
        retry_failed=False
    ).to_pylist() == [
        {"sample_id": "c", "fingerprint": "1", "text": "3"},
        {"sample_id": "a", "fingerprint": "1", "text": "1"},
    ]


def test_inputs_in_many_chunks(workspace: Workspace) -> None:
    fill(workspace, {str(i): "1" for i in range(0, 40, 2)}, {})
    rows = pa.concat_tables([inputs(**{str(i): "1"}) for i in range(40)])
    plan = make_plan(workspace, "decode", workspace.table(FRAMES), rows)
    assert to_process(plan) == [str(i) for i in range(1, 40, 2)]
    assert plan.counts()["done"] == 20


names = st.sampled_from("abcdefgh")
fingerprints_of = st.dictionaries(names, st.sampled_from(["1", "2"]))


@settings(deadline=None)
@given(fingerprints_of, fingerprints_of, fingerprints_of)
def test_every_row_has_one_state(
    tmp_path_factory: pytest.TempPathFactory,
    want: dict[str, str],
    made: dict[str, str],
    failed: dict[str, str],
) -> None:
    workspace = Workspace.create(tmp_path_factory.mktemp("plan") / "w")
    fill(workspace, made, failed)
    rows = pa.table(
        {
            "sample_id": pa.array(list(want), pa.string()),
            "fingerprint": pa.array(list(want.values()), pa.string()),
        }
    )
    plan = make_plan(workspace, "decode", workspace.table(FRAMES), rows)
    for name, state in states(plan).items():
        if made.get(name) == want[name]:
            assert state == "done"
        elif failed.get(name) == want[name]:
            assert state == "failed"
        else:
            assert state == ("stale" if name in made else "pending")
    assert sum(plan.counts().values()) == len(want)


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("samples", {"domain": "live"}),
        ("samples", {"text": "other words"}),
        ("frames", {"fingerprint": "f2"}),
    ],
)
def test_changed_input_of_an_embedding_changes_its_fingerprint(
    workspace: Workspace, table: str, change: dict[str, str]
) -> None:
    sample = {
        "sample_id": "s",
        "product_id": "p",
        "domain": "short",
        "split": "test",
        "text": "words",
    }
    frame = {"sample_id": "s", "fingerprint": "f1", "frames": [b"jpeg"]}
    folder = embedding_model(workspace)
    fingerprints = []
    for sample_change, frame_change in (
        ({}, {}),
        (change if table == "samples" else {}, change if table == "frames" else {}),
    ):
        workspace.table(SAMPLES).upsert([sample | sample_change])
        workspace.table(FRAMES).upsert([frame | frame_change])
        (row,) = input_rows(workspace, folder, "m@1", LanceFrames(workspace)).to_pylist()
        fingerprints.append(row["fingerprint"])
    before, after = fingerprints
    assert before != after
    for model in ("m@1", "m@2"):
        (row,) = input_rows(workspace, folder, model, LanceFrames(workspace)).to_pylist()
        assert (row["fingerprint"] == after) == (model == "m@1")


def test_summaries_of_another_model_are_embedded_again(workspace: Workspace) -> None:
    """The language model of the training, unless `embed.summary_model` names another."""
    folder = embedding_model(workspace)
    train = {"text": "llm", "summary_model": "a"}
    (folder / SETTINGS_FILE).write_text(json.dumps({"train": train}))
    workspace.table(SAMPLES).append([{"sample_id": "s", "domain": "live", "text": "words"}])
    frame = {"sample_id": "s", "fingerprint": "f", "frames": [b"jpeg"]}
    workspace.table(FRAMES).append([frame | {"width": 15, "height": 20}])
    rows = [("a", "by a"), ("b", "by b")]
    workspace.table(SUMMARIES).append(
        [{"sample_id": "s", "method": "llm", "model": m, "text": t} for m, t in rows]
    )
    stages = [
        EmbedStage(workspace, EmbedSettings(model=folder.name, summary_model=name))
        for name in ("", "b")
    ]
    trained, other = (stage.inputs() for stage in stages)
    assert "embed: m reads frames of 32 pixels, but those of 1 of 1" in stages[0].warnings[0]
    assert trained["text"].to_pylist() == ["by a"] and other["text"].to_pylist() == ["by b"]
    assert trained["fingerprint"] != other["fingerprint"]
