/* Interposes libc's file system calls (LD_PRELOAD): counts and logs those below one folder, and makes the N-th of
 * them the last thing its process does, a refusal, or half a write.
 *
 * Nothing is counted before failpoint_arm(). No state is kept per descriptor: /proc/self/fd says where one leads.
 * Calls go by one name for all their spellings ("open" for open, open64, openat, …), and an open for writing is a
 * "create", for other errors befall it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define ROOM (2 * PATH_MAX)
#define FICLONE_REQUEST 0x40049409UL

/* As in failpoint.py. */
enum kind { NEVER, KILL_BEFORE, KILL_AFTER, REFUSE_ONCE, REFUSE_FROM_THEN_ON, HALVE, TEAR, END };
enum verdict { PASS, REFUSED, LAST, HALVED, TORN, ENDED };

static struct {
    char folder[PATH_MAX]; /* with a slash at its end */
    char but[PATH_MAX];    /* a folder below it that does not count, or "" */
    char names[1024];      /* ",open,write,": the calls that count */
    enum kind kind;
    long at;
    int error;
    int log;
} plan;
static volatile int armed;
static long counted;

void failpoint_arm(const char *folder, const char *but, const char *names, int kind, long at, int error, int log) {
    snprintf(plan.folder, sizeof plan.folder, "%s/", folder);
    snprintf(plan.but, sizeof plan.but, "%s", but);
    snprintf(plan.names, sizeof plan.names, "%s", names);
    plan.kind = kind;
    plan.at = at;
    plan.error = error;
    plan.log = log;
    counted = 0;
    armed = 1;
}

void failpoint_pause(void) { armed = 0; }

void failpoint_resume(void) { armed = 1; }

static void die(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) syscall(SYS_pause);
}

static int is_watched(const char *path) {
    size_t length = strlen(plan.folder);
    if (path && plan.but[0] && !strncmp(path, plan.but, strlen(plan.but))) return 0;
    return armed && path && (!strncmp(path, plan.folder, length) || !strncmp(path, plan.folder, length - 1));
}

static int is_named(const char *name) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, ",%s,", name);
    return strstr(plan.names, wanted) != NULL;
}

static enum verdict meet(const char *name, const char *path) {
    int before = errno;
    if (!is_watched(path) || !is_named(name)) return PASS;
    long number = __sync_add_and_fetch(&counted, 1);
    char line[ROOM];
    int length = snprintf(line, sizeof line, "%s %s\n", name, path);
    syscall(SYS_write, plan.log, line, length);
    errno = before;
    if (number == plan.at && plan.kind == KILL_BEFORE) die();
    if (number == plan.at && plan.kind == KILL_AFTER) return LAST;
    if (number == plan.at && plan.kind == HALVE) return HALVED;
    if (number == plan.at && plan.kind == TEAR) return TORN;
    if (number == plan.at && plan.kind == END) return ENDED;
    if ((number == plan.at && plan.kind == REFUSE_ONCE) ||
        (number >= plan.at && plan.kind == REFUSE_FROM_THEN_ON)) {
        errno = plan.error;
        return REFUSED;
    }
    return PASS;
}

/* The path that `fd` leads to, or "". */
static const char *of(int fd, char *room) {
    char link[64];
    int before = errno;
    room[0] = '\0';
    if (armed) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = syscall(SYS_readlink, link, room, PATH_MAX - 1);
        room[length < 0 ? 0 : length] = '\0';
    }
    errno = before;
    return room;
}

static const char *at(int folder, const char *path, char *room) {
    if (!armed || !path || path[0] == '/' || folder == AT_FDCWD) return path;
    of(folder, room);
    if (path[0]) {
        size_t length = strlen(room);
        snprintf(room + length, ROOM - length, "/%s", path);
    }
    return room;
}

static const char *either(const char *one, const char *other) { return is_watched(one) ? one : other; }

#define NEXT(type, symbol, parameters)     \
    static type(*next) parameters;         \
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, #symbol)

/* A torn read: all bytes are said to have come, and the second half of them are zeros. */
static void zero_tail(void *data, ssize_t size) {
    if (size > 0) memset((char *)data + size / 2, 0, size - size / 2);
}

static void zero_parts(const struct iovec *parts, int count, ssize_t size) {
    ssize_t start = size / 2, seen = 0;
    for (int part = 0; part < count && seen < size; part++) {
        ssize_t length = parts[part].iov_len;
        for (ssize_t byte = 0; byte < length && seen < size; byte++, seen++)
            if (seen >= start) ((char *)parts[part].iov_base)[byte] = 0;
    }
}

