#!/bin/sh
# fuzz.sh [SECONDS]: every fuzz target with libFuzzer, ASan and UBSan, for a minute each; new inputs stay in build/fuzz.
set -eu
cd "$(dirname "$0")/.."
for f in tests/fuzz_*.c; do
    name=$(basename "$f" .c)
    [ "$name" != fuzz_main ] && [ "$name" != fuzz_hvf_arm64 ] || continue # for arm64 alone
    mkdir -p "build/fuzz/$name"
    clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -DDISK_LIBDEFLATE -I. \
        -Itests/macos -Itests/macos/linux "$f" -o "build/fuzz/$name.bin" -pthread -ldeflate -lfdt
    "build/fuzz/$name.bin" -max_total_time="${1:-60}" -print_final_stats=1 -artifact_prefix="build/fuzz/$name-" \
        "build/fuzz/$name" "tests/corpus/${name#fuzz_}" 2>&1 | grep -E '^(stat::number_of_executed_units|SUMMARY|==)' | sed "s/^/$name: /"
done
