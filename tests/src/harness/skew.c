/* The wall clock of one process, as a test wants it: CLOCK_REALTIME only, so that waiting is not touched.
 *
 * Loaded with LD_PRELOAD. WEALD_SKEW_FILE holds three numbers of 64 bits in host byte order, which may change at any time:
 *   offset_ns   added to the clock
 *   since_ns    and from this moment of the true clock on,
 *   permille    the clock gains or loses so many thousandths of the time passed
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *skew;
static int (*real_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("WEALD_SKEW_FILE");
    real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *map = mmap(NULL, 24, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED) skew = map;
}

int clock_gettime(clockid_t clock, struct timespec *ts) {
    if (!real_gettime) start();
    int ret = real_gettime(clock, ts);
    if (ret || !skew || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return ret;
    int64_t now = ts->tv_sec * 1000000000ll + ts->tv_nsec;
    int64_t since = skew[1];
    now += skew[0];
    if (since && now > since) now += (now - skew[0] - since) / 1000 * skew[2];
    ts->tv_sec = now / 1000000000ll;
    ts->tv_nsec = now % 1000000000ll;
    return 0;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz) {
    (void)tz;
    struct timespec ts;
    int ret = clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return ret;
}

time_t time(time_t *out) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (out) *out = ts.tv_sec;
    return ts.tv_sec;
}
