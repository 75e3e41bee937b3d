/* rtcwait.c - waits for interrupts of /dev/rtc0; static, runs in guests

     rtcwait      sets the alarm two seconds ahead and reads until it comes, then three updates, then 64
                  periodic interrupts at 64 Hz; prints "alarm N ms, updates N ms, periodic N ms" */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/rtc.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static long now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* musl's ioctl takes the request as an int. */
static int ask(int fd, unsigned long request, void *arg)
{
    return ioctl(fd, (int)request, arg);
}

/* Reads until n interrupts have come for this cause; each read tells how many there were. */
static long wait_ms(int fd, unsigned n, unsigned long cause)
{
    long start = now_ms();
    unsigned long got;

    for (unsigned i = 0; i < n; i += (unsigned)(got >> 8))
        if (read(fd, &got, sizeof got) != sizeof got || !(got & cause))
            return -1;
    return now_ms() - start;
}

static int set_alarm(int fd, int seconds)
{
    struct rtc_time t;
    struct tm tm = {0};
    time_t at;

    if (ask(fd, RTC_RD_TIME, &t))
        return -1;
    tm.tm_sec = t.tm_sec, tm.tm_min = t.tm_min, tm.tm_hour = t.tm_hour;
    tm.tm_mday = t.tm_mday, tm.tm_mon = t.tm_mon, tm.tm_year = t.tm_year;
    at = timegm(&tm) + seconds;
    gmtime_r(&at, &tm);
    t.tm_sec = tm.tm_sec, t.tm_min = tm.tm_min, t.tm_hour = tm.tm_hour;
    return ask(fd, RTC_ALM_SET, &t) ? -1 : ask(fd, RTC_AIE_ON, NULL);
}

static int fail(const char *what)
{
    fprintf(stderr, "rtcwait: %s: %s\n", what, strerror(errno));
    return 1;
}

int main(void)
{
    int fd = open("/dev/rtc0", O_RDONLY);
    long alarm, updates, periodic;

    if (fd < 0)
        return fail("/dev/rtc0");
    if (set_alarm(fd, 2))
        return fail("alarm");
    alarm = wait_ms(fd, 1, RTC_AF);
    if (ask(fd, RTC_AIE_OFF, NULL) || ask(fd, RTC_UIE_ON, NULL))
        return fail("updates");
    updates = wait_ms(fd, 3, RTC_UF);
    if (ask(fd, RTC_UIE_OFF, NULL) || ask(fd, RTC_IRQP_SET, (void *)64) ||
        ask(fd, RTC_PIE_ON, NULL))
        return fail("periodic");
    periodic = wait_ms(fd, 64, RTC_PF);
    ask(fd, RTC_PIE_OFF, NULL);
    printf("alarm %ld ms, updates %ld ms, periodic %ld ms\n", alarm, updates, periodic);
    return 0;
}
