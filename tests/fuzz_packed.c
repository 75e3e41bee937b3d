/* fuzz_packed.c - fuzz_virtio.c with packed rings                  MIT licence, see LICENSE */
#define FUZZ_PACKED true
#include "fuzz_virtio.c"