#define WRAP(type, symbol, name, path, parameters, arguments) \
    type symbol parameters {                                  \
        NEXT(type, symbol, parameters);                       \
        char room[ROOM], other[ROOM];                         \
        (void)room, (void)other;                              \
        enum verdict verdict = meet(name, path);              \
        if (verdict == REFUSED) return -1;                    \
        type result = next arguments;                         \
        if (verdict == LAST) die();                           \
        return result;                                        \
    }

/* With HALVE, half of the bytes, as when a signal comes or a disk fills up. */
#define WRAP_TRANSFER(symbol, name, fd, size, parameters, arguments) \
    ssize_t symbol parameters {                                      \
        NEXT(ssize_t, symbol, parameters);                           \
        char room[ROOM];                                             \
        enum verdict verdict = meet(name, of(fd, room));             \
        if (verdict == REFUSED) return -1;                           \
        if (verdict == HALVED && size > 1) size /= 2;                \
        ssize_t result = next arguments;                             \
        if (verdict == LAST) die();                                  \
        return result;                                               \
    }

/* With TEAR a read whose tail did not come from the disk, with END a file that seems to end here. */
#define WRAP_READ(symbol, parameters, arguments)                     \
    ssize_t symbol parameters {                                      \
        NEXT(ssize_t, symbol, parameters);                           \
        char room[ROOM];                                             \
        enum verdict verdict = meet("read", of(fd, room));           \
        if (verdict == REFUSED) return -1;                           \
        if (verdict == ENDED) return 0;                              \
        if (verdict == HALVED && size > 1) size /= 2;                \
        ssize_t result = next arguments;                             \
        if (verdict == LAST) die();                                  \
        if (verdict == TORN) zero_tail(data, result);                \
        return result;                                               \
    }

#define WRAP_OPEN(symbol, path, parameters, arguments)                                      \
    int symbol parameters {                                                                 \
        NEXT(int, symbol, parameters);                                                      \
        char room[ROOM];                                                                    \
        (void)room;                                                                         \
        mode_t mode = 0;                                                                    \
        if (flags & (O_CREAT | __O_TMPFILE)) {                                              \
            va_list rest;                                                                   \
            va_start(rest, flags);                                                          \
            mode = va_arg(rest, mode_t);                                                    \
            va_end(rest);                                                                   \
        }                                                                                   \
        int creates = (flags & O_CREAT) || (flags & O_ACCMODE) != O_RDONLY;                 \
        enum verdict verdict = meet(creates ? "create" : "open", path);                     \
        if (verdict == REFUSED) return -1;                                                  \
        int result = next arguments;                                                        \
        if (verdict == LAST) die();                                                         \
        return result;                                                                      \
    }

/* A sync is counted and not done: nobody loses power here, and thousands of cases would wait for the disk. */
#define WRAP_SYNC(symbol)                                   \
    int symbol(int fd) {                                    \
        NEXT(int, symbol, (int));                           \
        char room[ROOM];                                    \
        enum verdict verdict = meet("fsync", of(fd, room)); \
        if (verdict == REFUSED) return -1;                  \
        if (verdict == LAST) die();                         \
        return is_watched(room) ? 0 : next(fd);             \
    }

