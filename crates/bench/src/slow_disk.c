/* Flushes that take LONGER_NS nanoseconds longer than the disk needs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <time.h>

static void wait_longer(void) {
    struct timespec left = {LONGER_NS / 1000000000L, LONGER_NS % 1000000000L};
    int before = errno;
    while (nanosleep(&left, &left) == -1 && errno == EINTR) {
    }
    errno = before;
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    int done = real(file);
    wait_longer();
    return done;
}

int fsync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    int done = real(file);
    wait_longer();
    return done;
}
