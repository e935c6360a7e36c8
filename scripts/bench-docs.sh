#!/usr/bin/env bash
# Runs the host benchmarks and puts their tables into docs/benchmarks.md. The guest's tables are set by
# MM_UPDATE_BUDGETS=1 cargo test -p mm-tests --test qemu budget
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

document=docs/benchmarks.md
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Runs a benchmark and puts its tables between the marks of that name: everything there is replaced; a
# document without both marks stays as it is.
tables() {
    local name=$1
    shift
    cargo bench --quiet --package mm-tests "$@" --bench "$name" | tee "$folder/tables"
    awk -v tables="$folder/tables" -v start="<!-- $name -->" '
        /^<!-- end -->$/ && inside { inside = 0; found = 1 }
        !inside { print }
        $0 == start {
            inside = 1
            while ((getline line < tables) > 0) print line
        }
        END { exit inside || !found }
    ' "$document" >"$folder/document" || {
        echo "bench-docs.sh: $document has no place for the tables of $name" >&2
        exit 1
    }
    cp "$folder/document" "$document"
}

tables frames
tables objects --features peers
