/* Records what a process does to the files of one directory, for replaying a power cut.
 *
 * Loaded with LD_PRELOAD. Environment:
 *   WEALD_RECORD_DIR    only files below this directory are recorded (an absolute path without links)
 *   WEALD_RECORD_LOG    the log; appended to, so that several processes one after another share it
 *   WEALD_RECORD_ACK    a descriptor; what is written to it is logged as an acknowledgement, *before* it is written
 *   WEALD_RECORD_IGNORE a list of faults: "data" makes fsync and fdatasync of files do nothing, "meta" takes O_DSYNC and
 *                       O_SYNC away, "dirs" makes fsync of directories do nothing. Such a run must be found out by the test.
 *   WEALD_RECORD_FAIL   the sync of file data with this number, counted from 1 in each process, fails with EIO
 *   WEALD_RECORD_SYNC_US how long a sync takes, in microseconds; nothing is really synced, because the log is what counts
 *
 * The log is a sequence of events: a header (struct event, host byte order) and `len` bytes. Each is appended with a single
 * write. A write is logged before it happens (from then on it may reach the disk) and again when it is done; a sync covers the
 * writes that were done before it began. LMDB's lock.mdb is left out: it is rebuilt by whoever opens it first.
 *
 * What cannot be modelled (writing through a shared mapping, copying inside the kernel) is logged as such and fails the test.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
    CREATE = 1, WRITE, DONE, SYNC, SYNCED, TRUNCATE, RENAME, UNLINK, MKDIR, RMDIR, ACK, UNMODELLED,
};

struct event {
    uint32_t magic, kind;
    uint64_t id, inode, offset, len;
    uint32_t synced, process;
};

#define MAGIC 0x57524543u
#define FDS 4096

static char dir[PATH_MAX];
static size_t dir_len;
static int log_fd = -1, ack_fd = -1;
static int ignore_data, ignore_meta, ignore_dirs;
static useconds_t sync_us;
static atomic_long syncs_left = LONG_MAX; /* until one fails */
static atomic_ulong next_id = 1;
static atomic_char dsync[FDS];

#define REAL(ret, name, ...) \
    static ret (*real_##name)(__VA_ARGS__); \
    static inline void need_##name(void) { \
        if (!real_##name) real_##name = (ret (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name); \
    }

REAL(ssize_t, write, int, const void *, size_t)
REAL(ssize_t, writev, int, const struct iovec *, int)
REAL(ssize_t, pwrite, int, const void *, size_t, off_t)
REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t)
REAL(int, ftruncate, int, off_t)
REAL(int, openat, int, const char *, int, ...)
REAL(int, close, int)
REAL(int, rename, const char *, const char *)
REAL(int, renameat2, int, const char *, int, const char *, unsigned)
REAL(int, unlinkat, int, const char *, int)
REAL(int, mkdirat, int, const char *, mode_t)

__attribute__((constructor)) static void start(void) {
    const char *d = getenv("WEALD_RECORD_DIR"), *l = getenv("WEALD_RECORD_LOG");
    const char *a = getenv("WEALD_RECORD_ACK"), *i = getenv("WEALD_RECORD_IGNORE");
    const char *u = getenv("WEALD_RECORD_SYNC_US"), *f = getenv("WEALD_RECORD_FAIL");
    if (!d || !l || !realpath(d, dir)) return;
    dir_len = strlen(dir);
    need_openat();
    int fd = real_openat(AT_FDCWD, l, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) abort();
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 900); /* out of the way of the program's own */
    if (log_fd < 0) log_fd = fd;
    if (a) ack_fd = atoi(a);
    if (f) syncs_left = atol(f);
    if (u) sync_us = (useconds_t)atol(u);
    if (i) {
        ignore_data = strstr(i, "data") != NULL;
        ignore_meta = strstr(i, "meta") != NULL;
        ignore_dirs = strstr(i, "dirs") != NULL;
    }
}

static void put(enum kind kind, uint64_t id, uint64_t inode, uint64_t offset, uint32_t synced,
                const struct iovec *parts, int count) {
    int saved = errno;
    struct event e = {.magic = MAGIC, .kind = kind, .id = id, .inode = inode, .offset = offset,
                      .synced = synced, .process = (uint32_t)getpid()};
    struct iovec all[IOV_MAX];
    if (count > IOV_MAX - 1) abort();
    all[0] = (struct iovec){&e, sizeof e};
    for (int n = 0; n < count; n++) {
        all[n + 1] = parts[n];
        e.len += parts[n].iov_len;
    }
    need_writev();
    if (real_writev(log_fd, all, count + 1) != (ssize_t)(sizeof e + e.len)) abort();
    errno = saved;
}

