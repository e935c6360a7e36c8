#!/usr/bin/env bash
# Runs the host benchmark and puts its tables into docs/benchmarks.md. The guest's tables are set by
# MM_UPDATE_BUDGETS=1 cargo test -p mm-tests --test qemu budget
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

document=docs/benchmarks.md
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cargo bench --quiet --package mm-tests --bench frames | tee "$folder/tables"
# Everything between the marks is replaced; a document without both of them stays as it is.
awk -v tables="$folder/tables" '
    /^<!-- end -->$/ && inside { inside = 0; found = 1 }
    !inside { print }
    /^<!-- frames -->$/ {
        inside = 1
        while ((getline line < tables) > 0) print line
    }
    END { exit inside || !found }
' "$document" >"$folder/document" || {
    echo "bench-docs.sh: $document has no place for the tables" >&2
    exit 1
}
cp "$folder/document" "$document"
