/* Makes a folder read-only for a process that preloads this library, as ext4 does after an error of its disk: files that
   are open stay open, and each attempt to write fails with EROFS. `mount -o remount,ro` refuses that.

   READ_ONLY_FOLDER: the folder. READ_ONLY_WHILE: a file outside of it; the folder is read-only while it exists. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define REFUSE_IF(condition)                                                                                           \
    if (condition) {                                                                                                   \
        errno = EROFS;                                                                                                 \
        return -1;                                                                                                     \
    }

static int is_read_only(void)
{
    const char *file = getenv("READ_ONLY_WHILE");
    return file && faccessat(AT_FDCWD, file, F_OK, 0) == 0;
}

static int contains(const char *path)
{
    const char *folder = getenv("READ_ONLY_FOLDER");
    return folder && !strncmp(path, folder, strlen(folder)) && is_read_only();
}

static int has_file(int file)
{
    char link[32], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return contains(path);
}

static int has_entry(int folder, const char *path)
{
    return path[0] == '/' || folder == AT_FDCWD ? contains(path) : has_file(folder);
}

static int is_write(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
}

static mode_t mode_of(int flags, va_list arguments)
{
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode_t mode = mode_of(flags, arguments);                                                                       \
        va_end(arguments);                                                                                             \
        REFUSE_IF(is_write(flags) && contains(path));                                                                  \
        return NEXT(name)(path, flags, mode);                                                                          \
    }
#define OPENAT(name)                                                                                                   \
    int name(int folder, const char *path, int flags, ...)                                                             \
    {                                                                                                                  \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode_t mode = mode_of(flags, arguments);                                                                       \
        va_end(arguments);                                                                                             \
        REFUSE_IF(is_write(flags) && has_entry(folder, path));                                                         \
        return NEXT(name)(folder, path, flags, mode);                                                                  \
    }
#define ON_FILE(result, name, parameters, arguments)                                                                   \
    result name parameters                                                                                             \
    {                                                                                                                  \
        REFUSE_IF(has_file(file));                                                                                     \
        return NEXT(name) arguments;                                                                                   \
    }
#define ON_PATH(name, parameters, arguments)                                                                           \
    int name parameters                                                                                                \
    {                                                                                                                  \
        REFUSE_IF(contains(path));                                                                                     \
        return NEXT(name) arguments;                                                                                   \
    }
#define ON_ENTRY(name, parameters, arguments)                                                                          \
    int name parameters                                                                                                \
    {                                                                                                                  \
        REFUSE_IF(has_entry(folder, path));                                                                            \
        return NEXT(name) arguments;                                                                                   \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
ON_FILE(ssize_t, write, (int file, const void *data, size_t size), (file, data, size))
ON_FILE(ssize_t, writev, (int file, const struct iovec *parts, int count), (file, parts, count))
ON_FILE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at))
ON_FILE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
ON_FILE(int, ftruncate, (int file, off_t size), (file, size))
ON_FILE(int, ftruncate64, (int file, off64_t size), (file, size))
ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode))
ON_PATH(rmdir, (const char *path), (path))
ON_PATH(unlink, (const char *path), (path))
ON_PATH(rename, (const char *path, const char *to), (path, to))
ON_PATH(link, (const char *path, const char *to), (path, to))
ON_ENTRY(mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode))
ON_ENTRY(unlinkat, (int folder, const char *path, int flags), (folder, path, flags))
ON_ENTRY(renameat, (int folder, const char *path, int to, const char *name), (folder, path, to, name))
ON_ENTRY(linkat, (int folder, const char *path, int to, const char *name, int flags), (folder, path, to, name, flags))
