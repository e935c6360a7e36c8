#!/usr/bin/env bash
# Runs the tests with several threads under ThreadSanitizer, which must have nothing to report.
# Stable Rust has the sanitizer but not the option for it, hence RUSTC_BOOTSTRAP; std is not
# instrumented, and tests/tsan.supp says what that leads to.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RUSTC_BOOTSTRAP=1
export RUSTFLAGS='-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer'
export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp halt_on_error=1 exitcode=66"
exec cargo test --locked --package mm-tests --test frames \
    --target x86_64-unknown-linux-gnu --target-dir target/tsan \
    -- --test-threads 1 concurrency:: page_lists:: "$@"
