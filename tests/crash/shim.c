/* Fails the n-th call of one kind that touches files in a folder: LD_PRELOAD=shim.so. `arm` says which; `seen` counts. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { OPEN, READ, WRITE, SYNC, RENAME, UNLINK, TRUNCATE, LOCK, MODE, KINDS };
static char folder[4096];
static int armed = -1, left, number, counts[KINDS];

void arm(const char *where, int kind, int nth, int error) {
    snprintf(folder, sizeof folder, "%s", where);
    memset(counts, 0, sizeof counts);
    armed = kind;
    left = nth;
    number = error;
}

int seen(int kind) { return counts[kind]; }

static int fails(int kind, const char *path) {
    if (!folder[0] || (path[0] == '/' && strncmp(path, folder, strlen(folder)))) return 0;
    counts[kind]++;
    if (kind != armed || --left) return 0;
    errno = number;
    return 1;
}

static int fails_at(int kind, int fd) {
    char link[64], path[4096];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (n <= 0) return 0;
    path[n] = 0;
    return path[0] == '/' && fails(kind, path);
}

#define REAL(type, name) __typeof__(type) *real = (__typeof__(type) *)dlsym(RTLD_NEXT, name)
#define ON_FD(kind, result, name, parameters, types, arguments) \
    result name parameters { \
        REAL(result types, #name); \
        return fails_at(kind, fd) ? -1 : real arguments; \
    }

ON_FD(READ, ssize_t, read, (int fd, void *to, size_t n), (int, void *, size_t), (fd, to, n))
ON_FD(READ, ssize_t, pread64, (int fd, void *to, size_t n, off64_t at), (int, void *, size_t, off64_t), (fd, to, n, at))
ON_FD(WRITE, ssize_t, write, (int fd, const void *data, size_t n), (int, const void *, size_t), (fd, data, n))
ON_FD(WRITE, ssize_t, pwrite64, (int fd, const void *data, size_t n, off64_t at), (int, const void *, size_t, off64_t),
      (fd, data, n, at))
ON_FD(SYNC, int, fsync, (int fd), (int), (fd))
ON_FD(SYNC, int, fdatasync, (int fd), (int), (fd))
ON_FD(TRUNCATE, int, ftruncate64, (int fd, off64_t n), (int, off64_t), (fd, n))
ON_FD(LOCK, int, flock, (int fd, int how), (int, int), (fd, how))
ON_FD(MODE, int, fchmod, (int fd, mode_t mode), (int, mode_t), (fd, mode))

int rename(const char *from, const char *to) {
    REAL(int(const char *, const char *), "rename");
    return fails(RENAME, to) ? -1 : real(from, to);
}

int unlink(const char *path) {
    REAL(int(const char *), "unlink");
    return fails(UNLINK, path) ? -1 : real(path);
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int(const char *, int, ...), #name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return flags & O_CREAT && fails(OPEN, path) ? -1 : real(path, flags, mode); \
    }

OPENS(open)
OPENS(open64)
