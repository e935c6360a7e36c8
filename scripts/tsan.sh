#!/usr/bin/env bash
# Runs the tests with several threads under ThreadSanitizer, which must have nothing to report.
# scripts/tsan.sh [SUITE]...: those of some suites only.
# Stable Rust has the sanitizer but not the option for it, hence RUSTC_BOOTSTRAP; std is not
# instrumented, and tests/tsan.supp says what that leads to.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

suites=("$@")
if [ $# = 0 ]; then
    suites=(frames grace pagetable percpu virtual_memory vmalloc)
fi

# Modules and tests of a suite in which several threads are at work.
threaded() {
    case $1 in
        frames) echo concurrency:: page_lists:: ;;
        grace) echo periods:: ;;
        objects) echo concurrency:: ;;
        pagetable) echo concurrency:: ;;
        percpu) echo concurrency:: typed::each_cpu ;;
        virtual_memory) echo means::no_cpu pages::eight_cpus pages::changes shootdown:: ;;
        vmalloc) echo suite::vmalloc_stress ;;
        *) echo "$1: no test with several threads is known" >&2; return 1 ;;
    esac
}

export RUSTC_BOOTSTRAP=1
export RUSTFLAGS='-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer'
export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp halt_on_error=1 exitcode=66"
for suite in "${suites[@]}"; do
    tests=$(threaded "$suite")
    # shellcheck disable=SC2086
    cargo test --locked --package mm-tests --test "$suite" \
        --target x86_64-unknown-linux-gnu --target-dir target/tsan \
        -- --test-threads 1 $tests
done
