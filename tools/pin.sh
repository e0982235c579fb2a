#!/bin/sh
# Pin requirements/{cpu,gpu,gcp}.txt: sh tools/pin.sh .venv/bin/uv
set -eu
uv=$1
plain="--quiet --no-header --no-emit-index-url --no-emit-find-links --no-annotate --python-version 3.11"
# shellcheck disable=SC2086  # word splitting is intended
"$uv" pip compile pyproject.toml --extra cpu --extra asr --extra aws --extra milvus --extra profile --extra dev \
  --override requirements/overrides.txt $plain \
  ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} -o requirements/cpu.txt
# shellcheck disable=SC2086
env -u PIP_FIND_LINKS "$uv" pip compile pyproject.toml --extra gpu --extra aws --extra profile $plain \
  --python-platform x86_64-manylinux_2_28 -o requirements/gpu.txt
# With the versions of both lists, so that it can be installed over either.
# shellcheck disable=SC2086
printf 'gcsfs\ngoogle-api-python-client\n' | env -u PIP_FIND_LINKS "$uv" pip compile - $plain \
  --constraint requirements/cpu.txt --constraint requirements/gpu.txt -o requirements/gcp.txt
