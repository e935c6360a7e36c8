#!/usr/bin/env bash
# Counts host instructions per operation of the page and object paths, with valgrind: where they go, and how
# many they are, whatever else the machine does meanwhile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'END'
usage: scripts/count.sh [WORKLOAD [CONTESTANT]]    instructions per operation
       scripts/count.sh --lines WORKLOAD [CONTESTANT]
                                                   the source lines they are spent on
       scripts/count.sh --objects [--lines] WORKLOAD [CONTESTANT]
                                                   the same of objects

Without words: every workload for every contestant. CONTESTANT is `mm` unless given, `mm-plain` of
objects. An operation is an allocation and its free, or an event of a trace; the workload's own loop is
counted apart and taken off.
END
}

lines=no
benchmark=(--bench frames)
ours=mm
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help) usage && exit 0 ;;
    --lines) lines=yes ;;
    --objects) benchmark=(--features peers --bench objects) ours=mm-plain ;;
    -*) usage >&2 && exit 2 ;;
    *) break ;;
    esac
    shift
done
if [ $# -eq 0 ] && [ "$lines$ours" != nomm ]; then
    usage >&2 && exit 2
fi
if ! command -v valgrind >/dev/null; then
    echo "count.sh: valgrind is not installed (Debian, Ubuntu: apt-get install valgrind)" >&2
    exit 1
fi

bench=$(cargo bench --quiet --package mm-tests "${benchmark[@]}" --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Runs WORKLOAD for CONTESTANT under callgrind and prints the instructions of all times together.
collect() {
    valgrind --tool=callgrind --toggle-collect='*counting*counted*' --dump-instr=no \
        --callgrind-out-file="$folder/out" "$bench" --count "$1" "$2" "$times" 2>"$folder/log" ||
        { cat "$folder/log" >&2 && exit 1; }
    sed -n 's/^\(summary\|totals\): *//p' "$folder/out" | tail -n 1
}

# Prints the operations in one time of WORKLOAD.
operations() {
    "$bench" --list-counts | awk -v name="$1" '$1 == "workload" && $2 == name { print $3 }'
}

# Says how many times a workload of so many operations is run.
choose_times() {
    times=$((200000 / $1))
    times=$((times > 200 ? 200 : times > 1 ? times : 1))
}

words() {
    "$bench" --list-counts | awk -v kind="$1" '$1 == kind && $2 != "nothing" { print $2 }'
}

if [ "$lines" = yes ]; then
    choose_times "$(operations "$1" | grep . || echo 1)"
    collect "$1" "${2-$ours}" >/dev/null
    callgrind_annotate --auto=yes --show-percs=yes --context=1 --threshold=95 "$folder/out"
    exit
fi

printf '%-14s %-22s %14s\n' workload contestant instructions
for workload in ${1-$(words workload)}; do
    each=$(operations "$workload")
    if [ -z "$each" ]; then
        echo "count.sh: no workload \`$workload\`; there are: $(words workload | xargs)" >&2
        exit 2
    fi
    choose_times "$each"
    loop=$(collect "$workload" nothing)
    contestants=$([ $# -eq 0 ] && words contestant || echo "${2-$ours}")
    for contestant in $contestants; do
        total=$(collect "$workload" "$contestant")
        awk -v w="$workload" -v c="$contestant" -v t="$total" -v l="$loop" -v n="$((each * times))" \
            'BEGIN { printf "%-14s %-22s %14.1f\n", w, c, (t - l) / n }'
    done
done
