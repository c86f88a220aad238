#!/bin/sh
# Measures the embedder on a GPU, and compares its vectors with the processor's. See docs/performance.md.
#
#     benches/gpu/measure.sh              on a machine with an NVIDIA driver, Python 3.10 or later, and a way to PyPI
#     benches/gpu/measure.sh --rehearse   the same steps on the processor alone, to try the script
#
# It takes at most six minutes, beside the download of 1.3 GB. It measures target/release/pg_clip_embedder, or the program that
# PG_CLIP_EMBEDDER names, and builds it where there is none and cargo is there.
set -eu
cd "$(dirname "$0")/../.."

folder=${PG_CLIP_GPU_FOLDER:-$PWD/target/pg_clip/gpu}
embedder=${PG_CLIP_EMBEDDER:-$PWD/target/release/pg_clip_embedder}
packages="onnx numpy pillow packaging sympy"

if [ "${1-}" = --rehearse ]; then
    packages="$packages onnxruntime"
elif ! cuda=$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p') || [ -z "$cuda" ]; then
    echo "There is no NVIDIA GPU here, or no driver: nvidia-smi says nothing of CUDA. Nothing was measured." >&2
    exit 1
elif [ "$cuda" -ge 13 ]; then
    packages="$packages onnxruntime-gpu[cuda,cudnn] nvidia-cublas~=13.0"
else
    # The last release for CUDA 12.
    packages="$packages onnxruntime-gpu[cuda,cudnn]==1.26.0 nvidia-cublas-cu12~=12.0"
fi

if [ ! -x "$embedder" ]; then
    if ! command -v cargo >/dev/null; then
        echo "There is no $embedder and no cargo to build it: set PG_CLIP_EMBEDDER to the program. Nothing was measured." >&2
        exit 1
    fi
    cargo build --release --package pg_clip_embedder
fi

mkdir -p "$folder"
[ -x "$folder/python/bin/python" ] || python3 -m venv "$folder/python"
"$folder/python/bin/python" -m pip install --quiet --disable-pip-version-check $packages
# The driver makes this device only when a program of its own asks for it, and the sandbox starts none.
if command -v nvidia-modprobe >/dev/null; then nvidia-modprobe -u -c 0 || true; fi
exec "$folder/python/bin/python" -B benches/gpu/measure.py "$folder" "$embedder" "$@"
