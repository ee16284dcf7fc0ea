#define _GNU_SOURCE
#include "chat_history.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *chat_history_path(const char *xdg_state_home, const char *home)
{
    char *path = NULL;
    int n = -1;

    if (xdg_state_home && xdg_state_home[0] == '/')
        n = asprintf(&path, "%s/m40llm/history", xdg_state_home);
    else if (home && home[0] == '/')
        n = asprintf(&path, "%s/.local/state/m40llm/history", home);
    return n < 0 ? NULL : path;
}

/* Folders that cannot be made show when the file is opened. */
static void make_folders(const char *path)
{
    char *folder = strdup(path);

    for (char *slash = folder ? strchr(folder + 1, '/') : NULL; slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(folder, 0700);
        *slash = '/';
    }
    free(folder);
}

static const char *refusal(int fd)
{
    struct stat info;

    if (fstat(fd, &info) != 0)
        return strerror(errno);
    if (!S_ISREG(info.st_mode))
        return "not a plain file";
    if (info.st_uid != geteuid())
        return "it belongs to another user";
    if (info.st_size > CHAT_HISTORY_MAX_BYTES)
        return "too large";
    if ((info.st_mode & 077) && fchmod(fd, 0600) != 0)
        return strerror(errno);
    return NULL;
}

FILE *chat_history_open(const char *path, char *why, size_t capacity)
{
    const char *reason;
    FILE *file = NULL;
    int fd;

    make_folders(path);
    fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600); /* NONBLOCK: it may turn out to be a pipe */
    reason = fd < 0 ? strerror(errno) : refusal(fd);
    if (!reason && !(file = fdopen(fd, "r+")))
        reason = strerror(errno);
    if (file)
        return file;
    snprintf(why, capacity, "%s: %s", path, reason);
    if (fd >= 0)
        close(fd);
    return NULL;
}

/* In place. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from && *from != '\n'; from++) {
        if (*from == '\\' && (from[1] == 'n' || from[1] == '\\'))
            *to++ = *++from == 'n' ? '\n' : '\\';
        else
            *to++ = *from;
    }
    *to = 0;
}

size_t chat_history_read(FILE *file, void (*each)(void *user, const char *text), void *user)
{
    char *line = NULL;
    size_t capacity = 0, n = 0;

    rewind(file);
    while (getline(&line, &capacity, file) > 0) {
        unescape(line);
        each(user, line);
        n++;
    }
    free(line);
    return n;
}

void chat_history_add(FILE *file, const char *text)
{
    fseek(file, 0, SEEK_END); /* between reading and writing */
    for (; *text; text++) {
        if (*text == '\n' || *text == '\\')
            fputc('\\', file);
        fputc(*text == '\n' ? 'n' : *text, file);
    }
    fputc('\n', file);
}

void chat_history_shorten(FILE *file, size_t n_entries)
{
    char *rest = malloc(CHAT_HISTORY_MAX_BYTES);
    size_t n_bytes;

    if (!rest)
        return;
    rewind(file);
    for (int c; n_entries > CHAT_HISTORY_LINES / 2 && (c = getc(file)) != EOF;)
        n_entries -= c == '\n';
    n_bytes = fread(rest, 1, CHAT_HISTORY_MAX_BYTES, file);
    if (!ferror(file) && ftruncate(fileno(file), 0) == 0) {
        fseek(file, 0, SEEK_SET);
        if (fwrite(rest, 1, n_bytes, file) != n_bytes)
            clearerr(file); /* what a full disk loses is lost */
    }
    free(rest);
}
