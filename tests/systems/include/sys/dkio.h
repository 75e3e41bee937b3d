#ifndef STUB_SYS_DKIO_H
#define STUB_SYS_DKIO_H

/* of NetBSD: _IOR('d', 132, off_t), _IOR('d', 133, u_int) */
#define DIOCGMEDIASIZE  0x40086484ul
#define DIOCGSECTORSIZE 0x40046485ul

#endif
