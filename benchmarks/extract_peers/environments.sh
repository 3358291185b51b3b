#!/usr/bin/env bash
# Make one environment for each peer of benchmarks/extract.py:
#
#   benchmarks/extract_peers/environments.sh FOLDER [PYTHON]
#
# PYTHON is this package's own (.venv/bin/python). Its libraries are seen from the peers' environments, so that all tools
# run the same torch, timm and OpenSlide, and nothing is ever installed among them.
set -euo pipefail

folder=${1:?usage: environments.sh FOLDER [PYTHON]}
python=${2:-.venv/bin/python}
common=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
keep=$(mktemp)
trap 'rm -f "$keep"' EXIT
"$python" -m pip freeze --exclude-editable |
  grep -iE '^(torch|torchvision|timm|numpy|opencv-python-headless|openslide-bin|openslide-python|transformers|huggingface_hub)==' > "$keep"

make_environment() { # NAME
  "$python" -m venv "$folder/$1"
  echo "$common" > "$("$folder/$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/common.pth"
  "$folder/$1/bin/python" -m pip install -q --upgrade pip # the one that comes with Python 3.11 does not finish LazySlide's resolution
}

make_environment lazyslide
"$folder/lazyslide/bin/python" -m pip install -q -c "$keep" lazyslide==0.13.0

# TIAToolbox 2.1.3 asks for older torch, numpy, pillow and OpenSlide than this package runs with, so its own
# requirements are passed over; these are what extraction needs beyond the common libraries.
make_environment tiatoolbox
"$folder/tiatoolbox/bin/python" -m pip install -q --no-deps tiatoolbox==2.1.3
"$folder/tiatoolbox/bin/python" -m pip install -q -c "$keep" 'bokeh<3.9.1' dask defusedxml flask flask-cors glymur \
  matplotlib pandas pydicom shapely SimpleITK umap-learn wsidicom

# hs2p asks for opencv-python and wandb: the headless OpenCV is there, and wandb is for its own command line.
make_environment hs2p
"$folder/hs2p/bin/python" -m pip install -q --no-deps hs2p==6.1.0
"$folder/hs2p/bin/python" -m pip install -q -c "$keep" matplotlib omegaconf pandas

for name in lazyslide tiatoolbox hs2p; do
  "$folder/$name/bin/python" -c "
import importlib.metadata as m, torch
print('$name', m.version('$name'), 'with torch', torch.__version__, 'from', torch.__file__)"
done
