/* disk.h - disk images, raw and qcow2, over any store of bytes      MIT licence, see LICENSE

   WHAT IT IS      Reads and writes qcow2 images, versions 2 and 3 (docs/interop/qcow2.txt of QEMU
                   is the specification that the comments mean): backing chains, compressed
                   clusters, zero clusters, clusters shared with snapshots, discard; and creates
                   overlays. Raw images go through the same calls. Not here: encryption, external
                   data files, subclusters, taking snapshots, resizing; each is refused with a
                   sentence. Beside that, as compressed clusters need it, a decoder of zstd (RFC
                   8878) from memory to memory, without dictionaries.

   QUICK START     static uint8_t file[1 << 20];
                   static int file_rw(void *ctx, bool write, const struct disk_iov *iov, unsigned n,
                                      uint64_t off)
                   {
                       (void)ctx;
                       for (; n; off += iov->len, iov++, n--) {
                           uint8_t *mine = file + off;
                           memcpy(write ? mine : iov->base, write ? iov->base : mine, iov->len);
                       }
                       return 0;
                   }
                   static int first_sector(void *sector)
                   {
                       static struct disk_image disk;
                       struct disk_desc desc = {.name = "file", .format = DISK_RAW,
                                                .read_only = true};
                       struct disk_iov iov = {sector, 512};
                       desc.store.rw = file_rw;
                       desc.store.len = sizeof file;
                       int err = disk_open(&disk, &desc);
                       if (!err)
                           err = disk_read(&disk, &iov, 1, 0);
                       disk_close(&disk);
                       return err;
                   }

   CONFIGURATION   set everywhere, before the first include (VMM_DEF: see vmm.h):
                   DISK_L2_SLICES     pieces of 4 KiB of the guest-to-file map kept in memory, a
                                      multiple of 8; default 256, enough for 8 GiB
                   DISK_REF_SLICES    the same for reference counts; default 32
                   DISK_FREES_MAX     freed extents that await a commit; default 1200, at least 600
                   DISK_LIBDEFLATE    define it to have disk_inflate, by libdeflate; default not
                   set in the implementing file only:
                   DISK_CHAIN_MAX     images in one backing chain; default 32

   DEPENDS ON      vmm.h alone, but for libdeflate when asked for. Who inflates is a callback of the
                   desc.

   THREADS         One caller at a time for an image. Calls block for as long as the store does.
   MEMORY          desc.alloc is called by disk_open alone: the tables of the image (never more than
                   32 MiB of L1 and 8 MiB of refcount table), up to four times that to find
                   overlaps, caches, four clusters, and 150 KiB for zstd; disk_close returns it all.
                   libdeflate allocates for the time of a call.
   ORDER           Data, copies and reference counts reach the store before the table entries that
                   point at them, with a flush between; a cluster is used anew only after a flush
                   has followed the removal of every pointer to it. So whatever subset of the writes
                   since the last flush survives, the image has at most leaked clusters, and all
                   that was written before the last disk_flush. Table entries are kept back until
                   disk_flush, or until the cache is full.
   ERRORS          0 or -errno, the sentence in the log. After a failed flush, or damage found while
                   writing (then the image is marked corrupt), every later write fails.
   GUEST TRUST     Images are not trusted: offsets, lengths and sizes are checked before use, damage
                   reads as -EIO with a line in the log (within vmm_budget). A guest can write any
                   header into its raw disk, so content alone never makes a writable disk qcow2, nor
                   opens a backing file: say the format. */
#ifndef DISK_H
#define DISK_H

#include "vmm.h"

#ifndef DISK_L2_SLICES
#define DISK_L2_SLICES 256
#endif
#ifndef DISK_REF_SLICES
#define DISK_REF_SLICES 32
#endif
#ifndef DISK_FREES_MAX
#define DISK_FREES_MAX 1200
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum disk_format { DISK_PROBE, DISK_RAW, DISK_QCOW2 };

/* A piece of memory; same layout as POSIX struct iovec. */
struct disk_iov {
    void *base;
    size_t len;
};

/* Where the bytes of an image live. All functions return 0 or -errno. */
struct disk_store {
    void *ctx;
    /* Transfers all pieces. Never asked to read beyond len. */
    int (*rw)(void *ctx, bool write, const struct disk_iov *iov, unsigned n, uint64_t off);
    int (*flush)(void *ctx); /* all that was written survives a power cut */
    /* Makes a range read as zero and gives its room back. NULL, or an error: it stays as it is. */
    int (*punch)(void *ctx, uint64_t off, uint64_t len);
    void (*close)(void *ctx); /* called for backing files alone */
    uint64_t len;             /* bytes at open */
    bool fixed;               /* writes cannot make it longer: a block device */
    uint64_t id[2];           /* of the file, to find loops and double use; both 0: unknown */
};

struct disk_desc {
    const struct vmm_log *log; /* NULL: silent */
    const char *name;          /* path of the image: for sentences, and to find backing files */
    struct disk_store store;
    enum disk_format format; /* DISK_PROBE: by content, as far as that is safe */
    bool read_only;
    /* Opens a backing file, read-only. Its path is the recorded one or, when that is relative, in
       the directory of the image that names it. NULL: images with a backing file are refused. */
    int (*open)(void *ctx, const char *path, struct disk_store *store);
    /* Zeroed memory or NULL; free gets what alloc gave. NULL: only raw images can be opened. */
    void *(*alloc)(void *ctx, size_t len);
    void (*free)(void *ctx, void *mem);
    /* Decompresses exactly dst_len bytes: raw deflate with a window of 4 KiB. More input than
       needed is given. NULL: not in this build. */
    int (*inflate)(void *ctx, void *dst, size_t dst_len, const void *src, size_t src_len);
    void *ctx; /* of the four above */
};

enum { DISK__HUFF_MAX = 11, DISK__FSE_SYMBOLS = 53, DISK__BLOCK_MAX = 128 << 10, DISK__NONE = 255 };

/* A state of a decoder of lengths or offsets. */
struct disk__fse {
    uint32_t base; /* the value is that and as many bits as `extra` says */
    uint16_t next; /* the next state is that and as many bits as `bits` says */
    uint8_t bits, extra;
};

/* What disk_unzstd works in; its content does not matter. */
struct disk_zstd {
    /* private: what later blocks may refer to */
    struct disk__fse fse[3][1 << 9];    /* of literal lengths, offsets, match lengths */
    uint8_t fse_log[3];                 /* of the number of states; DISK__NONE: no states yet */
    uint8_t huff_log;                   /* bits of the longest code; 0: no codes yet */
    uint16_t huff[1 << DISK__HUFF_MAX]; /* by the next bits: a byte << 8 | how many bits it has */
    uint64_t back[3];                   /* the last offsets */
    uint8_t literals[DISK__BLOCK_MAX];  /* of this block */
};

/* A piece of an on-disk table. */
struct disk__slot {
    uint64_t slice; /* its number in the table */
    uint64_t used;  /* when, by the cache's clock; 0: empty */
    uint8_t *data;
    bool dirty;
};

struct disk__cache {
    struct disk__slot *slot;
    unsigned nslots;
    uint64_t clock;
};

/* A table that is in memory as a whole, in the form it has on disk. */
struct disk__table {
    uint8_t *data;
    uint64_t off;                /* in the store */
    uint32_t n;                  /* entries in memory */
    uint32_t room;               /* entries on disk */
    uint32_t dirty_lo, dirty_hi; /* entries [dirty_lo, dirty_hi) differ from the disk */
};

/* Clusters [first, first + n), each with a reference to be dropped. */
struct disk__extent {
    uint64_t first, n;
};

struct disk_image {
    uint64_t len;               /* bytes the guest sees */
    enum disk_format format;    /* DISK_RAW or DISK_QCOW2 */
    struct disk_image *backing; /* NULL: none */
    struct disk_desc desc;      /* store.len follows the writes */
    /* private */
    struct disk_image *above; /* whose backing file this is */
    int failed;               /* what every write returns from now on */
    bool begun;               /* the header tells of writers */
    uint64_t end;             /* no byte from here on was ever written */
    unsigned version, cluster_bits, slice_bits, ref_order;
    bool zstd;
    struct disk_zstd *unzstd;
    uint64_t autoclear;
    struct disk__table l1, refs;
    struct disk__cache l2_cache, ref_cache;
    struct disk__slot l2_slot[DISK_L2_SLICES], ref_slot[DISK_REF_SLICES];
    uint64_t hint; /* no free cluster before this one */
    struct disk__extent frees[DISK_FREES_MAX];
    unsigned nfrees;
    uint64_t *meta; /* hash set: clusters that hold L2 tables and refcount blocks, plus 1 */
    uint64_t meta_mask;
    uint8_t *buf, *unpacked, *packed; /* one, one and two clusters */
    uint64_t unpacked_entry;          /* whose content unpacked holds; 0: nobody's */
    struct vmm_budget budget;
};

/* What content looks like: "qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed", "qcow", or "raw". head:
   the first bytes of a file, 512 are enough. */
VMM_DEF const char *disk_probe(const uint8_t *head, size_t len);
/* Makes an empty store a qcow2 image (version 3, clusters of 64 KiB) of len bytes that shows the
   image `backing` until written to. backing is absolute, or relative to the store's directory. */
VMM_DEF int disk_create(struct disk_store *store, uint64_t len, const char *backing,
                        enum disk_format format, const struct vmm_log *log);
/* Opens an image and its backing files. disk_close is due in any case; the store in the desc stays
   the caller's. */
VMM_DEF int disk_open(struct disk_image *d, const struct disk_desc *desc);
/* Frees everything and writes nothing: disk_flush first. Harmless when all zero. */
VMM_DEF void disk_close(struct disk_image *d);
/* Transfer all pieces. -EINVAL: beyond len. */
VMM_DEF int disk_read(struct disk_image *d, const struct disk_iov *iov, unsigned n, uint64_t off);
VMM_DEF int disk_write(struct disk_image *d, const struct disk_iov *iov, unsigned n, uint64_t off);
/* The guest needs the range no more: whole clusters of it are freed, and read as zero. */
VMM_DEF int disk_discard(struct disk_image *d, uint64_t off, uint64_t len);
/* The range reads as zero from now on; unmap: its clusters may be freed. */
VMM_DEF int disk_zero(struct disk_image *d, uint64_t off, uint64_t len, bool unmap);
/* All that was written before survives a power cut. */
VMM_DEF int disk_flush(struct disk_image *d);
#ifdef DISK_LIBDEFLATE
VMM_DEF int disk_inflate(void *ctx, void *dst, size_t dst_len, const void *src, size_t src_len);
#endif
/* Decompresses one zstd frame, which bytes without meaning may follow: the length of what it holds;
   -EIO: damaged; -ENOSPC: more than cap bytes. Up to cap, any byte of dst may change. */
VMM_DEF int64_t disk_unzstd(struct disk_zstd *z, void *dst, size_t cap, const void *src,
                            size_t len);

#ifdef __cplusplus
}
#endif
#endif /* DISK_H */

#if (defined(DISK_IMPLEMENTATION) || defined(VMM_IMPLEMENTATION)) && !defined(DISK_IMPLEMENTED)
#define DISK_IMPLEMENTED

#ifndef DISK_CHAIN_MAX
#define DISK_CHAIN_MAX 32
#endif

/* >>bytes: qcow2 is big-endian. */

