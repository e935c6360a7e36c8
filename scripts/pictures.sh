#!/usr/bin/env bash
# Makes the pictures of the README and of docs/ anew, from runs of the kernel.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mkdir -p docs/pictures
cargo run --locked -- --cpus 4 --exec 'stress --cpus 4 200000 1' --picture docs/pictures/stress.png
cargo run --locked -- --memory 64M --exec 'stress 40000 1; stress slab 20000 1' --movie docs/pictures/stress.gif
cargo run --locked -- --memory 64M --exec 'stress 2000 1' --splits docs/pictures/splits.svg
cargo run --locked -- --exec 'stress slab 20000 1' --addresses docs/pictures/addresses.svg
