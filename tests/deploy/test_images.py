"""Images and nodes: what deploy/Dockerfile copies, what Packer runs, versions everywhere."""

import fnmatch
import importlib.metadata
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
NODE = (ROOT / "deploy" / "node.sh").read_text(encoding="utf-8")
PACKER = sorted((ROOT / "deploy").glob("*/image.pkr.hcl"))


def instructions() -> list[list[str]]:
    """The instructions of the Dockerfile, as words without options."""
    text = re.sub(r"\\\n", " ", DOCKERFILE)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [[word for word in line.split() if not word.startswith("--")] for line in lines]


def is_in_context(path: str) -> bool:
    """Whether .dockerignore lets a file through: the last pattern that fits it decides."""
    lets = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.lstrip("!").replace("**/", "*")
        parents = [path, *(str(parent) for parent in Path(path).parents)]
        if line and line[0] != "#" and any(fnmatch.fnmatch(part, pattern) for part in parents):
            lets = line[0] == "!"
    return lets


def stages() -> dict[str, list[list[str]]]:
    """The instructions of each stage, with those of the stages it starts from."""
    built: dict[str, list[list[str]]] = {}
    name = ""
    for words in instructions():
        if words[0] == "FROM":
            name = words[3]
            built[name] = list(built.get(words[1], []))
        else:
            built[name].append(words)
    return built


def test_copied_files_exist_and_reach_the_builder() -> None:
    copied = {path for words in instructions() if words[0] == "COPY" for path in words[1:-1]}
    assert copied == {"requirements", "tools/setup.sh", "pyproject.toml", "README.md", "."}
    for path in copied - {"."}:
        assert (ROOT / path).exists() and is_in_context(path), path


@pytest.mark.parametrize(
    ("path", "is_sent"),
    [
        ("ampere/text/small_lm/model.safetensors", True),
        ("jobs/run.py", True),
        ("serve/page/index.html", True),
        ("ampere/__pycache__/cli.cpython-311.pyc", False),
        (".git/config", False),
        (".venv/bin/python", False),
        ("demo/workspace/workspace.json", False),
        ("tests/conftest.py", False),
        ("tools/small_lm/train.py", False),
    ],
)
def test_context_is_what_runs_on_a_node(path: str, is_sent: bool) -> None:
    assert is_in_context(path) is is_sent


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_target_installs_its_requirements_and_ends_as_a_user(kind: str) -> None:
    built = stages()[kind]
    users = [words[1] for words in built if words[0] == "USER"]
    assert users == ["1000"]  # a number, for runAsNonRoot
    (setup,) = [words for words in built if "tools/setup.sh" in words and words[0] == "RUN"]
    assert setup[-1] == kind and (ROOT / "requirements" / f"{kind}.txt").exists()
    order = [words[0] if words != setup else "setup" for words in built]
    # The packages before the sources: a change of the sources leaves their layer as it is.
    assert order.index("setup") < built.index(["COPY", ".", "."]) < len(built) - 1
    runs = [" ".join(words) for words in built if words[0] == "RUN"]
    assert all("UV_NO_CACHE=1" in run for run in runs if "setup.sh" in run or "uv pip" in run)
    assert "rm -rf /var/lib/apt/lists/*" in runs[0]


def test_base_images_are_pinned_and_of_no_registry() -> None:
    built = set(stages())
    bases = {words[1] for words in instructions() if words[0] == "FROM"} - built
    (base,) = bases
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    assert "://" not in DOCKERFILE


def test_node_and_image_have_the_same_python() -> None:
    (of_node,) = re.findall(r"^python=(\S+)$", NODE, re.MULTILINE)
    (of_image,) = re.findall(r"^FROM python:([\d.]+)-", DOCKERFILE, re.MULTILINE)
    assert of_node == of_image


def test_node_script_parses_and_names_files_that_exist() -> None:
    subprocess.run(["sh", "-n", str(ROOT / "deploy" / "node.sh")], check=True)
    names = re.findall(r"(?:requirements|tools)/[\w.]+", NODE)
    assert "tools/setup.sh" in names and all((ROOT / name).is_file() for name in names)


def test_node_script_sets_up_a_machine_and_may_run_again(tmp_path: Path) -> None:
    """With a uv that records its calls; a real one would install gigabytes."""
    repository, home = tmp_path / "ampere", tmp_path / "home"
    log = tmp_path / "log"
    (python,) = re.findall(r"^python=(\S+)$", NODE, re.MULTILINE)
    for path, text in {
        repository / "deploy" / "node.sh": NODE,
        repository / "requirements" / "cpu.txt": "uv==0\n",
        repository / "tools" / "setup.sh": f'echo "setup $PYTHON $*" >> {log}\n',
        home / "uv" / "bin" / "uv": f'#!/bin/sh\necho "$*" >> {log}\necho /the/python\n',
        home / ".bashrc": "",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (home / "uv" / "bin" / "uv").chmod(0o755)
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    for _ in range(2):
        command = ["sh", str(repository / "deploy" / "node.sh"), "gpu"]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert log.read_text(encoding="utf-8").splitlines() == 2 * [
        f"python install --quiet {python}",
        f"python find --managed-python {python}",
        f"setup /the/python {home}/venv gpu",
    ]
    (line,) = (home / ".bashrc").read_text(encoding="utf-8").splitlines()
    assert "RAY_AUTH_MODE=token" in line and "$HOME/venv/bin" in line


@pytest.mark.parametrize("path", PACKER, ids=[path.parent.name for path in PACKER])
def test_packer_makes_a_node_of_a_pinned_image(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(PACKER) == 2
    assert 'sh ~/ampere/deploy/node.sh ${var.kind}"' in text
    assert re.search(r'version\s+= "\d+\.\d+\.\d+"', text)
    assert not re.search("most_recent|family|latest", text)
    user = re.search(r'ssh_username\s+= "(\w+)"', text)
    folder = ROOT if path.parent.name == "aws" else path.parent
    assert user and f"ssh_user: {user[1]}" in (folder / "cluster.yaml").read_text("utf-8")


def test_ray_has_one_version_everywhere() -> None:
    files = [ROOT / "cluster.yaml", ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    files += [path for path in (ROOT / "deploy").rglob("*") if path.is_file()]
    files += (ROOT / "requirements").glob("*.txt")
    pattern = re.compile(r'(?:\brayVersion: "|\bray(?:\[[\w,]+\])?==)([\d.]+)')
    found = {path.name: pattern.findall(path.read_text(encoding="utf-8")) for path in files}
    pinned = importlib.metadata.version("ray")
    assert {version for versions in found.values() for version in versions} == {pinned}
    assert found["cpu.txt"] and found["gpu.txt"] and found["search.yaml"]