static void put_text(enum kind kind, uint64_t id, uint64_t inode, uint32_t synced, const char *text, size_t len) {
    struct iovec part = {(void *)text, len};
    put(kind, id, inode, 0, synced, &part, 1);
}

static int below(const char *path) {
    if (log_fd < 0 || strncmp(path, dir, dir_len) || (path[dir_len] && path[dir_len] != '/')) return 0;
    const char *name = strrchr(path, '/');
    return !name || strcmp(name, "/lock.mdb");
}

/* The path of an open descriptor, if it is recorded. */
static int tracked(int fd, char *path, struct stat *st) {
    char link[40];
    if (log_fd < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path) && !fstat(fd, st);
}

/* The path of a name that may not be there yet, if it is recorded. */
static int named(int at, const char *name, char *path) {
    char parent[PATH_MAX], full[2 * PATH_MAX];
    if (log_fd < 0 || strlen(name) >= PATH_MAX / 2) return 0;
    if (name[0] == '/') {
        strcpy(full, name);
    } else {
        char link[40];
        if (at == AT_FDCWD) strcpy(link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t n = readlink(link, parent, PATH_MAX / 2 - 2);
        if (n < 0) return 0;
        parent[n] = 0;
        sprintf(full, "%s/%s", parent, name);
    }
    char *slash = strrchr(full, '/');
    if (!slash[1]) { *slash = 0; slash = strrchr(full, '/'); }
    *slash = 0;
    int saved = errno;
    int found = realpath(*full ? full : "/", parent) != NULL;
    errno = saved;
    if (!found) return 0;
    if (strlen(parent) + strlen(slash + 1) + 2 > PATH_MAX) return 0;
    sprintf(path, "%s/%s", parent, slash + 1);
    return below(path);
}

static int is_dsync(int fd) { return fd >= 0 && fd < FDS && dsync[fd]; }

static ssize_t done(uint64_t id, uint64_t inode, int synced, ssize_t result) {
    if (synced && sync_us) usleep(sync_us);
    put(DONE, id, inode, 0, (uint32_t)(synced && result >= 0), NULL, 0);
    return result;
}

static off_t position(int fd, const struct stat *st) {
    return (fcntl(fd, F_GETFL) & O_APPEND) ? st->st_size : lseek(fd, 0, SEEK_CUR);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    char path[PATH_MAX];
    struct stat st;
    need_pwritev();
    if (!tracked(fd, path, &st)) return real_pwritev(fd, parts, count, offset);
    uint64_t id = next_id++;
    put(WRITE, id, st.st_ino, (uint64_t)offset, 0, parts, count);
    return done(id, st.st_ino, is_dsync(fd), real_pwritev(fd, parts, count, offset));
}
ssize_t pwritev64(int fd, const struct iovec *p, int c, off_t o) { return pwritev(fd, p, c, o); }

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset) {
    struct iovec part = {(void *)data, len};
    return pwritev(fd, &part, 1, offset);
}
ssize_t pwrite64(int fd, const void *d, size_t l, off_t o) { return pwrite(fd, d, l, o); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    struct stat st;
    need_writev();
    if (fd == ack_fd && log_fd >= 0) put(ACK, next_id++, 0, 0, 0, parts, count);
    if (!tracked(fd, path, &st)) return real_writev(fd, parts, count);
    uint64_t id = next_id++;
    put(WRITE, id, st.st_ino, (uint64_t)position(fd, &st), 0, parts, count);
    return done(id, st.st_ino, is_dsync(fd), real_writev(fd, parts, count));
}

ssize_t write(int fd, const void *data, size_t len) {
    struct iovec part = {(void *)data, len};
    return writev(fd, &part, 1);
}

int ftruncate(int fd, off_t len) {
    char path[PATH_MAX];
    struct stat st;
    need_ftruncate();
    if (!tracked(fd, path, &st)) return real_ftruncate(fd, len);
    uint64_t id = next_id++;
    put(TRUNCATE, id, st.st_ino, (uint64_t)len, 0, NULL, 0);
    return (int)done(id, st.st_ino, 0, real_ftruncate(fd, len));
}
int ftruncate64(int fd, off_t len) { return ftruncate(fd, len); }

static int sync_file(int fd, long call) {
    char path[PATH_MAX];
    struct stat st;
    if (!tracked(fd, path, &st)) return (int)syscall(call, fd);
    if (S_ISDIR(st.st_mode) ? ignore_dirs : ignore_data) return 0;
    if (!S_ISDIR(st.st_mode) && --syncs_left == 0) {
        errno = EIO;
        return -1;
    }
    uint64_t id = next_id++;
    put_text(SYNC, id, st.st_ino, 0, path, strlen(path));
    if (sync_us) usleep(sync_us);
    put(SYNCED, id, st.st_ino, 0, 0, NULL, 0);
    return 0;
}
int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }

