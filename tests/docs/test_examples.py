"""The examples run, on tiny inputs."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from ampere.config.index import IndexSettings
from ampere.media.decoder import FrameRequest, TooLarge
from ampere.models.embedder import Embedder
from ampere.models.model_folder import SETTINGS_FILE
from ampere.pipeline.index import build_index
from ampere.records import SAMPLES, Domain
from ampere.store.workspace import Workspace
from ampere.training.loop import build_model
from tests.helpers.embeddings import write_embeddings
from tests.helpers.training import small_job, small_set, solid_frames
from tests.helpers.videos import encode

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example() -> Callable[[str], ModuleType]:
    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_custom_decoder_reads_its_format_and_leaves_others_to_ampere(
    example: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    custom = example("custom_decoder")
    frames = np.arange(10, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 6, 8, 3), np.uint8)
    video = custom.write_raw(frames, rate=5.0)

    clip = custom.decode(video, FrameRequest(num_frames=4))
    assert clip.decoder == "raw"
    assert clip.frames[:, 0, 0, 0].tolist() == [1, 3, 6, 8]
    assert clip.timestamps_s.tolist() == [0.2, 0.6, 1.2, 1.6]

    with pytest.raises(TooLarge, match="8 x 6 pixels"):
        custom.decode(video, FrameRequest(num_frames=4, max_pixels=40))
    with pytest.raises(custom.Truncated, match="bytes are too few for 10 frames"):
        custom.decode(video[:-1], FrameRequest(num_frames=4))

    shades = np.repeat(np.arange(30, dtype=np.uint8) * 8, 64 * 64 * 3).reshape(30, 64, 64, 3)
    other = custom.decode(encode("libx264", shades), FrameRequest(num_frames=4))
    assert other.decoder == "pyav" and other.frames.shape == (4, 64, 64, 3)

    custom.main()
    assert capsys.readouterr().out.startswith("raw: frames (8, 24, 32, 3) at [0.24, ")


@pytest.fixture
def searchable(workspace: Workspace) -> Workspace:
    """A workspace with a small untrained model and an index of six samples, two in each domain."""
    training_set, frames = small_set(1)
    job = small_job(training_set)
    torch.manual_seed(0)
    folder = Path(workspace.uri) / "models" / "ampere"
    build_model(job).save_pretrained(folder, job.tokenizer)
    (folder / SETTINGS_FILE).write_text(json.dumps({"train": {"text": "llm"}}))
    embedder = Embedder(folder)
    samples = [(id, domain) for domain, ids in training_set.products["p00"].items() for id in ids]
    vectors = embedder.embed(
        frames.take([id for id, _ in samples]),
        [training_set.texts[id] for id, _ in samples],
        [domain for _, domain in samples],
    )
    workspace.table(SAMPLES).upsert(
        [
            {"sample_id": id, "domain": str(domain), "split": "test", "media_uris": [f"{id}.jpg"]}
            for id, domain in samples
        ]
    )
    rows = [
        {"sample_id": id, "domain": str(domain), "vector": vector, "fingerprint": f"{at:016x}"}
        for at, ((id, domain), vector) in enumerate(zip(samples, vectors, strict=True))
    ]
    write_embeddings(workspace, embedder.name, rows)
    build_index(workspace, IndexSettings(model="ampere"))
    return workspace


def test_search_from_python_prints_hits_of_every_domain(
    example: Callable[[str], ModuleType],
    searchable: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture = tmp_path / "query.jpg"
    picture.write_bytes(solid_frames(0, 1)[0])
    example("search_from_python").main(searchable.uri, str(picture), "product 0")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [domain for domain, *_ in lines] == [str(domain) for domain in Domain for _ in range(2)]
    # The page with the query's picture and text is found with its own vector.
    assert lines[0][1:3] == ["1.000", "page-00-1"]