WRAP_OPEN(open, path, (const char *path, int flags, ...), (path, flags, mode))
WRAP_OPEN(open64, path, (const char *path, int flags, ...), (path, flags, mode))
WRAP_OPEN(openat, at(folder, path, room), (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
WRAP_OPEN(openat64, at(folder, path, room), (int folder, const char *path, int flags, ...), (folder, path, flags, mode))

WRAP_READ(read, (int fd, void *data, size_t size), (fd, data, size))
WRAP_READ(pread, (int fd, void *data, size_t size, off_t from), (fd, data, size, from))
WRAP_READ(pread64, (int fd, void *data, size_t size, off64_t from), (fd, data, size, from))
WRAP_TRANSFER(write, "write", fd, size, (int fd, const void *data, size_t size), (fd, data, size))
WRAP_TRANSFER(pwrite, "write", fd, size, (int fd, const void *data, size_t size, off_t to), (fd, data, size, to))
WRAP_TRANSFER(pwrite64, "write", fd, size, (int fd, const void *data, size_t size, off64_t to), (fd, data, size, to))
WRAP_TRANSFER(sendfile, "write", fd, size, (int fd, int from, off_t *place, size_t size), (fd, from, place, size))
WRAP_TRANSFER(sendfile64, "write", fd, size, (int fd, int from, off64_t *place, size_t size), (fd, from, place, size))
WRAP_TRANSFER(copy_file_range, "write", fd, size,
              (int from, off64_t *start, int fd, off64_t *place, size_t size, unsigned flags),
              (from, start, fd, place, size, flags))

ssize_t readv(int fd, const struct iovec *parts, int count) {
    NEXT(ssize_t, readv, (int, const struct iovec *, int));
    char room[ROOM];
    enum verdict verdict = meet("read", of(fd, room));
    if (verdict == REFUSED) return -1;
    if (verdict == ENDED) return 0;
    ssize_t result = next(fd, parts, count);
    if (verdict == LAST) die();
    if (verdict == TORN) zero_parts(parts, count, result);
    return result;
}

WRAP(ssize_t, writev, "write", of(fd, room), (int fd, const struct iovec *parts, int count), (fd, parts, count))

WRAP_SYNC(fsync)
WRAP_SYNC(fdatasync)

WRAP(int, ftruncate, "truncate", of(fd, room), (int fd, off_t size), (fd, size))
WRAP(int, ftruncate64, "truncate", of(fd, room), (int fd, off64_t size), (fd, size))
WRAP(int, flock, "flock", of(fd, room), (int fd, int how), (fd, how))

WRAP(int, rename, "rename", either(to, from), (const char *from, const char *to), (from, to))
WRAP(int, renameat, "rename", either(at(there, to, other), at(here, from, room)),
     (int here, const char *from, int there, const char *to), (here, from, there, to))
WRAP(int, link, "link", either(to, from), (const char *from, const char *to), (from, to))
WRAP(int, linkat, "link", either(at(there, to, other), at(here, from, room)),
     (int here, const char *from, int there, const char *to, int flags), (here, from, there, to, flags))
WRAP(int, symlink, "symlink", path, (const char *target, const char *path), (target, path))
WRAP(int, symlinkat, "symlink", at(folder, path, room), (const char *target, int folder, const char *path),
     (target, folder, path))
WRAP(int, unlink, "unlink", path, (const char *path), (path))
WRAP(int, unlinkat, "unlink", at(folder, path, room), (int folder, const char *path, int flags),
     (folder, path, flags))
WRAP(int, rmdir, "rmdir", path, (const char *path), (path))
WRAP(int, mkdir, "mkdir", path, (const char *path, mode_t mode), (path, mode))
WRAP(int, mkdirat, "mkdir", at(folder, path, room), (int folder, const char *path, mode_t mode), (folder, path, mode))

WRAP(int, chmod, "chmod", path, (const char *path, mode_t mode), (path, mode))
WRAP(int, fchmod, "chmod", of(fd, room), (int fd, mode_t mode), (fd, mode))
WRAP(int, fchmodat, "chmod", at(folder, path, room), (int folder, const char *path, mode_t mode, int flags),
     (folder, path, mode, flags))
WRAP(int, utimensat, "utime", at(folder, path, room),
     (int folder, const char *path, const struct timespec times[2], int flags), (folder, path, times, flags))
WRAP(int, futimens, "utime", of(fd, room), (int fd, const struct timespec times[2]), (fd, times))

WRAP(int, stat, "stat", path, (const char *path, struct stat *found), (path, found))
WRAP(int, stat64, "stat", path, (const char *path, struct stat64 *found), (path, found))
WRAP(int, lstat, "stat", path, (const char *path, struct stat *found), (path, found))
WRAP(int, lstat64, "stat", path, (const char *path, struct stat64 *found), (path, found))
WRAP(int, fstatat, "stat", at(folder, path, room), (int folder, const char *path, struct stat *found, int flags),
     (folder, path, found, flags))
WRAP(int, fstatat64, "stat", at(folder, path, room), (int folder, const char *path, struct stat64 *found, int flags),
     (folder, path, found, flags))

int ioctl(int fd, unsigned long request, ...) {
    NEXT(int, ioctl, (int, unsigned long, ...));
    char room[ROOM];
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    enum verdict verdict = request == FICLONE_REQUEST ? meet("clone", of(fd, room)) : PASS;
    if (verdict == REFUSED) return -1;
    int result = next(fd, request, argument);
    if (verdict == LAST) die();
    return result;
}

DIR *opendir(const char *path) {
    NEXT(DIR *, opendir, (const char *));
    return meet("opendir", path) == REFUSED ? NULL : next(path);
}

DIR *fdopendir(int fd) {
    NEXT(DIR *, fdopendir, (int));
    char room[ROOM];
    return meet("opendir", of(fd, room)) == REFUSED ? NULL : next(fd);
}

struct dirent64 *readdir64(DIR *folder) {
    NEXT(struct dirent64 *, readdir64, (DIR *));
    char room[ROOM];
    return meet("readdir", of(dirfd(folder), room)) == REFUSED ? NULL : next(folder);
}
