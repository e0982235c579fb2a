"""The judgments table."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from ampere.records import JUDGMENTS
from ampere.retrieval.judged import BAD, GOOD, Judgment, QueryKey, Rival
from ampere.store import judgments as store
from ampere.store.judgments import (
    append_judgments,
    delete_judgment,
    judgment_json,
    read_judgments,
)
from ampere.store.workspace import Workspace


def judgment(text: str, rival: Rival | None = None) -> Judgment:
    return Judgment(
        query=QueryKey(text=text, domain="short"),
        sample_id="s",
        model="a@1",
        mode="hybrid",
        rank=3,
        grade=BAD,
        rival=rival,
    )


def test_judgments_are_read_as_they_were_stored_the_newest_first(workspace: Workspace) -> None:
    assert read_judgments(workspace) == []
    before = datetime.now(UTC)
    given = [
        judgment("耳机", Rival(model="b@1", mode="vector", rank=2)),
        judgment("it's", Rival(model="b@1", mode="vector")),
        Judgment(
            query=QueryKey(media="ab12", sample_id="q"),
            sample_id="店/1",
            model="a@1",
            mode="vector",
            rank=1,
            grade=GOOD,
        ),
    ]
    ids = [append_judgments(workspace, [one])[0] for one in given]
    stored = read_judgments(workspace)
    assert [one.judgment_id for one in stored] == ids[::-1] and len(set(ids)) == 3
    assert read_judgments(workspace, limit=2) == stored[:2]
    for one, expected in zip(reversed(stored), given, strict=True):
        assert before <= one.judged_at <= datetime.now(UTC)
        fields = {name: getattr(one, name) for name in vars(expected)}
        assert Judgment(**fields) == expected


def test_judgments_of_one_commit_have_ids_of_their_own(workspace: Workspace) -> None:
    ids = append_judgments(workspace, [judgment("a"), judgment("a")])
    assert len(set(ids)) == 2 == workspace.table(JUDGMENTS).count()
    assert append_judgments(workspace, []) == []


def test_json_is_that_of_the_endpoint(workspace: Workspace) -> None:
    append_judgments(workspace, [judgment("a", Rival(model="b@1", mode="vector"))])
    (stored,) = read_judgments(workspace)
    answer = json.loads(json.dumps(judgment_json(stored)))
    assert datetime.fromisoformat(answer.pop("judged_at")) == stored.judged_at
    assert answer == {
        "judgment_id": stored.judgment_id,
        "query": {"text": "a", "sample_id": None, "media": None, "domain": "short"},
        "sample_id": "s",
        "model": "a@1",
        "mode": "hybrid",
        "rank": 3,
        "grade": -1,
        "rival": {"model": "b@1", "mode": "vector", "rank": None},
    }


def test_judgment_that_was_taken_back_is_gone(workspace: Workspace) -> None:
    assert not delete_judgment(workspace, "before the first one")
    first, second = append_judgments(workspace, [judgment("a"), judgment("a")])
    assert delete_judgment(workspace, second)
    assert [one.judgment_id for one in read_judgments(workspace)] == [first]
    assert not delete_judgment(workspace, second)
    assert not delete_judgment(workspace, "' OR true OR judgment_id = '")
    assert len(read_judgments(workspace)) == 1


def test_small_files_are_merged(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MERGE_AT", 3)
    for at in range(5):
        append_judgments(workspace, [judgment(str(at))])
    dataset = workspace.table(JUDGMENTS).dataset()
    assert dataset is not None and len(dataset.get_fragments()) < 3
    assert sorted(one.query.text or "" for one in read_judgments(workspace)) == list("01234")


def test_judgments_of_several_threads_are_all_stored(workspace: Workspace) -> None:
    with ThreadPoolExecutor(4) as pool:
        ids = list(
            pool.map(lambda at: append_judgments(workspace, [judgment(str(at))])[0], range(8))
        )
    assert {one.judgment_id for one in read_judgments(workspace)} == set(ids)
