#!/bin/sh
# Make an Ubuntu machine a node of the cluster: sh deploy/node.sh cpu|gpu
#
# cluster.yaml runs it on every node, and Packer when it builds an image (image.pkr.hcl). On a
# machine from such an image it only installs this repository again, which takes seconds.
# Python is uv's build of it: the same one on every image.
set -eu
kind=$1
python=3.11.15
cd "$(dirname "$0")/.."
if [ ! -x ~/uv/bin/uv ]; then
  sudo apt-get update -qq
  # A compiler: Triton and torch.compile build kernels at run time.
  sudo DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends g++ python3-venv
  python3 -m venv ~/uv
  ~/uv/bin/pip install --quiet "uv==$(sed -n 's/^uv==//p' requirements/cpu.txt)"
fi
~/uv/bin/uv python install --quiet "$python"
PYTHON=$(~/uv/bin/uv python find --managed-python "$python") sh tools/setup.sh ~/venv "$kind"
# Ray runs its commands in a login shell that reads this file.
line='export PATH="$HOME/venv/bin:$PATH" RAY_AUTH_MODE=token'
grep -qxF "$line" ~/.bashrc || echo "$line" >> ~/.bashrc
