"""Compare the transcribe job with the bare engine; all in one run, since machines are noisy.

    python benchmarks/transcribe.py [--short 8] [--long 40] [--model FOLDER]

Audio seconds per second of the `ampere transcribe` job on Ray with vLLM, and of `vllm.LLM.generate`
on the same pieces of audio in a process of its own, with the same settings. The job also reads the
files, finds the speech, cuts it into pieces, and writes the table. Each runs on a short and a long
list; the difference of their times is that of the clips between them, which excludes the start of
Ray and of the engine, and filling and draining the engine. The engine has one core; the job's other
work takes what is left.

Clips are 20 to 28 s of synthetic speech (tests/data/speech) in random order, so that no two are
equal. The model is a Whisper with random weights of the size of whisper-base, unless one is named.
A random model ends no text before its limit, so every piece has the same number of tokens.
"""

import argparse
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bars import check_bars
from memory import PeakMemory

from ampere.cluster import connect
from ampere.config.transcribe import SAMPLE_RATE, TranscribeSettings
from ampere.huge_pages import use_huge_pages
from ampere.media.audio import decode_audio
from ampere.media.speech import SpeechDetector
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.transcribe.stage import TranscribeStage
from ampere.records import SAMPLES
from ampere.store.workspace import Workspace
from ampere.text.speech_engines.vllm_speech import VllmTranscriber
from ampere.text.vllm_env import engine_env

ROOT = Path(__file__).resolve().parents[1]
MAX_TOKENS = 32


def write_clips(folder: Path, count: int) -> list[Path]:
    """Write clips of speech as Opus, the same in every run."""
    import av

    speech = {
        path: decode_audio(path.read_bytes(), 60)
        for path in (ROOT / "tests/data/speech").glob("*.opus")
    }
    order, files = random.Random(0), []
    for number in range(count):
        chosen = [order.choice(sorted(speech)) for _ in range(order.randint(5, 7))]
        audio = np.concatenate([speech[path] for path in chosen])[: 28 * SAMPLE_RATE]
        files.append(folder / f"{number}.opus")
        with av.open(str(files[-1]), "w") as container:
            stream = container.add_stream("libopus", rate=48_000, layout="mono")
            resampler = av.AudioResampler("s16", "mono", 48_000)
            samples = (audio * 32_767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(resampled))
            container.mux(stream.encode(None))
    return files


def job(files: list[Path], settings: TranscribeSettings, folder: Path) -> tuple[float, float, str]:
    """Run the stage on a running Ray; return its seconds, peak memory in GB and report."""
    workspace = Workspace.create(folder)
    workspace.table(SAMPLES).append(
        [
            {
                "sample_id": file.stem,
                "domain": "live",
                "media_kind": "file",
                "media_uris": [str(file)],
            }
            for file in files
        ]
    )
    with PeakMemory() as memory:
        report = run_stage(TranscribeStage(workspace, settings), workspace)
    assert report.done == len(files), report
    return report.seconds, memory.peak / 1e9, str(report)


def pieces_of(files: list[Path], settings: TranscribeSettings) -> list[np.ndarray]:
    """The pieces that the job makes of some files."""
    detector = SpeechDetector()
    return [
        piece.samples
        for file in files
        for piece in detector.pieces(decode_audio(file.read_bytes(), 60), settings.piece_s)
    ]


def bare_here(arguments: str) -> int:
    """Print the seconds of the bare engine for the arguments of `bare`, as JSON."""
    names, settings = json.loads(arguments)
    settings = TranscribeSettings(**settings)
    transcriber = VllmTranscriber(settings)
    pieces = pieces_of([Path(name) for name in names], settings)
    transcriber.transcribe(pieces[:2], settings.language)
    start = time.perf_counter()
    transcriber.transcribe(pieces, settings.language)
    print(time.perf_counter() - start)
    return 0


def bare(files: list[Path], settings: TranscribeSettings) -> float:
    """Return the seconds of the bare engine, in a process of its own."""
    arguments = json.dumps([[str(file) for file in files], dataclasses.asdict(settings)])
    # As Ray sets it for an engine: as many threads as CPUs.
    threads = {"OMP_NUM_THREADS": str(max(1, int(settings.cpus)))}
    command = [sys.executable, __file__, "--bare", arguments]
    env = os.environ | engine_env(gpus=0) | threads
    output = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(output.splitlines()[-1])


def main() -> int:
    """Run the benchmark; return 1 if the bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", type=int, default=8)
    parser.add_argument("--long", type=int, default=40)
    parser.add_argument("--model", help="folder of a Whisper; default: random weights")
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    args = parser.parse_args()
    use_huge_pages()
    if args.bare:
        return bare_here(args.bare)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.model is None:
            sys.path.insert(0, str(ROOT))
            from tests.helpers.speech_models import write_whisper

            args.model = str(write_whisper(folder / "whisper", layers=6, width=512))
        settings = TranscribeSettings(
            engine="vllm", model=args.model, language="en", max_tokens=MAX_TOKENS, batch_size=8
        )
        files = write_clips(folder, args.long)
        seconds = sum(len(decode_audio(file.read_bytes(), 60)) for file in files[args.short :])
        seconds /= SAMPLE_RATE
        bare_s = bare(files, settings) - bare(files[: args.short], settings)
        connect()
        short, _, _ = job(files[: args.short], settings, folder / "short")
        long, peak, report = job(files, settings, folder / "long")
    job_s = long - short
    print(report)
    print(f"vllm.LLM.generate   {seconds / bare_s:8.2f} audio s/s")
    print(f"the job             {seconds / job_s:8.2f} audio s/s without the start")
    print(f"peak memory         {peak:8.2f} GB")
    return check_bars(("job / bare engine", bare_s / job_s, 0.9))


if __name__ == "__main__":
    raise SystemExit(main())
