#!/bin/sh
# extract-vmlinux.sh BZIMAGE: writes the ELF kernel inside a bzImage to standard output.
# The setup header (Linux boot protocol 2.08) says where the compressed payload lies; its first bytes say how it is packed.
set -eu
f=$1
u32() { od -An -tu4 -j "$1" -N 4 "$f" | tr -d ' '; }
u8() { od -An -tu1 -j "$1" -N 1 "$f" | tr -d ' '; }

[ "$(u32 514)" = 1400005704 ] || { echo "extract-vmlinux: $f is not a bzImage" >&2; exit 1; } # "HdrS"
offset=$((($(u8 497) + 1) * 512 + $(u32 584)))
length=$(u32 588)
case $(od -An -tx1 -j "$offset" -N 4 "$f" | tr -d ' ') in
1f8b*) unpack='gzip -dc' trailer=0 ;;
fd377a58) unpack='xz -dc' trailer=4 ;; # kbuild appends the unpacked size, four bytes that are not of the format
02214c18) unpack='lz4 -dc' trailer=4 ;;
28b52ffd) unpack='zstd -dcq' trailer=4 ;;
*) echo "extract-vmlinux: $f is packed in a way this does not know" >&2; exit 1 ;;
esac
tail -c +$((offset + 1)) "$f" | head -c $((length - trailer)) | $unpack
