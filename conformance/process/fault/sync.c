/* Preloaded into a broker: once the file that FAULT_SWITCH names is there, writes (FAULT_WHAT=write) or syncs
   (FAULT_WHAT=sync) of segments fail. For the latter nothing is opened to be written past the page cache. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int is_failing(int fd, const char *what) {
    const char *wanted = getenv("FAULT_WHAT");
    const char *file = getenv("FAULT_SWITCH");
    if (!wanted || !file || strcmp(wanted, what) != 0 || access(file, F_OK) != 0) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 4) return 0;
    path[length] = 0;
    return strcmp(path + length - 4, ".seg") == 0;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    if (is_failing(fd, "write")) { errno = EIO; return -1; }
    return real(fd, bytes, count, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    if (is_failing(fd, "sync")) { errno = EIO; return -1; }
    return real(fd);
}

int open64(const char *path, int flags, ...) {
    static int (*real)(const char *, int, ...);
    if (!real) real = dlsym(RTLD_NEXT, "open64");
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    const char *wanted = getenv("FAULT_WHAT");
    if ((flags & O_DIRECT) && wanted && strcmp(wanted, "sync") == 0) { errno = EINVAL; return -1; }
    return real(path, flags, mode);
}
