#ifndef STUB_MACH_TIME_H
#define STUB_MACH_TIME_H
#include <stub.h>

typedef struct mach_timebase_info {
    uint32_t numer, denom;
} mach_timebase_info_data_t;

uint64_t mach_absolute_time(void);
int mach_timebase_info(struct mach_timebase_info *info);

#endif