static uint32_t disk__get32(const void *p)
{
    const uint8_t *b = (const uint8_t *)p;

    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static uint64_t disk__get64(const void *p)
{
    return (uint64_t)disk__get32(p) << 32 | disk__get32((const uint8_t *)p + 4);
}

static void disk__put32(void *p, uint32_t v)
{
    uint8_t b[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};

    memcpy(p, b, sizeof b);
}

static void disk__put64(void *p, uint64_t v)
{
    disk__put32(p, (uint32_t)(v >> 32));
    disk__put32((uint8_t *)p + 4, (uint32_t)v);
}

static uint64_t disk__min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t disk__cluster(const struct disk_image *d)
{
    return (uint64_t)1 << d->cluster_bits;
}

/* Clusters that len bytes need. */
static uint64_t disk__clusters(const struct disk_image *d, uint64_t len)
{
    return (len >> d->cluster_bits) + !!(len & (disk__cluster(d) - 1));
}

/* Entries of 8 bytes in a slice, as a power of two. */
static unsigned disk__l2_bits(const struct disk_image *d)
{
    return d->slice_bits - 3;
}

/* Reference counts in a slice, as a power of two. */
static unsigned disk__ref_bits(const struct disk_image *d)
{
    return d->slice_bits + 3 - d->ref_order;
}

/* >>store: pieces of a request against bytes of the store. */

#define DISK__PIECES 64

/* Where in the caller's pieces a transfer is. */
struct disk__cursor {
    const struct disk_iov *iov;
    size_t done; /* bytes of *iov */
};

/* The next pieces, at most len bytes and DISK__PIECES of them; returns how many bytes they hold. */
static uint64_t disk__take(struct disk__cursor *c, uint64_t len, struct disk_iov *piece,
                           unsigned *n)
{
    uint64_t sum = 0;

    for (*n = 0; *n < DISK__PIECES && sum < len; (*n)++) {
        size_t step = (size_t)disk__min(c->iov->len - c->done, len - sum);
        piece[*n].base = (uint8_t *)c->iov->base + c->done;
        piece[*n].len = step;
        sum += step;
        c->done += step;
        if (c->done == c->iov->len) {
            c->iov++;
            c->done = 0;
        }
    }
    return sum;
}

/* Zeroes the next len bytes of the guest's pieces. */
static void disk__fill(struct disk__cursor *c, uint64_t len)
{
    struct disk_iov piece[DISK__PIECES];
    unsigned n;

    while (len) {
        len -= disk__take(c, len, piece, &n);
        for (unsigned i = 0; i < n; i++)
            memset(piece[i].base, 0, piece[i].len);
    }
}

/* Copies len bytes between mem and the guest's pieces. */
static void disk__copy(struct disk__cursor *c, bool to_guest, uint8_t *mem, uint64_t len)
{
    struct disk_iov piece[DISK__PIECES];
    unsigned n;

    while (len) {
        len -= disk__take(c, len, piece, &n);
        for (unsigned i = 0; i < n; mem += piece[i].len, i++)
            memcpy(to_guest ? piece[i].base : mem, to_guest ? mem : piece[i].base, piece[i].len);
    }
}

/* Transfers len bytes at off. A write that fails may have left anything up to its end. */
static int disk__rw(struct disk_image *d, bool write, struct disk__cursor *c, uint64_t off,
                    uint64_t len)
{
    struct disk_store *s = &d->desc.store;
    struct disk_iov piece[DISK__PIECES];
    unsigned n;
    int rc;

    if (write && off + len > d->end)
        d->end = off + len;
    while (len) {
        uint64_t step = disk__take(c, len, piece, &n);
        rc = s->rw(s->ctx, write, piece, n, off);
        if (rc)
            return rc;
        off += step;
        len -= step;
        if (write && off > s->len)
            s->len = off;
    }
    return 0;
}

/* Reads what is there; what lies beyond the end of the store reads as zero. */
static int disk__fetch(struct disk_image *d, struct disk__cursor *c, uint64_t off, uint64_t len)
{
    uint64_t there = off < d->desc.store.len ? disk__min(len, d->desc.store.len - off) : 0;
    int rc = disk__rw(d, false, c, off, there);

    if (!rc)
        disk__fill(c, len - there);
    return rc;
}

/* The same two for memory of our own. */
static int disk__get(struct disk_image *d, void *mem, uint64_t off, uint64_t len)
{
    struct disk_iov iov = {mem, (size_t)len};
    struct disk__cursor c = {&iov, 0};

    return disk__fetch(d, &c, off, len);
}

static int disk__put(struct disk_image *d, void *mem, uint64_t off, uint64_t len)
{
    struct disk_iov iov = {mem, (size_t)len};
    struct disk__cursor c = {&iov, 0};

    return disk__rw(d, true, &c, off, len);
}

/* A flush that failed may have lost what was written before: nothing can be promised any more. */
static int disk__barrier(struct disk_image *d)
{
    int rc = d->desc.store.flush ? d->desc.store.flush(d->desc.store.ctx) : 0;

    if (rc)
        d->failed = rc;
    return rc;
}

/* >>damage */

/* An entry that cannot be followed. */
static int disk__bad(struct disk_image *d, const char *what, uint64_t where)
{
    if (vmm_spend(&d->budget))
        return vmm_err(d->desc.log, -EIO,
                       "disk '%s' is damaged: %s 0x%llx; look at it with 'qemu-img check'",
                       d->desc.name, what, (unsigned long long)where);
    return -EIO;
}

/* The same, found where going on would make it worse: no write any more, not by others either
   (incompatible feature bit 1, which version 2 lacks). */
static int disk__corrupt(struct disk_image *d, const char *what, uint64_t where)
{
    uint8_t features[8];

    if (!d->failed && d->version >= 3 && !disk__get(d, features, 72, 8)) {
        features[7] |= 2;
        if (!disk__put(d, features, 72, 8))
            disk__barrier(d);
    }
    d->failed = -EIO;
    return disk__bad(d, what, where);
}

/* >>meta: the set of clusters that hold L2 tables and refcount blocks, open addressing. */

static uint64_t *disk__meta_at(struct disk_image *d, uint64_t cluster)
{
    uint64_t i = (cluster * 0x9e3779b97f4a7c15u >> 20) & d->meta_mask;

    while (d->meta[i] && d->meta[i] != cluster + 1)
        i = (i + 1) & d->meta_mask;
    return &d->meta[i];
}

/* Room for all that the tables in memory can name was made at open: the set cannot fill up. */
static void disk__meta_add(struct disk_image *d, uint64_t cluster)
{
    *disk__meta_at(d, cluster) = cluster + 1;
}

/* Takes it out and puts those behind it, up to the next gap, where they are found again. */
static void disk__meta_del(struct disk_image *d, uint64_t cluster)
{
    uint64_t i = (uint64_t)(disk__meta_at(d, cluster) - d->meta);

    d->meta[i] = 0;
    for (i = (i + 1) & d->meta_mask; d->meta[i]; i = (i + 1) & d->meta_mask) {
        uint64_t moved = d->meta[i] - 1;
        d->meta[i] = 0;
        disk__meta_add(d, moved);
    }
}

/* The table that starts at t->off, by the room that it has on disk, not by what is in use. */
static bool disk__in_table(const struct disk_image *d, const struct disk__table *t, uint64_t c)
{
    uint64_t first = t->off >> d->cluster_bits;

    return c >= first && c - first < disk__clusters(d, (uint64_t)t->room * 8);
}

/* This cluster holds metadata: no data can be there. */
static bool disk__meta_has(struct disk_image *d, uint64_t c)
{
    return !c || disk__in_table(d, &d->l1, c) || disk__in_table(d, &d->refs, c) ||
           *disk__meta_at(d, c);
}

/* >>tables: L1 and the refcount table are in memory; L2 tables and refcount blocks in slices. */

#define DISK__OFFSET 0x00fffffffffffe00u /* of L1, L2 and refcount table entries */
#define DISK__COPIED ((uint64_t)1 << 63) /* exactly one reference: write in place */
#define DISK__PACKED ((uint64_t)1 << 62) /* compressed */
#define DISK__ZERO   1u                  /* reads as zero, whatever the offset; version 3 */

static int disk__commit(struct disk_image *d, bool durable);

/* Entries beyond the table read as "none". */
static uint64_t disk__entry(const struct disk__table *t, uint64_t i)
{
    return i < t->n ? disk__get64(t->data + 8 * i) : 0;
}

/* Changes an entry in memory, to be written by the next commit. */
static void disk__set_entry(struct disk__table *t, uint32_t i, uint64_t v)
{
    disk__put64(t->data + (size_t)8 * i, v);
    if (t->dirty_lo == t->dirty_hi)
        t->dirty_lo = t->dirty_hi = i;
    t->dirty_lo = i < t->dirty_lo ? i : t->dirty_lo;
    t->dirty_hi = i + 1 > t->dirty_hi ? i + 1 : t->dirty_hi;
}

/* Writes what has changed. An entry is within one sector of 512 bytes, so that a power cut leaves
   the old one or the new one. */
static int disk__write_table(struct disk_image *d, struct disk__table *t)
{
    uint64_t at = (uint64_t)t->dirty_lo * 8, len = (uint64_t)t->dirty_hi * 8 - at;
    int rc = disk__put(d, t->data + at, t->off + at, len);

    if (!rc)
        t->dirty_lo = t->dirty_hi = 0;
    return rc;
}

/* Where a slice is in the store; 0: its table does not exist. */
static uint64_t disk__slice_off(const struct disk_image *d, const struct disk__table *t,
                                uint64_t slice)
{
    unsigned shift = d->cluster_bits - d->slice_bits; /* slices in a table */
    uint64_t off = disk__entry(t, slice >> shift) & DISK__OFFSET;

    return off ? off + ((slice & (((uint64_t)1 << shift) - 1)) << d->slice_bits) : 0;
}

/* A slice stays dirty when it could not be written. */
static int disk__write_slot(struct disk_image *d, const struct disk__table *t,
                            struct disk__slot *slot)
{
    int rc =
        disk__put(d, slot->data, disk__slice_off(d, t, slot->slice), (uint64_t)1 << d->slice_bits);

    slot->dirty = slot->dirty && rc;
    return rc;
}

static int disk__write_slots(struct disk_image *d, const struct disk__table *t,
                             struct disk__cache *cache)
{
    int rc = 0;

    for (unsigned i = 0; i < cache->nslots && !rc; i++)
        if (cache->slot[i].dirty)
            rc = disk__write_slot(d, t, &cache->slot[i]);
    return rc;
}

/* On failure the slot is empty, not half full. */
static int disk__load_slot(struct disk_image *d, const struct disk__table *t,
                           struct disk__slot *slot, uint64_t slice)
{
    uint64_t off = disk__slice_off(d, t, slice), len = (uint64_t)1 << d->slice_bits;
    int rc;

    slot->used = 0;
    if (off & (len - 1) || off >= d->desc.store.len)
        return disk__bad(d, "a table lies at", off);
    rc = disk__get(d, slot->data, off, len);
    if (!rc)
        slot->slice = slice;
    return rc;
}

enum { DISK__WAYS = 8 };

/* The slice in memory, loaded if need be, good until the next call for the same cache. NULL: its
   table does not exist. Refcounts may go out at any time (see disk__commit), map entries may
   not. */
static int disk__slot(struct disk_image *d, const struct disk__table *t, struct disk__cache *cache,
                      uint64_t slice, struct disk__slot **out)
{
    struct disk__slot *set = &cache->slot[slice % (cache->nslots / DISK__WAYS) * DISK__WAYS];
    struct disk__slot *victim = set;
    int rc = 0;

    *out = NULL;
    if (!disk__slice_off(d, t, slice))
        return 0;
    for (struct disk__slot *s = set; s < set + DISK__WAYS; s++) {
        if (s->used && s->slice == slice)
            *out = s;
        if (s->dirty < victim->dirty || (s->dirty == victim->dirty && s->used < victim->used))
            victim = s;
    }
    if (!*out && victim->dirty)
        rc = t == &d->refs ? disk__write_slot(d, t, victim) : disk__commit(d, false);
    if (!*out && !rc)
        rc = disk__load_slot(d, t, victim, slice);
    if (rc)
        return rc;
    *out = *out ? *out : victim;
    (*out)->used = ++cache->clock;
    return 0;
}

/* >>refcounts */

static int disk__ref_slot(struct disk_image *d, uint64_t cluster, struct disk__slot **slot)
{
    return disk__slot(d, &d->refs, &d->ref_cache, cluster >> disk__ref_bits(d), slot);
}

/* Counts of less than a byte start at its low bits; wider ones are big-endian. */
static uint64_t disk__ref_in(const struct disk_image *d, const uint8_t *slice, uint64_t i)
{
    unsigned order = d->ref_order;
    uint64_t v = 0;

    if (order < 3)
        return slice[i >> (3 - order)] >> (i << order & 7) & ((1u << (1u << order)) - 1);
    for (unsigned k = 0; k < 1u << (order - 3); k++)
        v = v << 8 | slice[(i << (order - 3)) + k];
    return v;
}

/* The number of references to a cluster; 0 also where there is no block to say. */
static int disk__ref(struct disk_image *d, uint64_t cluster, uint64_t *count)
{
    struct disk__slot *s;
    int rc = disk__ref_slot(d, cluster, &s);

    *count = 0;
    if (!rc && s)
        *count = disk__ref_in(d, s->data, cluster & (((uint64_t)1 << disk__ref_bits(d)) - 1));
    return rc;
}

/* Changes a count, whose block there is. */
static int disk__set_ref(struct disk_image *d, uint64_t cluster, uint64_t count)
{
    unsigned order = d->ref_order;
    uint64_t i = cluster & (((uint64_t)1 << disk__ref_bits(d)) - 1);
    struct disk__slot *s;
    int rc = disk__ref_slot(d, cluster, &s);

    if (rc || !s)
        return rc ? rc : -EIO;
    if (order < 3) {
        unsigned shift = i << order & 7;
        uint8_t *b = &s->data[i >> (3 - order)];
        *b = (uint8_t)((*b & ~(((1u << (1u << order)) - 1) << shift)) | count << shift);
    } else {
        for (unsigned k = 1u << (order - 3); k-- > 0; count >>= 8)
            s->data[(i << (order - 3)) + k] = (uint8_t)count;
    }
    s->dirty = true;
    return 0;
}

/* Parts of a write of zeros, which all have the same few bytes. */
enum { DISK__ZEROS = 512, DISK__ZERO_PARTS = 64 };
#define DISK__ZERO_LEN ((uint64_t)DISK__ZEROS * DISK__ZERO_PARTS)

static struct disk__cursor disk__zeros(struct disk_iov iov[DISK__ZERO_PARTS])
{
    static const uint8_t zeros[DISK__ZEROS];

    for (unsigned i = 0; i < DISK__ZERO_PARTS; i++)
        iov[i] = (struct disk_iov){(void *)(uintptr_t)zeros, DISK__ZEROS};
    return (struct disk__cursor){iov, 0};
}

/* Explicit zeroes: what the range held before must not be taken for a table. */
static int disk__write_zeros(struct disk_image *d, uint64_t off, uint64_t len)
{
    int rc = 0;

    for (uint64_t step; len && !rc; off += step, len -= step) {
        struct disk_iov iov[DISK__ZERO_PARTS];
        struct disk__cursor c = disk__zeros(iov);
        step = disk__min(len, DISK__ZERO_LEN);
        rc = disk__rw(d, true, &c, off, step);
    }
    return rc;
}

/* Makes a cluster, for whose refcount there is no block, that block. It counts itself. */
static int disk__new_block(struct disk_image *d, uint64_t cluster)
{
    uint32_t i = (uint32_t)(cluster >> (d->cluster_bits + 3 - d->ref_order));
    int rc = disk__write_zeros(d, cluster << d->cluster_bits, disk__cluster(d));

    if (rc)
        return rc;
    disk__set_entry(&d->refs, i, cluster << d->cluster_bits);
    disk__meta_add(d, cluster);
    return disk__set_ref(d, cluster, 1);
}

/* -ENOSPC: the image or its store ends before it. */
static int disk__is_free(struct disk_image *d, uint64_t cluster, bool *free)
{
    uint64_t past = (cluster + 1) << d->cluster_bits, count;
    uint64_t block = cluster >> (d->cluster_bits + 3 - d->ref_order);
    int rc;

    *free = false;
    if (block >= d->refs.n || past > DISK__OFFSET ||
        (d->desc.store.fixed && past > d->desc.store.len))
        return -ENOSPC;
    if (!(disk__entry(&d->refs, block) & DISK__OFFSET))
        return disk__meta_has(d, cluster) ? disk__corrupt(d, "no refcount for", cluster)
                                          : disk__new_block(d, cluster);
    rc = disk__ref(d, cluster, &count);
    *free = !count;
    if (!rc && *free && disk__meta_has(d, cluster))
        return disk__corrupt(d, "no reference, but a table, at cluster", cluster);
    return rc;
}

/* Finds between least and most free clusters in a row. */
static int disk__find_free(struct disk_image *d, uint64_t least, uint64_t most, uint64_t *first,
                           uint64_t *n)
{
    bool free;

    *first = d->hint;
    for (*n = 0; *n < most;) {
        int rc = disk__is_free(d, *first + *n, &free);
        if (*n >= least && (rc == -ENOSPC || (!rc && !free)))
            return 0;
        if (rc)
            return rc;
        if (!free)
            *first += *n + 1;
        *n = free ? *n + 1 : 0;
    }
    return 0;
}

/* Gives clusters back that nothing on disk points at. */
static void disk__unalloc(struct disk_image *d, uint64_t first, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (disk__set_ref(d, first + i, 0))
            return; /* leaked */
    d->hint = disk__min(d->hint, first);
}

/* Allocates between least and most clusters in a row, with one reference each. */
static int disk__alloc(struct disk_image *d, uint64_t least, uint64_t most, uint64_t *first,
                       uint64_t *n)
{
    int rc = disk__find_free(d, least, most, first, n);

    for (uint64_t i = 0; i < *n && !rc; i++)
        rc = disk__set_ref(d, *first + i, 1);
    if (!rc && least == 1) /* else smaller gaps may have been skipped */
        d->hint = *first + *n;
    return rc;
}

/* >>frees: references are dropped once no entry on disk can need them. */

/* Notes n clusters for the next commit; there is room (disk__room). */
static void disk__drop(struct disk_image *d, uint64_t first, uint64_t n)
{
    struct disk__extent *last = d->nfrees ? &d->frees[d->nfrees - 1] : NULL;

    if (last && last->first + last->n == first)
        last->n += n;
    else
        d->frees[d->nfrees++] = (struct disk__extent){first, n};
}

/* Drops one reference; *gone: it was the last. */
static int disk__unref(struct disk_image *d, uint64_t cluster, bool *gone)
{
    uint64_t count;
    int rc = disk__ref(d, cluster, &count);

    if (rc)
        return rc;
    if (!count || disk__meta_has(d, cluster))
        return disk__corrupt(d, "an entry pointed at cluster", cluster);
    *gone = count == 1;
    if (*gone)
        d->hint = disk__min(d->hint, cluster);
    return disk__set_ref(d, cluster, count - 1);
}

/* Drops a reference to each cluster, and lets the host have the room of those in a row that are
   free now. */
static int disk__free_extent(struct disk_image *d, const struct disk__extent *e)
{
    struct disk_store *s = &d->desc.store;
    uint64_t n = 0; /* freed clusters in a row, up to the current one */
    int rc = 0;

    for (uint64_t i = 0; i <= e->n && !rc; i++) {
        bool gone = false;
        if (i < e->n)
            rc = disk__unref(d, e->first + i, &gone);
        if (!gone && n && s->punch) /* room given back to the host is a favour, not a duty */
            s->punch(s->ctx, (e->first + i - n) << d->cluster_bits, n << d->cluster_bits);
        n = gone ? n + 1 : 0;
    }
    return rc;
}

/* No entry on disk can lead to these clusters any more. The counts are written at once, so that a
   process that ends after a flush has leaked nothing; when exactly does not matter. */
static int disk__apply_frees(struct disk_image *d)
{
    unsigned n = d->nfrees;
    int rc = 0;

    d->nfrees = 0; /* after a failure the rest has leaked */
    for (unsigned i = 0; i < n && !rc; i++)
        rc = disk__free_extent(d, &d->frees[i]);
    return rc ? rc : disk__write_slots(d, &d->refs, &d->ref_cache);
}

/* >>commit: see ORDER at the top */

/* The refcount table outgrew its place: it moves, all of it, and the header follows. */
static int disk__move_refs(struct disk_image *d, uint64_t to)
{
    uint8_t header[12];
    int rc = disk__put(d, d->refs.data, to, (uint64_t)d->refs.n * 8);

    if (!rc)
        rc = disk__barrier(d);
    disk__put64(header, to);
    disk__put32(header + 8, (uint32_t)((uint64_t)d->refs.n * 8 >> d->cluster_bits));
    if (!rc)
        rc = disk__put(d, header, 48, sizeof header);
    if (rc)
        return rc;
    disk__drop(d, d->refs.off >> d->cluster_bits, disk__clusters(d, (uint64_t)d->refs.room * 8));
    d->refs.off = to;
    d->refs.room = d->refs.n;
    d->refs.dirty_lo = d->refs.dirty_hi = 0;
    return 0;
}

/* Refcounts, and the table that names their blocks, which are there before it does. */
static int disk__commit_refs(struct disk_image *d)
{
    uint64_t to = 0, n = disk__clusters(d, (uint64_t)d->refs.n * 8);
    int rc = 0;

    if (d->refs.dirty_hi > d->refs.room)
        rc = disk__alloc(d, n, n, &to, &n);
    if (!rc)
        rc = disk__write_slots(d, &d->refs, &d->ref_cache);
    if (rc || d->refs.dirty_lo == d->refs.dirty_hi)
        return rc;
    rc = disk__barrier(d);
    if (rc)
        return rc;
    return to ? disk__move_refs(d, to << d->cluster_bits) : disk__write_table(d, &d->refs);
}

/* Brings everything to the store. May happen at any time: an entry is set only after the data, the
   count and the tables that it needs were written or are in the caches. */
static int disk__commit(struct disk_image *d, bool durable)
{
    int rc = d->failed ? d->failed : disk__commit_refs(d);

    if (!rc)
        rc = disk__barrier(d);
    if (!rc)
        rc = disk__write_slots(d, &d->l1, &d->l2_cache);
    if (!rc)
        rc = disk__write_table(d, &d->l1);
    if (!rc && (durable || d->nfrees))
        rc = disk__barrier(d);
    return rc ? rc : disk__apply_frees(d);
}

/* Is there anything that a commit would write? */
static bool disk__is_dirty(const struct disk_image *d)
{
    bool dirty =
        d->nfrees || d->l1.dirty_lo != d->l1.dirty_hi || d->refs.dirty_lo != d->refs.dirty_hi;

    for (unsigned i = 0; i < d->l2_cache.nslots; i++)
        dirty |= d->l2_slot[i].dirty;
    for (unsigned i = 0; i < d->ref_cache.nslots; i++)
        dirty |= d->ref_slot[i].dirty;
    return dirty;
}

/* >>map: what a guest range is made of */

enum disk__kind { DISK__IS_HOLE, DISK__IS_ZERO, DISK__IS_DATA, DISK__IS_PACKED };

struct disk__run {
    enum disk__kind kind;
    uint64_t entry; /* of the first cluster */
    uint64_t len;   /* bytes of the same kind; data also contiguous and alike in COPIED */
};

/* Reserved bits are ignored, as the specification has it: what changes the meaning of an entry
   comes with an incompatible feature. */
static enum disk__kind disk__kind(const struct disk_image *d, uint64_t entry)
{
    if (entry & DISK__PACKED)
        return DISK__IS_PACKED;
    if (d->version >= 3 && entry & DISK__ZERO)
        return DISK__IS_ZERO;
    return entry & DISK__OFFSET ? DISK__IS_DATA : DISK__IS_HOLE;
}

/* The slice with the map entry of a cluster; NULL: its L2 table does not exist. */
static int disk__l2_slot(struct disk_image *d, uint64_t cluster, struct disk__slot **slot)
{
    return disk__slot(d, &d->l1, &d->l2_cache, cluster >> disk__l2_bits(d), slot);
}

/* Clusters from this one on whose entries are in the same slice. */
static uint64_t disk__in_slice(const struct disk_image *d, uint64_t cluster)
{
    uint64_t n = (uint64_t)1 << disk__l2_bits(d);

    return n - (cluster & (n - 1));
}

/* The run of clusters of one kind that starts at off, at most len bytes and within a slice. Data
   beyond the end of the store is damage, a last cluster that is cut short is not. */
static int disk__map(struct disk_image *d, uint64_t off, uint64_t len, struct disk__run *r)
{
    uint64_t cluster = off >> d->cluster_bits, room = disk__in_slice(d, cluster), n = 1;
    struct disk__slot *slot;
    const uint8_t *p;
    int rc = disk__l2_slot(d, cluster, &slot);

    *r = (struct disk__run){.kind = DISK__IS_HOLE};
    if (rc)
        return rc;
    if (slot) {
        p = slot->data + 8 * (((uint64_t)1 << disk__l2_bits(d)) - room);
        r->entry = disk__get64(p);
        r->kind = disk__kind(d, r->entry);
        for (; n < room && n << d->cluster_bits < len + disk__cluster(d); n++) {
            uint64_t e = disk__get64(p + 8 * n);
            if (disk__kind(d, e) != r->kind || r->kind == DISK__IS_PACKED ||
                (r->kind == DISK__IS_DATA && e != r->entry + (n << d->cluster_bits)))
                break;
        }
    }
    n = slot ? n : room;
    r->len = disk__min(len, (n << d->cluster_bits) - (off & (disk__cluster(d) - 1)));
    if (r->kind == DISK__IS_DATA && (r->entry & DISK__OFFSET & (disk__cluster(d) - 1) ||
                                     (r->entry & DISK__OFFSET) >= d->desc.store.len))
        return disk__bad(d, "an L2 entry points at", r->entry & DISK__OFFSET);
    return 0;
}

/* >>read */

static int disk__read(struct disk_image *d, struct disk__cursor *c, uint64_t off, uint64_t len);

/* Where compressed bytes are: up to the end of the last of their sectors of 512 bytes. */
static uint64_t disk__packed_off(const struct disk_image *d, uint64_t entry, uint64_t *len)
{
    unsigned shift = 62 - (d->cluster_bits - 8);
    uint64_t off = entry & (((uint64_t)1 << shift) - 1);
    uint64_t sectors = (entry & (DISK__PACKED - 1)) >> shift;

    *len = (sectors + 1) * 512 - (off & 511);
    return off;
}

/* Which is not the image's fault. */
static int disk__lack(struct disk_image *d)
{
    if (vmm_spend(&d->budget))
        return vmm_err(d->desc.log, -EIO,
                       "disk '%s' has compressed clusters, which this build cannot read: 'qemu-img "
                       "convert -O qcow2' makes an image without",
                       d->desc.name);
    return -EIO;
}

/* Decompresses a cluster, unless it is the last one that was. */
static int disk__unpack(struct disk_image *d, uint64_t entry)
{
    uint64_t len, off = disk__packed_off(d, entry, &len);
    size_t cluster = (size_t)disk__cluster(d);
    bool good;
    int rc;

    if (d->unpacked_entry == entry)
        return 0;
    if (off >= d->desc.store.len)
        return disk__bad(d, "a compressed cluster lies at", off);
    if (!d->zstd && !d->desc.inflate)
        return disk__lack(d);
    len = disk__min(len, d->desc.store.len - off);
    d->unpacked_entry = 0;
    rc = disk__get(d, d->packed, off, len);
    if (rc)
        return rc;
    if (d->zstd)
        good = disk_unzstd(d->unzstd, d->unpacked, cluster, d->packed, (size_t)len) ==
               (int64_t)cluster;
    else
        good = !d->desc.inflate(d->desc.ctx, d->unpacked, cluster, d->packed, (size_t)len);
    if (!good)
        return disk__bad(d, "nonsense in the compressed cluster at", off);
    d->unpacked_entry = entry;
    return 0;
}

/* A backing file may be shorter than the image; it may also be longer. */
static int disk__read_backing(struct disk_image *d, struct disk__cursor *c, uint64_t off,
                              uint64_t len)
{
    struct disk_image *b = d->backing;
    uint64_t there = b && off < b->len ? disk__min(len, b->len - off) : 0;
    int rc = there ? disk__read(b, c, off, there) : 0;

    if (!rc)
        disk__fill(c, len - there);
    return rc;
}

static int disk__read_run(struct disk_image *d, struct disk__cursor *c, uint64_t off,
                          const struct disk__run *r)
{
    uint64_t in = off & (disk__cluster(d) - 1);
    int rc;

    switch (r->kind) {
    case DISK__IS_HOLE:
        return disk__read_backing(d, c, off, r->len);
    case DISK__IS_DATA:
        return disk__fetch(d, c, (r->entry & DISK__OFFSET) + in, r->len);
    case DISK__IS_PACKED:
        rc = disk__unpack(d, r->entry);
        if (!rc)
            disk__copy(c, true, d->unpacked + in, r->len);
        return rc;
    default:
        disk__fill(c, r->len);
        return 0;
    }
}

static int disk__read(struct disk_image *d, struct disk__cursor *c, uint64_t off, uint64_t len)
{
    struct disk__run r;
    int rc = 0;

    if (d->format == DISK_RAW)
        return disk__fetch(d, c, off, len);
    for (; len && !rc; off += r.len, len -= r.len) {
        rc = disk__map(d, off, len, &r);
        if (!rc)
            rc = disk__read_run(d, c, off, &r);
    }
    return rc;
}

/* >>write */

/* The first write into an image: features that it invalidates are switched off (autoclear). */
static int disk__begin(struct disk_image *d)
{
    uint8_t none[8] = {0};
    int rc = d->desc.read_only ? -EROFS : d->failed;

    if (rc || d->begun)
        return rc;
    if (d->autoclear) {
        rc = disk__put(d, none, 88, sizeof none);
        if (!rc)
            rc = disk__barrier(d);
    }
    d->begun = !rc;
    return rc;
}

/* Room for what one step can free: a table, and each cluster of a slice. */
static int disk__room(struct disk_image *d)
{
    return d->nfrees + 520 > DISK_FREES_MAX ? disk__commit(d, false) : 0;
}

/* A new L2 table: empty, or a copy of the one that is shared with a snapshot. */
static int disk__fill_l2(struct disk_image *d, uint64_t to, uint64_t from)
{
    int rc;

    if (!from)
        return disk__write_zeros(d, to, disk__cluster(d));
    rc = disk__get(d, d->buf, from, disk__cluster(d));
    return rc ? rc : disk__put(d, d->buf, to, disk__cluster(d));
}

/* Makes the L2 table of a cluster one that is there and may be written. */
static int disk__own_l2(struct disk_image *d, uint64_t cluster)
{
    uint32_t i = (uint32_t)(cluster >> (d->cluster_bits - 3));
    uint64_t old = disk__entry(&d->l1, i), at, n;
    int rc;

    if (old & DISK__COPIED && old & DISK__OFFSET)
        return 0;
    old &= DISK__OFFSET;
    rc = disk__alloc(d, 1, 1, &at, &n);
    if (rc)
        return rc;
    rc = disk__fill_l2(d, at << d->cluster_bits, old);
    if (rc) {
        disk__unalloc(d, at, 1);
        return rc;
    }
    disk__set_entry(&d->l1, i, at << d->cluster_bits | DISK__COPIED);
    disk__meta_add(d, at);
    if (old) {
        disk__meta_del(d, old >> d->cluster_bits);
        disk__drop(d, old >> d->cluster_bits, 1);
    }
    return 0;
}

/* Drops what an entry refers to. */
static void disk__drop_entry(struct disk_image *d, uint64_t entry)
{
    uint64_t len = 1, off = entry & DISK__OFFSET;

    if (disk__kind(d, entry) == DISK__IS_PACKED)
        off = disk__packed_off(d, entry, &len);
    if (off)
        disk__drop(d, off >> d->cluster_bits,
                   ((off + len - 1) >> d->cluster_bits) - (off >> d->cluster_bits) + 1);
}

/* Points n guest clusters at n new ones in a row, whose data has been written. */
static int disk__link(struct disk_image *d, uint64_t cluster, uint64_t to, uint64_t n)
{
    struct disk__slot *s;
    int rc = disk__l2_slot(d, cluster, &s); /* in memory: nothing else was loaded since */
    uint8_t *p;

    if (rc || !s)
        return rc ? rc : -EIO;
    p = s->data + 8 * (((uint64_t)1 << disk__l2_bits(d)) - disk__in_slice(d, cluster));
    for (uint64_t i = 0; i < n; i++, p += 8) {
        disk__drop_entry(d, disk__get64(p));
        disk__put64(p, (to + i) << d->cluster_bits | DISK__COPIED);
    }
    s->dirty = true;
    return 0;
}

static bool disk__reads_zero(const struct disk_image *d, const struct disk__run *r, uint64_t off)
{
    return r->kind == DISK__IS_ZERO ||
           (r->kind == DISK__IS_HOLE && (!d->backing || off >= d->backing->len));
}

/* Fills a new cluster with a part from the guest and the rest from what the range held before.
   Where nothing was ever written and nothing was held, the part alone is enough. */
static int disk__write_part(struct disk_image *d, struct disk__cursor *c, uint64_t off,
                            const struct disk__run *r, uint64_t to)
{
    uint64_t in = off & (disk__cluster(d) - 1), start = off - in;
    uint64_t there = disk__min(disk__cluster(d), d->len - start); /* the last one may be short */
    struct disk_iov iov = {d->buf, (size_t)disk__cluster(d)};
    struct disk__cursor mine = {&iov, 0};
    int rc;

    if (disk__reads_zero(d, r, start) && to >= d->end && !d->desc.store.fixed)
        return disk__rw(d, true, c, to + in, r->len);
    rc = disk__read(d, &mine, start, there);
    if (rc)
        return rc;
    memset(d->buf + there, 0, (size_t)(disk__cluster(d) - there));
    disk__copy(c, false, d->buf + in, r->len);
    return disk__put(d, d->buf, to, disk__cluster(d));
}

/* Writes the start of a run to new clusters: whole ones, or a part of one. */
static int disk__write_new(struct disk_image *d, struct disk__cursor *c, uint64_t off,
                           struct disk__run *r)
{
    uint64_t in = off & (disk__cluster(d) - 1), to, n;
    bool part = in || r->len < disk__cluster(d);
    int rc = disk__alloc(d, 1, part ? 1 : r->len >> d->cluster_bits, &to, &n);

    if (rc)
        return rc;
    r->len = disk__min(r->len, (n << d->cluster_bits) - in);
    if (part)
        rc = disk__write_part(d, c, off, r, to << d->cluster_bits);
    else
        rc = disk__rw(d, true, c, to << d->cluster_bits, r->len);
    if (rc)
        disk__unalloc(d, to, n);
    return rc ? rc : disk__link(d, off >> d->cluster_bits, to, n);
}

/* Writes in place. An entry that leads into the tables would let the guest write those. */
static int disk__write_old(struct disk_image *d, struct disk__cursor *c, uint64_t off,
                           const struct disk__run *r)
{
    uint64_t at = (r->entry & DISK__OFFSET) + (off & (disk__cluster(d) - 1));

    for (uint64_t k = at >> d->cluster_bits; k <= (at + r->len - 1) >> d->cluster_bits; k++)
        if (disk__meta_has(d, k))
            return disk__corrupt(d, "data would overwrite a table in cluster", k);
    return disk__rw(d, true, c, at, r->len);
}

/* Writes as much as goes in one piece; *done: how much that was. */
static int disk__write_step(struct disk_image *d, struct disk__cursor *c, uint64_t off,
                            uint64_t len, uint64_t *done)
{
    struct disk__run r;
    int rc = disk__room(d);

    if (!rc)
        rc = disk__own_l2(d, off >> d->cluster_bits);
    if (!rc)
        rc = disk__map(d, off, len, &r);
    if (rc)
        return rc;
    /* COPIED is trusted only as far as an entry cannot lead into a table */
    rc = r.kind == DISK__IS_DATA && r.entry & DISK__COPIED ? disk__write_old(d, c, off, &r)
                                                           : disk__write_new(d, c, off, &r);
    *done = r.len;
    return rc;
}

static int disk__write(struct disk_image *d, struct disk__cursor *c, uint64_t off, uint64_t len)
{
    int rc = disk__begin(d);

    if (d->format == DISK_RAW)
        return rc ? rc : disk__rw(d, true, c, off, len);
    for (uint64_t done = 0; len && !rc; off += done, len -= done) {
        struct disk__cursor before = *c;
        rc = disk__write_step(d, c, off, len, &done);
        if (rc == -ENOSPC && d->nfrees) { /* a commit makes room */
            *c = before;
            rc = disk__commit(d, false);
            if (!rc)
                rc = disk__write_step(d, c, off, len, &done);
        }
    }
    return rc;
}

/* >>clear: discard and zeroes */

/* What an entry becomes; keep: its cluster stays allocated, if it has one of its own. */
static uint64_t disk__cleared(const struct disk_image *d, uint64_t old, bool keep)
{
    if (keep && disk__kind(d, old) != DISK__IS_PACKED && old & DISK__OFFSET)
        return old | DISK__ZERO;
    return d->backing ? DISK__ZERO : 0;
}

/* Makes whole clusters, all in one slice, read as zero. */
static int disk__clear_step(struct disk_image *d, uint64_t cluster, uint64_t n, bool keep)
{
    struct disk__slot *s;
    uint8_t *p;
    int rc;

    if (!d->backing && !(disk__entry(&d->l1, cluster >> (d->cluster_bits - 3)) & DISK__OFFSET))
        return 0;
    rc = disk__room(d);
    if (!rc)
        rc = disk__own_l2(d, cluster);
    if (!rc)
        rc = disk__l2_slot(d, cluster, &s);
    if (rc || !s)
        return rc ? rc : -EIO;
    p = s->data + 8 * (((uint64_t)1 << disk__l2_bits(d)) - disk__in_slice(d, cluster));
    for (; n; n--, p += 8) {
        uint64_t old = disk__get64(p), now = disk__cleared(d, old, keep);
        if (now == old)
            continue;
        if (!(now & DISK__OFFSET))
            disk__drop_entry(d, old);
        disk__put64(p, now);
        s->dirty = true;
    }
    return 0;
}

/* Clusters [first, past), slice by slice. */
static int disk__clear(struct disk_image *d, uint64_t first, uint64_t past, bool keep)
{
    int rc = 0;

    for (uint64_t n; first < past && !rc; first += n) {
        n = disk__min(past - first, disk__in_slice(d, first));
        rc = disk__clear_step(d, first, n, keep);
    }
    return rc;
}

/* Writes zeroes, but where there are none yet. */
static int disk__clear_bytes(struct disk_image *d, uint64_t off, uint64_t len)
{
    struct disk_iov iov[DISK__ZERO_PARTS];
    struct disk__run r = {.kind = DISK__IS_DATA};
    int rc = 0;

    for (; len && !rc; off += r.len, len -= r.len) {
        struct disk__cursor c = disk__zeros(iov);
        if (d->format == DISK_QCOW2)
            rc = disk__map(d, off, len, &r);
        else
            r.len = len;
        if (rc || disk__reads_zero(d, &r, off))
            continue;
        r.len = disk__min(r.len, DISK__ZERO_LEN);
        rc = disk__write(d, &c, off, r.len);
    }
    return rc;
}

/* Whole clusters within a range; the last one of the image may be short. */
static void disk__whole(const struct disk_image *d, uint64_t off, uint64_t len, uint64_t *first,
                        uint64_t *past)
{
    *first = disk__clusters(d, off);
    *past = off + len == d->len ? disk__clusters(d, d->len) : (off + len) >> d->cluster_bits;
}

VMM_DEF int disk_discard(struct disk_image *d, uint64_t off, uint64_t len)
{
    uint64_t first, past;
    int rc = disk__begin(d);

    if (rc || off > d->len || len > d->len - off)
        return rc ? rc : -EINVAL;
    if (d->format == DISK_RAW) {
        if (d->desc.store.punch && len)
            d->desc.store.punch(d->desc.store.ctx, off, len);
        return 0;
    }
    if (d->backing && d->version < 3)
        return 0; /* it cannot say "zero", and what the backing file has must not reappear */
    disk__whole(d, off, len, &first, &past);
    return disk__clear(d, first, past, false);
}

VMM_DEF int disk_zero(struct disk_image *d, uint64_t off, uint64_t len, bool unmap)
{
    struct disk_store *s = &d->desc.store;
    uint64_t first, past, start;
    int rc = disk__begin(d);

    if (rc || off > d->len || len > d->len - off)
        return rc ? rc : -EINVAL;
    if (d->format == DISK_RAW && unmap && s->punch && len && !s->punch(s->ctx, off, len))
        return 0;
    if (d->format == DISK_RAW || (d->version < 3 && (d->backing || !unmap)))
        return disk__clear_bytes(d, off, len);
    disk__whole(d, off, len, &first, &past);
    if (first >= past)
        return disk__clear_bytes(d, off, len);
    start = first << d->cluster_bits;
    rc = disk__clear_bytes(d, off, start - off);
    if (!rc)
        rc = disk__clear(d, first, past, !unmap);
    start = disk__min(past << d->cluster_bits, off + len);
    return rc ? rc : disk__clear_bytes(d, start, off + len - start);
}

/* >>requests */

/* The sum of all pieces, if it fits. */
static int disk__span(const struct disk_image *d, const struct disk_iov *iov, unsigned n,
                      uint64_t off, uint64_t *len)
{
    for (*len = 0; n && off <= d->len && iov->len <= d->len - off - *len; iov++, n--)
        *len += iov->len;
    return n || off > d->len ? -EINVAL : 0;
}

VMM_DEF int disk_read(struct disk_image *d, const struct disk_iov *iov, unsigned n, uint64_t off)
{
    struct disk__cursor c = {iov, 0};
    uint64_t len;
    int rc = disk__span(d, iov, n, off, &len);

    return rc ? rc : disk__read(d, &c, off, len);
}

VMM_DEF int disk_write(struct disk_image *d, const struct disk_iov *iov, unsigned n, uint64_t off)
{
    struct disk__cursor c = {iov, 0};
    uint64_t len;
    int rc = disk__span(d, iov, n, off, &len);

    return rc ? rc : disk__write(d, &c, off, len);
}

VMM_DEF int disk_flush(struct disk_image *d)
{
    if (d->desc.read_only || d->failed)
        return d->failed;
    return disk__is_dirty(d) ? disk__commit(d, true) : disk__barrier(d);
}

/* >>open */

VMM_DEF const char *disk_probe(const uint8_t *head, size_t len)
{
    static const struct {
        const char *magic;
        uint8_t off, len;
        const char *name;
    } known[] = {{"QFI\xfb\0\0\0\1", 0, 8, "qcow"},
                 {"QFI\xfb", 0, 4, "qcow2"},
                 {"QED", 0, 4, "qed"},
                 {"KDMV", 0, 4, "vmdk"},
                 {"COWD", 0, 4, "vmdk"},
                 {"# Disk DescriptorFile", 0, 21, "vmdk"},
                 {"vhdxfile", 0, 8, "vhdx"},
                 {"conectix", 0, 8, "vpc"},
                 {"\x7f\x10\xda\xbe", 64, 4, "vdi"}};

    for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
        if (len >= (size_t)known[i].off + known[i].len &&
            !memcmp(head + known[i].off, known[i].magic, known[i].len))
            return known[i].name;
    return "raw";
}

/* A refusal, with the remedy. */
#define DISK__REFUSE(d, err, ...) vmm_err((d)->desc.log, err, "disk '%s' " __VA_ARGS__)

/* The format: as told, else by content where no guest can gain from having written that. */
static int disk__settle_format(struct disk_image *d)
{
    uint8_t head[512] = {0};
    enum disk_format told = d->desc.format;
    const char *found;
    int rc = told == DISK_RAW ? 0 : disk__get(d, head, 0, sizeof head);

    if (rc)
        return DISK__REFUSE(d, rc, "cannot be read: error %d", d->desc.name, -rc);
    found = disk_probe(head, sizeof head);
    d->format = told == DISK_RAW || !strcmp(found, "raw") ? DISK_RAW : DISK_QCOW2;
    if (told == DISK_RAW || (told == DISK_PROBE && d->format == DISK_RAW))
        return 0;
    if (strcmp(found, "qcow2"))
        return told == DISK_QCOW2
                   ? DISK__REFUSE(d, -EINVAL, "is not a qcow2 image, by its content it is %s",
                                  d->desc.name, found)
                   : DISK__REFUSE(d, -EINVAL,
                                  "looks like a %s image; make it qcow2 with 'qemu-img convert -O "
                                  "qcow2', or say format=raw if it only looks so",
                                  d->desc.name, found);
    if (told == DISK_PROBE && d->above)
        return DISK__REFUSE(d, -EINVAL,
                            "is a backing file of unknown format that looks like qcow2; record "
                            "which it is with 'qemu-img rebase -u -F qcow2' (or raw)",
                            d->desc.name);
    if (told == DISK_PROBE && !d->desc.read_only)
        return DISK__REFUSE(d, -EINVAL,
                            "looks like qcow2, which the guest of a raw disk can have written; "
                            "say format=qcow2 or format=raw",
                            d->desc.name);
    return 0;
}

/* Incompatible features, in the order of their bits. */
static int disk__check_features(struct disk_image *d, uint64_t features)
{
    const char *name = d->desc.name;

    if (features >> 5)
        return DISK__REFUSE(d, -ENOTSUP,
                            "has unknown features (0x%llx); make a plain one with 'qemu-img "
                            "convert -O qcow2'",
                            name, (unsigned long long)(features >> 5 << 5));
    if (features & 16)
        return DISK__REFUSE(d, -ENOTSUP,
                            "has subclusters (extended L2 entries); make one without with "
                            "'qemu-img convert -O qcow2'",
                            name);
    if (features & 4)
        return DISK__REFUSE(d, -ENOTSUP,
                            "keeps its data in another file; join them with 'qemu-img convert -O "
                            "qcow2'",
                            name);
    if (features & 3 && !d->desc.read_only)
        return DISK__REFUSE(
            d, -EIO, "%s; repair it with 'qemu-img check -r all', or attach it read-only", name,
            features & 2 ? "is marked as damaged" : "was not closed properly");
    return 0;
}

/* Fields that version 2 does not have. */
static int disk__check_v3(struct disk_image *d, const uint8_t *h)
{
    uint32_t len = disk__get32(h + 100);
    unsigned type = len > 104 ? h[104] : 0;
    uint64_t features = disk__get64(h + 72);
    int rc = disk__check_features(d, features);

    if (rc)
        return rc;
    d->ref_order = disk__get32(h + 96);
    d->autoclear = disk__get64(h + 88);
    d->zstd = type == 1;
    if (len < 104 || len % 8 || len > disk__cluster(d) || d->ref_order > 6)
        return disk__bad(d, "header length or refcount width", len);
    if (type > 1 || !(features & 8) != !type)
        return disk__bad(d, "compression type", type);
    return 0;
}

/* What both versions have. Version 2 ends here, with counts of 16 bits. */
static int disk__check_header(struct disk_image *d, const uint8_t *h)
{
    d->version = disk__get32(h + 4);
    d->cluster_bits = disk__get32(h + 20);
    d->ref_order = 4;
    d->len = disk__get64(h + 24);
    if (d->version < 2 || d->version > 3)
        return DISK__REFUSE(d, -ENOTSUP,
                            "is qcow2 of the unknown version %u; make it version 3 with 'qemu-img "
                            "convert -O qcow2'",
                            d->desc.name, d->version);
    if (d->cluster_bits < 9 || d->cluster_bits > 21)
        return disk__bad(d, "cluster size", d->cluster_bits);
    d->slice_bits = d->cluster_bits < 12 ? d->cluster_bits : 12;
    if (disk__get32(h + 32))
        return DISK__REFUSE(
            d, -ENOTSUP, "is encrypted; decrypt it with 'qemu-img convert -O qcow2'", d->desc.name);
    if (!d->len || d->len >> 62)
        return disk__bad(d, "length", d->len);
    return d->version == 3 ? disk__check_v3(d, h) : 0;
}

#define DISK__L1_MAX  (32u << 20) /* bytes; QEMU has the same limits */
#define DISK__REF_MAX (8u << 20)

/* Places and sizes of the two tables. */
static int disk__check_tables(struct disk_image *d, const uint8_t *h)
{
    uint64_t in_l2 = disk__cluster(d) / 8, n = disk__clusters(d, d->len);
    uint64_t mask = disk__cluster(d) - 1, refs = disk__get32(h + 56);
    uint64_t end = disk__clusters(d, d->desc.store.len) << d->cluster_bits;

    d->l1.n = d->l1.room = disk__get32(h + 36);
    d->l1.off = disk__get64(h + 40);
    d->refs.off = disk__get64(h + 48);
    if (d->l1.n > DISK__L1_MAX / 8 || d->l1.n < n / in_l2 + !!(n % in_l2))
        return disk__bad(d, "number of L1 entries", d->l1.n);
    if (!d->l1.off || d->l1.off & mask || d->l1.off >= end || d->l1.n * 8 > end - d->l1.off)
        return disk__bad(d, "the L1 table lies at", d->l1.off);
    if (!refs || refs > DISK__REF_MAX >> d->cluster_bits)
        return disk__bad(d, "clusters of the refcount table", refs);
    if (!d->refs.off || d->refs.off & mask || d->refs.off >= end ||
        refs << d->cluster_bits > end - d->refs.off)
        return disk__bad(d, "the refcount table lies at", d->refs.off);
    d->refs.room = (uint32_t)(refs << d->cluster_bits >> 3);
    return 0;
}

/* Entries that the refcount table can come to need: as if every guest cluster were written anew
   beside all that is there, and the tables for that. */
static uint32_t disk__refs_needed(const struct disk_image *d)
{
    unsigned per_block = d->cluster_bits + 3 - d->ref_order; /* power of two */
    uint64_t guest = disk__clusters(d, d->len), per_table = disk__cluster(d) / 8;
    uint64_t n = disk__clusters(d, d->desc.store.len) + guest + guest / 32 + 1024, blocks;

    n += d->l1.n + (n >> per_block);
    blocks = (n >> per_block) + 2;
    blocks += blocks / per_table + 1;
    blocks = disk__min((blocks + per_table - 1) / per_table * per_table, DISK__REF_MAX / 8);
    return blocks > d->refs.room ? (uint32_t)blocks : d->refs.room;
}

/* Memory of the caller. */
static void *disk__new(struct disk_image *d, uint64_t len)
{
    return d->desc.alloc && len <= SIZE_MAX ? d->desc.alloc(d->desc.ctx, (size_t)len) : NULL;
}

/* Gives each slot of a cache its memory. */
static void disk__share_out(struct disk_image *d, struct disk__cache *c, struct disk__slot *slot,
                            unsigned n, uint8_t *mem)
{
    c->slot = slot;
    c->nslots = n;
    for (unsigned i = 0; i < n; i++)
        slot[i].data = mem + ((size_t)i << d->slice_bits);
}

/* One block: caches, buffers; then the tables. */
static int disk__allocate(struct disk_image *d)
{
    bool ro = d->desc.read_only;
    uint64_t cluster = disk__cluster(d), slices = DISK_L2_SLICES + (ro ? 0 : DISK_REF_SLICES);
    uint64_t nmeta = 16;

    d->buf = (uint8_t *)disk__new(d, 4 * cluster + (slices << d->slice_bits));
    d->l1.data = (uint8_t *)disk__new(d, (uint64_t)d->l1.n * 8);
    if (d->zstd)
        d->unzstd = (struct disk_zstd *)disk__new(d, sizeof *d->unzstd);
    if (!ro) {
        d->refs.n = disk__refs_needed(d);
        while (nmeta < 2 * ((uint64_t)d->l1.n + d->refs.n))
            nmeta *= 2;
        d->refs.data = (uint8_t *)disk__new(d, (uint64_t)d->refs.n * 8);
        d->meta = (uint64_t *)disk__new(d, nmeta * 8);
        d->meta_mask = nmeta - 1;
    }
    if (!d->buf || !d->l1.data || (d->zstd && !d->unzstd) || (!ro && (!d->refs.data || !d->meta)))
        return DISK__REFUSE(d, -ENOMEM, "needs more memory than there is for its tables",
                            d->desc.name);
    d->unpacked = d->buf + cluster;
    d->packed = d->buf + 2 * cluster;
    disk__share_out(d, &d->l2_cache, d->l2_slot, DISK_L2_SLICES, d->buf + 4 * cluster);
    if (!ro)
        disk__share_out(d, &d->ref_cache, d->ref_slot, DISK_REF_SLICES,
                        d->buf + 4 * cluster + ((uint64_t)DISK_L2_SLICES << d->slice_bits));
    return 0;
}

/* Enters the clusters that a table names into the set; one that is there already, or is none, is
   damage. */
static int disk__enter(struct disk_image *d, const struct disk__table *t)
{
    for (uint32_t i = 0; i < t->n; i++) {
        uint64_t off = disk__entry(t, i) & DISK__OFFSET;
        if (!off)
            continue;
        if (off & (disk__cluster(d) - 1) || off >= d->desc.store.len ||
            disk__meta_has(d, off >> d->cluster_bits))
            return disk__bad(d, "tables overlap, or end the file, at", off);
        disk__meta_add(d, off >> d->cluster_bits);
    }
    return 0;
}

/* Only who writes needs the counts, and the set of what must not be overwritten. */
static int disk__load_tables(struct disk_image *d)
{
    int rc = disk__get(d, d->l1.data, d->l1.off, (uint64_t)d->l1.n * 8);

    if (rc || d->desc.read_only)
        return rc;
    rc = disk__get(d, d->refs.data, d->refs.off, (uint64_t)d->refs.room * 8);
    if (!rc)
        rc = disk__enter(d, &d->l1);
    return rc ? rc : disk__enter(d, &d->refs);
}

/* The backing format of the header extensions, which end where `end` is. */
static int disk__backing_format(struct disk_image *d, uint64_t at, uint64_t end,
                                enum disk_format *format)
{
    uint8_t ext[8] = {0}, name[8] = {0};
    uint32_t len = 0;
    int rc = 0;

    *format = DISK_PROBE;
    for (; !rc && at + 8 <= end; at += 8 + (((uint64_t)len + 7) & ~(uint64_t)7)) {
        rc = disk__get(d, ext, at, sizeof ext);
        len = disk__get32(ext + 4);
        if (rc || !disk__get32(ext))
            break;
        if (disk__get32(ext) != 0xe2792acau)
            continue;
        rc = disk__get(d, name, at + 8, disk__min(len, sizeof name - 1));
        if (len == 3 && !memcmp(name, "raw", 3))
            *format = DISK_RAW;
        else if (len == 5 && !memcmp(name, "qcow2", 5))
            *format = DISK_QCOW2;
        else
            return DISK__REFUSE(d, -ENOTSUP,
                                "has a backing file of the format '%s'; join them with 'qemu-img "
                                "convert -O qcow2'",
                                d->desc.name, (const char *)name);
    }
    return rc;
}

/* The path of a backing file, whose name of len bytes is at off, into `path`: as it is or, when
   relative, behind the directory of the image. */
static char *disk__backing_path(struct disk_image *d, char *path, uint64_t off, uint32_t len,
                                int *rc)
{
    const char *slash = strrchr(d->desc.name, '/');
    size_t dir = slash ? (size_t)(slash - d->desc.name) + 1 : 0;

    *rc = disk__get(d, path + dir, off, len);
    path[dir + len] = 0;
    if (path[dir] == '/')
        memmove(path, path + dir, len + 1);
    else
        memcpy(path, d->desc.name, dir);
    return path;
}

static int disk__open(struct disk_image *d, const struct disk_desc *desc, struct disk_image *above);

/* Opens the file at path as the image below d. */
static int disk__attach(struct disk_image *d, struct disk_image *b, const char *path,
                        enum disk_format format)
{
    struct disk_desc desc = d->desc;
    int rc;

    desc.name = path;
    desc.format = format;
    desc.read_only = true;
    memset(&desc.store, 0, sizeof desc.store);
    rc = desc.open(desc.ctx, path, &desc.store);
    if (rc)
        return rc;
    d->backing = b;
    return disk__open(b, &desc, d);
}

static int disk__open_backing(struct disk_image *d, const uint8_t *h)
{
    uint64_t off = disk__get64(h + 8), end = off ? off : disk__cluster(d);
    uint32_t len = disk__get32(h + 16), start = d->version < 3 ? 72 : disk__get32(h + 100);
    struct disk_image *b;
    enum disk_format format;
    char *path;
    int rc;

    if (!off)
        return 0;
    if (!len || len > 1023 || off < start || off > disk__cluster(d) - len)
        return disk__bad(d, "the name of the backing file lies at", off);
    if (d->desc.format == DISK_PROBE)
        return DISK__REFUSE(d, -EINVAL,
                            "looks like qcow2 with a backing file; say format=qcow2 if it is, or "
                            "format=raw",
                            d->desc.name);
    rc = disk__backing_format(d, start, end, &format);
    if (rc)
        return rc;
    if (!d->desc.open)
        return DISK__REFUSE(d, -ENOTSUP, "has a backing file, which cannot be opened here",
                            d->desc.name);
    b = (struct disk_image *)disk__new(d, sizeof *b + strlen(d->desc.name) + len + 1);
    if (!b)
        return DISK__REFUSE(d, -ENOMEM, "needs more memory than there is", d->desc.name);
    path = disk__backing_path(d, (char *)(b + 1), off, len, &rc);
    if (!rc && (!strncmp(path, "json:", 5) || strstr(path, "://")))
        rc = DISK__REFUSE(d, -ENOTSUP, "has the backing file '%s'; only files are supported",
                          d->desc.name, path);
    if (!rc)
        rc = disk__attach(d, b, path, format);
    if (rc && !d->backing)
        d->desc.free(d->desc.ctx, b);
    return rc;
}

/* Each step checks what the next one relies on. */
static int disk__open_qcow2(struct disk_image *d)
{
    uint8_t h[112] = {0};
    int rc = disk__get(d, h, 0, sizeof h);

    if (!rc)
        rc = disk__check_header(d, h);
    if (!rc)
        rc = disk__check_tables(d, h);
    if (!rc)
        rc = disk__allocate(d);
    if (!rc)
        rc = disk__load_tables(d);
    return rc ? rc : disk__open_backing(d, h);
}

/* The images above: not too many, and none of them is this file. */
static int disk__check_chain(const struct disk_image *d)
{
    const uint64_t *id = d->desc.store.id;
    unsigned depth = 1;

    for (const struct disk_image *a = d->above; a; a = a->above, depth++)
        if (depth == DISK_CHAIN_MAX ||
            ((id[0] || id[1]) && a->desc.store.id[0] == id[0] && a->desc.store.id[1] == id[1]))
            return DISK__REFUSE(d, -ELOOP,
                                "is its own backing file, or the chain is longer than %d; join "
                                "it with 'qemu-img convert -O qcow2'",
                                d->desc.name, DISK_CHAIN_MAX);
    return 0;
}

static int disk__open(struct disk_image *d, const struct disk_desc *desc, struct disk_image *above)
{
    int rc;

    memset(d, 0, sizeof *d);
    d->desc = *desc;
    d->desc.name = desc->name ? desc->name : "image";
    d->above = above;
    d->end = desc->store.len;
    rc = disk__check_chain(d);
    if (!rc)
        rc = disk__settle_format(d);
    if (rc || d->format == DISK_QCOW2)
        return rc ? rc : disk__open_qcow2(d);
    d->len = desc->store.len;
    d->desc.store.fixed = true;
    return 0;
}

VMM_DEF int disk_open(struct disk_image *d, const struct disk_desc *desc)
{
    return disk__open(d, desc, NULL);
}

VMM_DEF void disk_close(struct disk_image *d)
{
    void *mine[] = {d->buf, d->l1.data, d->refs.data, d->meta, d->unzstd};
    struct disk_image *b = d->backing;

    for (unsigned i = 0; i < sizeof mine / sizeof mine[0]; i++)
        if (mine[i])
            d->desc.free(d->desc.ctx, mine[i]);
    if (b) {
        struct disk_store store = b->desc.store;
        disk_close(b);
        if (store.close)
            store.close(store.ctx);
        d->desc.free(d->desc.ctx, b);
    }
    memset(d, 0, sizeof *d);
}

/* >>create */

#define DISK__NEW_BITS 16 /* clusters of 64 KiB */

static int disk__store_put(struct disk_store *s, void *mem, uint64_t off, size_t len)
{
    struct disk_iov iov = {mem, len};

    return s->rw(s->ctx, true, &iov, 1, off);
}

static uint64_t disk__div_up(uint64_t a, uint64_t b)
{
    return a / b + !!(a % b);
}

/* Refcounts of one block for the `used` clusters of the tables, the refcount table that names the
   block, and an empty L1 table. What is not written is a hole. */
static int disk__create_tables(struct disk_store *s, uint64_t block, uint64_t used)
{
    uint8_t buf[4096] = {0};
    int rc;

    for (unsigned i = 0; i < used; i++)
        buf[2 * i + 1] = 1;
    rc = disk__store_put(s, buf, block << DISK__NEW_BITS, sizeof buf);
    disk__put64(buf, block << DISK__NEW_BITS);
    if (!rc)
        rc = disk__store_put(s, buf, 1 << DISK__NEW_BITS, 8);
    memset(buf, 0, 8);
    if (!rc)
        rc = disk__store_put(s, buf, (used << DISK__NEW_BITS) - 8, 8);
    return rc || !s->flush ? rc : s->flush(s->ctx);
}

/* The header, its one extension (the backing format), and the backing file's name. */
static size_t disk__create_header(uint8_t *h, uint64_t len, const char *backing,
                                  enum disk_format format)
{
    const char *name = format == DISK_QCOW2 ? "qcow2" : "raw";

    memcpy(h, "QFI\xfb\0\0\0\3", 8);
    disk__put64(h + 8, 128);
    disk__put32(h + 16, (uint32_t)strlen(backing));
    disk__put32(h + 20, DISK__NEW_BITS);
    disk__put64(h + 24, len);
    disk__put64(h + 48, 1 << DISK__NEW_BITS);
    disk__put32(h + 96, 4); /* refcounts of 16 bits */
    disk__put32(h + 100, 104);
    disk__put32(h + 104, 0xe2792acau);
    disk__put32(h + 108, (uint32_t)strlen(name));
    memcpy(h + 112, name, strlen(name));
    memcpy(h + 128, backing, strlen(backing));
    return 128 + strlen(backing);
}

VMM_DEF int disk_create(struct disk_store *store, uint64_t len, const char *backing,
                        enum disk_format format, const struct vmm_log *log)
{
    uint8_t h[128 + 1024] = {0};
    uint64_t nl1 = disk__div_up(len, (uint64_t)1 << (2 * DISK__NEW_BITS - 3));
    uint64_t nrefs = 1 + (len >> 43); /* clusters of the refcount table: twice what is needed */
    uint64_t block = 1 + nrefs, l1 = block + 1;
    uint64_t used = l1 + disk__div_up(nl1 * 8, (uint64_t)1 << DISK__NEW_BITS);
    size_t n;
    int rc;

    if (!len || len >> 50 || strlen(backing) > 1023 || store->len || store->fixed)
        return vmm_err(log, -EINVAL,
                       "no overlay for '%s' can be made there: it needs an empty file, a name of "
                       "less than 1024 bytes, and a disk of at most 1 PiB",
                       backing);
    rc = disk__create_tables(store, block, used);
    n = disk__create_header(h, len, backing, format);
    disk__put32(h + 36, (uint32_t)nl1);
    disk__put64(h + 40, l1 << DISK__NEW_BITS);
    disk__put32(h + 56, (uint32_t)nrefs);
    if (!rc) /* last: an image that is not finished is none */
        rc = disk__store_put(store, h, 0, n);
    if (!rc && store->flush)
        rc = store->flush(store->ctx);
    store->len = used << DISK__NEW_BITS;
    return rc ? vmm_err(log, rc, "the overlay for '%s' cannot be written: error %d", backing, -rc)
              : 0;
}

/* >>inflate: what follows the compressed bytes in their last sector is not part of them. */

#ifdef DISK_LIBDEFLATE
#include <libdeflate.h>

VMM_DEF int disk_inflate(void *ctx, void *dst, size_t dst_len, const void *src, size_t src_len)
{
    struct libdeflate_decompressor *z = libdeflate_alloc_decompressor();
    enum libdeflate_result rc = LIBDEFLATE_BAD_DATA;
    size_t used, got = 0;

    (void)ctx;
    if (!z)
        return -ENOMEM;
    rc = libdeflate_deflate_decompress_ex(z, src, src_len, dst, dst_len, &used, &got);
    libdeflate_free_decompressor(z);
    return rc || got != dst_len ? -EIO : 0;
}
#endif

/* >>unzstd: names are those of RFC 8878. A frame's header has six bytes at least and a block's
   three, so that eight bytes before any stream of bits can be read, whatever they are. */

/* Bits that are taken from the end on; less than none are left when too many were. */
struct disk__bits {
    const uint8_t *src;
    int64_t left;
};

static inline unsigned disk__top_bit(uint32_t v)
{
    return 31 - (unsigned)__builtin_clz(v);
}

/* The highest bit that is set in the last byte ends the stream. */
static bool disk__bits_start(struct disk__bits *b, const uint8_t *src, size_t len)
{
    if (!len || !src[len - 1])
        return false;
    b->src = src;
    b->left = 8 * (int64_t)(len - 1) + disk__top_bit(src[len - 1]);
    return true;
}

/* The next 57 or more, from the highest downward. */
static inline __attribute__((always_inline)) uint64_t disk__bits_peek(const struct disk__bits *b)
{
    if (b->left < 0)
        return 0;
    return vmm_get64(b->src + ((b->left + 7) >> 3) - 8) << (-b->left & 7);
}

static inline __attribute__((always_inline)) uint64_t disk__bits_get(struct disk__bits *b,
                                                                     unsigned n)
{
    uint64_t v = disk__bits_peek(b) >> 1 >> (63 - n);

    b->left -= n;
    return v;
}

/* >>unzstd fse: 4.1 */

/* Bits in the usual order, from number `bit` on; beyond the end they are zero. */
static unsigned disk__fse_peek(const uint8_t *src, size_t len, size_t bit, unsigned n)
{
    uint32_t v = 0;

    for (unsigned i = 0; i < 3; i++)
        v |= bit / 8 + i < len ? (uint32_t)src[bit / 8 + i] << (8 * i) : 0;
    return v >> (bit & 7) & ((1u << n) - 1);
}

/* A probability, of which `left` are to be shared out, in as few bits as can tell; -1: less than
   one. */
static int disk__fse_count(const uint8_t *src, size_t len, size_t *bit, unsigned left)
{
    unsigned n = disk__top_bit(left + 1), half = 1u << n;
    unsigned few = 2 * half - 2 - left; /* so many values have one bit less than the others */
    unsigned v = disk__fse_peek(src, len, *bit, n + 1);

    if ((v & (half - 1)) < few) {
        *bit += n;
        return (int)(v & (half - 1)) - 1;
    }
    *bit += n + 1;
    return (int)(v < half ? v : v - few) - 1;
}

/* A table's description: its length in bytes; 0: nonsense, or beyond max symbols or 1 << max_log
   states. */
static size_t disk__fse_read(const uint8_t *src, size_t len, int16_t *count, unsigned max,
                             unsigned max_log, unsigned *log)
{
    unsigned n = 0, zeros;
    size_t bit = 4;
    int left;

    memset(count, 0, max * sizeof *count);
    *log = 5 + disk__fse_peek(src, len, 0, 4);
    for (left = *log > max_log ? -1 : 1 << *log; left > 0 && n < max; n++) {
        int c = disk__fse_count(src, len, &bit, (unsigned)left);
        left -= c < 0 ? 1 : c;
        count[n] = (int16_t)c;
        for (zeros = c ? 0 : 3; zeros == 3 && n < max; n += zeros) {
            zeros = disk__fse_peek(src, len, bit, 2);
            bit += 2;
        }
    }
    return left || n > max || bit > 8 * len ? 0 : (bit + 7) / 8;
}

/* The states of n symbols; `base` is the symbol yet, nothing is extra. */
static bool disk__fse_build(struct disk__fse *t, unsigned log, const int16_t *count, unsigned n)
{
    unsigned size = 1u << log, high = size, at = 0, step = size / 2 + size / 8 + 3;
    uint16_t next[DISK__FSE_SYMBOLS];

    for (unsigned s = 0; s < n; s++) {
        next[s] = (uint16_t)(count[s] < 0 ? 1 : count[s]);
        if (count[s] < 0)
            t[--high].base = s;
    }
    for (unsigned s = 0; s < n; s++)
        for (int i = 0; i < count[s]; i++) {
            t[at].base = s;
            do
                at = (at + step) & (size - 1);
            while (at >= high);
        }
    for (unsigned i = 0; i < size; i++) {
        unsigned v = next[t[i].base]++;
        t[i].bits = (uint8_t)(log - disk__top_bit(v));
        t[i].next = (uint16_t)((v << t[i].bits) - size);
        t[i].extra = 0;
    }
    return !at;
}

static inline unsigned disk__fse_step(const struct disk__fse *s, struct disk__bits *b)
{
    return s->next + (unsigned)disk__bits_get(b, s->bits);
}

/* >>unzstd literals: 3.1.1.3.1, and 4.2 */

/* Weights, from two states in turn, until the bits are at an end: how many; 0: nonsense. */
static unsigned disk__huff_weights(const uint8_t *src, size_t len, uint8_t *weight)
{
    struct disk__fse t[1 << 6];
    int16_t count[DISK__HUFF_MAX + 1];
    struct disk__bits b = {0};
    unsigned log, n, state[2];
    size_t used = disk__fse_read(src, len, count, DISK__HUFF_MAX + 1, 6, &log);

    if (!used || !disk__fse_build(t, log, count, DISK__HUFF_MAX + 1) ||
        !disk__bits_start(&b, src + used, len - used))
        return 0;
    state[0] = (unsigned)disk__bits_get(&b, log);
    state[1] = (unsigned)disk__bits_get(&b, log);
    for (n = 0; n < 254 && b.left >= 0; n++) {
        const struct disk__fse *s = &t[state[n % 2]];
        weight[n] = (uint8_t)s->base;
        state[n % 2] = disk__fse_step(s, &b);
    }
    weight[n] = (uint8_t)t[state[n % 2]].base;
    return n && b.left < 0 ? n + 1 : 0;
}

/* The codes of n bytes with weights, and of one more, whose weight is what is missing. */
static bool disk__huff_build(struct disk_zstd *z, uint8_t *weight, unsigned n)
{
    uint32_t sum = 0, rest, at = 0;
    unsigned log;

    for (unsigned i = 0; i < n; i++)
        sum += (weight[i] > DISK__HUFF_MAX ? 1u << 31 : 1u << weight[i]) >> 1;
    log = sum ? disk__top_bit(sum) + 1 : 99;
    rest = log > DISK__HUFF_MAX ? 0 : (1u << log) - sum;
    if (!rest || rest & (rest - 1))
        return false;
    weight[n++] = (uint8_t)(disk__top_bit(rest) + 1);
    for (unsigned w = 1; w <= log; w++)
        for (unsigned s = 0; s < n; s++)
            for (unsigned i = weight[s] == w ? 1u << (w - 1) : 0; i > 0; i--)
                z->huff[at++] = (uint16_t)(s << 8 | (log + 1 - w));
    z->huff_log = (uint8_t)log;
    return true;
}

/* The description of a tree: its length; 0: nonsense. */
static size_t disk__huff_read(struct disk_zstd *z, const uint8_t *src, size_t len)
{
    uint8_t weight[256];
    unsigned n = len ? src[0] : 0;
    size_t used = 1 + (n < 128 ? n : (n - 127 + 1) / 2);

    z->huff_log = 0;
    if (used > len)
        return 0;
    if (n < 128) {
        n = disk__huff_weights(src + 1, n, weight);
    } else {
        n -= 127;
        for (unsigned i = 0; i < n; i++)
            weight[i] = src[1 + i / 2] >> (i % 2 ? 0 : 4) & 15;
    }
    return n && disk__huff_build(z, weight, n) ? used : 0;
}

struct disk__stream {
    struct disk__bits b;
    uint8_t *p, *end;
};

/* Five bytes, which are 55 bits at most. */
static inline __attribute__((always_inline)) bool disk__huff_five(const struct disk_zstd *z,
                                                                  struct disk__stream *s)
{
    uint64_t bits = disk__bits_peek(&s->b);
    unsigned shift = 64 - z->huff_log, used = 0;

    for (int i = 0; i < 5; i++) {
        unsigned e = z->huff[bits << used >> shift];
        s->p[i] = (uint8_t)(e >> 8);
        used += e & 15;
    }
    s->p += 5;
    s->b.left -= used;
    return s->b.left >= 0;
}

/* n streams, of which the last is the shortest, side by side as far as that goes. */
static bool disk__huff_streams(const struct disk_zstd *z, struct disk__stream *s, unsigned n)
{
    unsigned shift = 64 - z->huff_log;

    for (size_t k = (size_t)(s[n - 1].end - s[n - 1].p) / 5; k > 0; k--)
        for (unsigned i = 0; i < n; i++)
            if (!disk__huff_five(z, &s[i]))
                return false;
    for (; n > 0; n--, s++) {
        while (s->p < s->end) {
            unsigned e = z->huff[disk__bits_peek(&s->b) >> shift];
            *s->p++ = (uint8_t)(e >> 8);
            s->b.left -= e & 15;
        }
        if (s->b.left)
            return false;
    }
    return true;
}

/* size literals from one stream, or from four behind a table of the lengths of three. */
static bool disk__huff_decode(struct disk_zstd *z, const uint8_t *src, size_t len, size_t size,
                              unsigned n)
{
    struct disk__stream s[4];
    size_t share = n == 1 ? size : (size + 3) / 4;
    const uint8_t *table = src;

    if (n == 4 && (len < 6 || size < 3 * share))
        return false;
    src += n == 4 ? 6 : 0;
    len -= n == 4 ? 6 : 0;
    for (unsigned i = 0; i < n; i++) {
        size_t used = i == n - 1 ? len : vmm_get16(table + 2 * i);
        if (used > len || !disk__bits_start(&s[i].b, src, used))
            return false;
        s[i].p = z->literals + i * share;
        s[i].end = i == n - 1 ? z->literals + size : s[i].p + share;
        src += used;
        len -= used;
    }
    return disk__huff_streams(z, s, n);
}

/* Bytes to come, in the block itself or unpacked. */
struct disk__lits {
    const uint8_t *p;
    size_t left;
};

static uint64_t disk__le(const uint8_t *src, unsigned n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | src[n];
    return v;
}

/* As they are, or one of them many times. */
static size_t disk__lits_plain(struct disk_zstd *z, const uint8_t *src, size_t len,
                               struct disk__lits *l)
{
    bool rle = src[0] & 1;
    unsigned format = src[0] >> 2 & 3, head = format == 1 ? 2 : format == 3 ? 3 : 1;

    if (len < head)
        return 0;
    l->left = (size_t)(disk__le(src, head) >> (head == 1 ? 3 : 4));
    l->p = rle ? z->literals : src + head;
    if (l->left > DISK__BLOCK_MAX || len - head < (rle ? 1 : l->left))
        return 0;
    if (rle)
        memset(z->literals, src[head], l->left);
    return head + (rle ? 1 : l->left);
}

/* The literals of a block: the length of their section; 0: nonsense. */
static size_t disk__lits_read(struct disk_zstd *z, const uint8_t *src, size_t len,
                              struct disk__lits *l)
{
    unsigned format = len ? src[0] >> 2 & 3 : 0, head = format < 2 ? 3 : format + 2;
    unsigned bits = format < 2 ? 10 : 4 * format + 6;
    uint64_t v;
    size_t packed, tree = 0;

    if (len < 2 || !(src[0] & 2))
        return len < 2 ? 0 : disk__lits_plain(z, src, len, l);
    if (len < head)
        return 0;
    v = disk__le(src, head) >> 4;
    l->p = z->literals;
    l->left = (size_t)(v & ((1u << bits) - 1));
    packed = (size_t)(v >> bits);
    if (packed > len - head || l->left > DISK__BLOCK_MAX)
        return 0;
    if (!(src[0] & 1)) {
        tree = disk__huff_read(z, src + head, packed);
        if (!tree)
            return 0;
    }
    if (!z->huff_log ||
        !disk__huff_decode(z, src + head + tree, packed - tree, l->left, format ? 4 : 1))
        return 0;
    return head + packed;
}

/* >>unzstd sequences: 3.1.1.3.2 and 3.1.1.4 */

/* What the three kinds of codes stand for: `first` and up, each symbol for twice as many values
   as the next of `extra` bits can tell; and their usual distribution. */
static const struct disk__code {
    uint8_t n, max_log, log, first;
    uint8_t extra[DISK__FSE_SYMBOLS];
    int16_t count[DISK__FSE_SYMBOLS];
} disk__codes[3] = {
    {36,
     9,
     6,
     0,
     {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0,  0,  0,  0,  1,  1,
      1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
     {4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1,  1,  2,  2,
      2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1}},
    {32,
     8,
     5,
     1,
     {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
      16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31},
     {1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1}},
    {53,
     9,
     6,
     3,
     {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0,  0,  0,  0,  0,  0, 0,
      0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
     {1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,  1,  1,  1,  1,  1,  1, 1,
      1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1}},
};

/* Symbols become what they stand for. */
static void disk__code_values(const struct disk__code *k, struct disk__fse *t, unsigned log)
{
    uint32_t value[DISK__FSE_SYMBOLS], next = k->first;

    for (unsigned s = 0; s < k->n; s++) {
        value[s] = next;
        next += 1u << k->extra[s];
    }
    for (unsigned i = 0; i < 1u << log; i++) {
        t[i].extra = k->extra[t[i].base];
        t[i].base = value[t[i].base];
    }
}

/* The decoder for one kind, by its mode: the usual one, one symbol alone, one that is described, or
   that of the last block. The length of its description, or -1. */
static int disk__code_read(struct disk_zstd *z, unsigned which, unsigned mode, const uint8_t *src,
                           size_t len)
{
    const struct disk__code *k = &disk__codes[which];
    struct disk__fse *t = z->fse[which];
    int16_t read[DISK__FSE_SYMBOLS];
    const int16_t *count = mode ? read : k->count;
    unsigned log = mode ? 0 : k->log;
    int used = mode == 1;

    if (mode == 3)
        return z->fse_log[which] == DISK__NONE ? -1 : 0;
    z->fse_log[which] = DISK__NONE;
    if (mode == 1) {
        if (!len || src[0] >= k->n)
            return -1;
        t[0] = (struct disk__fse){.base = src[0]};
    }
    if (mode == 2) {
        used = (int)disk__fse_read(src, len, read, k->n, k->max_log, &log);
        if (!used)
            return -1;
    }
    if (mode != 1 && !disk__fse_build(t, log, count, k->n))
        return -1;
    disk__code_values(k, t, log);
    z->fse_log[which] = (uint8_t)log;
    return used;
}

/* Values up to 3 mean one of the last offsets, or, without literals before, of those that differ
   from the very last. */
static inline uint64_t disk__offset(struct disk_zstd *z, uint64_t value, bool lits)
{
    unsigned i = value > 3 ? 3 : (unsigned)value - lits;
    uint64_t off = value > 3 ? value - 3 : i == 3 ? z->back[0] - 1 : z->back[i];

    if (i > 1)
        z->back[2] = z->back[1];
    if (i > 0)
        z->back[1] = z->back[0];
    return z->back[0] = off;
}

struct disk__out {
    uint8_t *start, *p, *end;
};

/* n bytes that lie `off` bytes back; each that is written may be one of them. */
static void disk__match(struct disk__out *o, size_t n, size_t off)
{
    uint8_t *end = o->p + n;

    if (off >= 16 && (size_t)(o->end - o->p) >= n + 16) {
        for (uint8_t *p = o->p; p < end; p += 16)
            memcpy(p, p - off, 16);
        o->p = end;
        return;
    }
    for (; n > off; off *= 2) { /* what there is, is repeated */
        memcpy(o->p, o->p - off, off);
        o->p += off;
        n -= off;
    }
    memcpy(o->p, o->p - off, n);
    o->p = end;
}

static int disk__lits_copy(struct disk__out *o, struct disk__lits *l, size_t n)
{
    if (n > l->left)
        return -EIO;
    if (n > (size_t)(o->end - o->p))
        return -ENOSPC;
    if (n <= 16 && l->left >= 16 && o->end - o->p >= 16)
        memcpy(o->p, l->p, 16);
    else
        memcpy(o->p, l->p, n);
    o->p += n;
    l->p += n;
    l->left -= n;
    return 0;
}

/* n sequences: literals, then what is a copy of what went before. */
static int disk__replay(struct disk_zstd *z, struct disk__bits *b, unsigned n, struct disk__lits *l,
                        struct disk__out *o)
{
    const struct disk__fse *lit, *off, *len;
    unsigned lit_at = (unsigned)disk__bits_get(b, z->fse_log[0]);
    unsigned off_at = (unsigned)disk__bits_get(b, z->fse_log[1]);
    unsigned len_at = (unsigned)disk__bits_get(b, z->fse_log[2]);

    for (;;) {
        lit = &z->fse[0][lit_at];
        off = &z->fse[1][off_at];
        len = &z->fse[2][len_at];
        uint64_t back = off->base + disk__bits_get(b, off->extra);
        size_t match = len->base + (size_t)disk__bits_get(b, len->extra);
        size_t lits = lit->base + (size_t)disk__bits_get(b, lit->extra);
        int rc = disk__lits_copy(o, l, lits);
        if (rc)
            return rc;
        back = disk__offset(z, back, lits > 0);
        if (!back || back > (uint64_t)(o->p - o->start))
            return -EIO;
        if (match > (size_t)(o->end - o->p))
            return -ENOSPC;
        disk__match(o, match, (size_t)back);
        if (!--n)
            return b->left ? -EIO : 0;
        lit_at = disk__fse_step(lit, b);
        len_at = disk__fse_step(len, b);
        off_at = disk__fse_step(off, b);
    }
}

/* The sequences of a block and, behind them, the literals that are left. */
static int disk__sequences(struct disk_zstd *z, const uint8_t *src, size_t len,
                           struct disk__lits *l, struct disk__out *o)
{
    unsigned n = len ? src[0] : 0, head = n < 128 ? 1 : n < 255 ? 2 : 3;
    struct disk__bits b = {0};
    int rc = 0;

    if (len < head || (!n && len > 1))
        return -EIO;
    if (n >= 128)
        n = n < 255 ? (n - 128) << 8 | src[1] : vmm_get16(src + 1) + 0x7f00u;
    if (n) {
        unsigned modes = len > head ? src[head] : 3;
        size_t at = head + 1u;
        if (modes & 3)
            return -EIO;
        for (unsigned i = 0; i < 3; i++) {
            int used = disk__code_read(z, i, modes >> (6 - 2 * i) & 3, src + at, len - at);
            if (used < 0)
                return -EIO;
            at += (size_t)used;
        }
        if (!disk__bits_start(&b, src + at, len - at))
            return -EIO;
        rc = disk__replay(z, &b, n, l, o);
    }
    return rc ? rc : disk__lits_copy(o, l, l->left);
}

/* >>unzstd frame: 3.1.1 */

/* What a block holds as it is, or n times one byte, or packed. */
static int disk__block(struct disk_zstd *z, unsigned type, const uint8_t *src, size_t n,
                       struct disk__out *o)
{
    struct disk__lits l = {src, n};
    uint8_t *start = o->p;
    size_t used;
    int rc;

    if (!type)
        return disk__lits_copy(o, &l, n);
    if (type == 1) {
        if (n > (size_t)(o->end - o->p))
            return -ENOSPC;
        memset(o->p, src[0], n);
        o->p += n;
        return 0;
    }
    used = disk__lits_read(z, src, n, &l);
    rc = used ? disk__sequences(z, src + used, n - used, &l, o) : -EIO;
    return !rc && o->p - start > DISK__BLOCK_MAX ? -EIO : rc;
}

/* All blocks: their length, or -errno. */
static int64_t disk__blocks(struct disk_zstd *z, const uint8_t *src, size_t len,
                            struct disk__out *o)
{
    size_t at = 0, n, there;
    uint32_t head;
    unsigned type;
    int rc;

    do {
        if (len - at < 3)
            return -EIO;
        head = (uint32_t)disk__le(src + at, 3);
        type = head >> 1 & 3;
        n = head >> 3;
        there = type == 1 ? 1 : n;
        at += 3;
        if (type == 3 || n > DISK__BLOCK_MAX || there > len - at)
            return -EIO;
        rc = disk__block(z, type, src + at, n, o);
        if (rc)
            return rc;
        at += there;
    } while (!(head & 1));
    return (int64_t)at;
}

/* A frame's header: its length, or 0; how long the content is, if that is known; is there a sum? */
static size_t disk__frame(const uint8_t *src, size_t len, uint64_t *size, bool *sum)
{
    unsigned flags = len < 6 ? 8 : src[4], single = flags >> 5 & 1;
    unsigned field = flags >> 6 ? 1u << (flags >> 6) : single;
    size_t head = 6 - single + field;

    if (flags & 11 || len < head || memcmp(src, "\x28\xb5\x2f\xfd", 4))
        return 0; /* with a dictionary, or of the future */
    *size = field ? disk__le(src + head - field, field) + (field == 2 ? 256 : 0) : ~(uint64_t)0;
    *sum = flags & 4;
    return head;
}

/* The hash XXH64 */
#define DISK__XXH1 0x9e3779b185ebca87u
#define DISK__XXH2 0xc2b2ae3d27d4eb4fu
#define DISK__XXH3 0x165667b19e3779f9u
#define DISK__XXH4 0x85ebca77c2b2ae63u
#define DISK__XXH5 0x27d4eb2f165667c5u

static uint64_t disk__turn(uint64_t v, unsigned n)
{
    return v << n | v >> (64 - n);
}

static uint64_t disk__xxh_round(uint64_t sum, uint64_t v)
{
    return disk__turn(sum + v * DISK__XXH2, 31) * DISK__XXH1;
}

/* The last 31 bytes or less. */
static uint64_t disk__xxh_tail(uint64_t h, const uint8_t *p, size_t len)
{
    for (; len >= 8; p += 8, len -= 8)
        h = disk__turn(h ^ disk__xxh_round(0, vmm_get64(p)), 27) * DISK__XXH1 + DISK__XXH4;
    if (len >= 4) {
        h = disk__turn(h ^ vmm_get32(p) * DISK__XXH1, 23) * DISK__XXH2 + DISK__XXH3;
        p += 4;
        len -= 4;
    }
    for (; len > 0; p++, len--)
        h = disk__turn(h ^ *p * DISK__XXH5, 11) * DISK__XXH1;
    h = (h ^ h >> 33) * DISK__XXH2;
    h = (h ^ h >> 29) * DISK__XXH3;
    return h ^ h >> 32;
}

static uint64_t disk__xxh64(const uint8_t *p, size_t len)
{
    uint64_t v[4] = {DISK__XXH1 + DISK__XXH2, DISK__XXH2, 0, 0 - DISK__XXH1}, h = DISK__XXH5;

    for (size_t i = 0; i < len / 32 * 4; i++)
        v[i % 4] = disk__xxh_round(v[i % 4], vmm_get64(p + 8 * i));
    if (len >= 32) {
        h = disk__turn(v[0], 1) + disk__turn(v[1], 7) + disk__turn(v[2], 12) + disk__turn(v[3], 18);
        for (unsigned i = 0; i < 4; i++)
            h = (h ^ disk__xxh_round(0, v[i])) * DISK__XXH1 + DISK__XXH4;
    }
    return disk__xxh_tail(h + len, p + len / 32 * 32, len % 32);
}

VMM_DEF int64_t disk_unzstd(struct disk_zstd *z, void *dst, size_t cap, const void *src, size_t len)
{
    const uint8_t *in = (const uint8_t *)src;
    struct disk__out o = {(uint8_t *)dst, (uint8_t *)dst, (uint8_t *)dst + cap};
    uint64_t size;
    bool sum;
    size_t head = disk__frame(in, len, &size, &sum);
    int64_t n;

    if (!head)
        return -EIO;
    for (unsigned i = 0; i < 3; i++) {
        z->fse_log[i] = DISK__NONE;
        z->back[i] = i ? 4 * i : 1;
    }
    z->huff_log = 0;
    n = disk__blocks(z, in + head, len - head, &o);
    if (n < 0)
        return n;
    in += head + (size_t)n;
    len -= head + (size_t)n;
    cap = (size_t)(o.p - o.start);
    if ((size != ~(uint64_t)0 && size != cap) || (sum && len < 4) ||
        (sum && vmm_get32(in) != (uint32_t)disk__xxh64(o.start, cap)))
        return -EIO;
    return (int64_t)cap;
}

#endif /* DISK_IMPLEMENTATION */