static int opened(int at, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    struct stat st;
    int mine = named(at, name, path), was_there = 0, wants_sync = 0;
    need_openat();
    if (mine) {
        was_there = !fstatat(AT_FDCWD, path, &st, 0);
        wants_sync = (flags & (O_DSYNC | O_SYNC)) != 0;
        flags &= ~(O_DSYNC | O_SYNC); /* the log says what is synced */
    }
    int fd = real_openat(at, name, flags, mode);
    if (fd >= 0 && fd < FDS) dsync[fd] = (char)(mine && wants_sync && !ignore_meta);
    if (fd < 0 || !mine) return fd;
    if (!was_there && !fstat(fd, &st)) {
        put_text(CREATE, next_id++, st.st_ino, 0, path, strlen(path));
    } else if (was_there && (flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY) {
        uint64_t id = next_id++;
        put(TRUNCATE, id, st.st_ino, 0, 0, NULL, 0);
        done(id, st.st_ino, 0, 0);
    }
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list ap; va_start(ap, flags); mode = va_arg(ap, mode_t); va_end(ap); }
int open(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int openat(int at, const char *name, int flags, ...) { MODE(flags) return opened(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { MODE(flags) return opened(at, name, flags, mode); }
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    need_close();
    if (fd >= 0 && fd < FDS) dsync[fd] = 0;
    return real_close(fd);
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char paths[2 * PATH_MAX], second[PATH_MAX];
    int mine = named(from_at, from, paths), to_mine = named(to_at, to, second);
    need_renameat2();
    int result = real_renameat2(from_at, from, to_at, to, flags);
    if (!result && (mine || to_mine)) {
        size_t len = strlen(paths) + 1;
        strcpy(paths + len, second);
        if (mine && to_mine && !flags) put_text(RENAME, next_id++, 0, 0, paths, len + strlen(second));
        else put_text(UNMODELLED, next_id++, 0, 0, "rename over the edge or with flags", 34);
    }
    return result;
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int fa, const char *f, int ta, const char *t) { return renameat2(fa, f, ta, t, 0); }

int unlinkat(int at, const char *name, int flags) {
    char path[PATH_MAX];
    int mine = named(at, name, path);
    need_unlinkat();
    int result = real_unlinkat(at, name, flags);
    if (!result && mine) put_text((flags & AT_REMOVEDIR) ? RMDIR : UNLINK, next_id++, 0, 0, path, strlen(path));
    return result;
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int at, const char *name, mode_t mode) {
    char path[PATH_MAX];
    int mine = named(at, name, path);
    need_mkdirat();
    int result = real_mkdirat(at, name, mode);
    if (!result && mine) put_text(MKDIR, next_id++, 0, 0, path, strlen(path));
    return result;
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

/* What the model has no place for. */
static void unmodelled(int fd, const char *what) {
    char path[PATH_MAX];
    struct stat st;
    if (tracked(fd, path, &st)) put_text(UNMODELLED, next_id++, st.st_ino, 0, what, strlen(what));
}
void *mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset) {
    if (fd >= 0 && (prot & PROT_WRITE) && (flags & MAP_SHARED)) unmodelled(fd, "writable shared mapping");
    return (void *)syscall(SYS_mmap, at, len, prot, flags, fd, offset);
}
void *mmap64(void *a, size_t l, int p, int f, int fd, off_t o) { return mmap(a, l, p, f, fd, o); }
ssize_t copy_file_range(int from, off64_t *fo, int to, off64_t *o, size_t len, unsigned flags) {
    unmodelled(to, "copy_file_range");
    return syscall(SYS_copy_file_range, from, fo, to, o, len, flags);
}
ssize_t sendfile(int to, int from, off_t *offset, size_t len) {
    unmodelled(to, "sendfile");
    return syscall(SYS_sendfile, to, from, offset, len);
}
ssize_t sendfile64(int to, int from, off_t *offset, size_t len) { return sendfile(to, from, offset, len); }
int fallocate(int fd, int mode, off_t offset, off_t len) {
    unmodelled(fd, "fallocate");
    return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}
int fallocate64(int fd, int mode, off_t o, off_t l) { return fallocate(fd, mode, o, l); }
int posix_fallocate(int fd, off_t o, off_t l) { return fallocate(fd, 0, o, l) ? errno : 0; }
int link(const char *from, const char *to) {
    char path[PATH_MAX];
    if (named(AT_FDCWD, to, path)) put_text(UNMODELLED, next_id++, 0, 0, "link", 4);
    return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}
