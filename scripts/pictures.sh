#!/usr/bin/env bash
# Makes the pictures of the README and of docs/ anew, from runs of the kernel. Machines count instructions, so that a
# kernel gives the same picture again; how many pictures the movie has is up to the host's speed.
# The tests `pictures` run these lines, too, and compare (tests/tests/qemu/pictures.rs).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mkdir -p docs/pictures
cargo run --locked -- --icount --cpus 4 --exec 'stress --cpus 4 200000 1' --picture docs/pictures/stress.png
cargo run --locked -- --icount --memory 64M --exec 'stress 40000 1; stress slab 20000 1' --movie docs/pictures/stress.gif
cargo run --locked -- --icount --memory 64M --exec 'stress 2000 1' --splits docs/pictures/splits.svg
cargo run --locked -- --icount --exec 'stress slab 20000 1' --addresses docs/pictures/addresses.svg
MM_UPDATE_PICTURES=1 cargo test --locked -p mm-tests --test qemu pictures::of_the_screen
