#define _GNU_SOURCE
#include "cli/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

const char *program_path(void)
{
    const char *path = getenv("M40LLM_BIN");

    return path ? path : "build/m40llm";
}

static const char *stream_path(const char *name)
{
    static char paths[3][512];
    static unsigned turn;
    char *path = paths[turn++ % 3];

    snprintf(path, sizeof paths[0], "%s/%s", test_tmp_dir(), name);
    return path;
}

const char *running_output_path(void)
{
    return stream_path("stdout");
}

static void redirect(const char *path, int flags, int to)
{
    int fd = open(path, flags, 0600);

    if (fd < 0 || dup2(fd, to) < 0)
        _exit(126);
    close(fd);
}

static void become_program(const struct launch *launch, const char *const *args)
{
    const char *argv[1200] = {program_path()};
    struct rlimit limit = {launch->max_file_bytes, launch->max_file_bytes};

    for (int i = 0; args[i] && i < 1198; i++)
        argv[i + 1] = args[i];
    redirect(stream_path("stdin"), O_RDONLY, 0);
    redirect(launch->out_path ? launch->out_path : stream_path("stdout"), O_WRONLY | O_CREAT | O_TRUNC, 1);
    redirect(launch->err_path ? launch->err_path : stream_path("stderr"), O_WRONLY | O_CREAT | O_TRUNC, 2);
    if (launch->max_file_bytes) {
        signal(SIGXFSZ, SIG_IGN); /* the write fails instead */
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    execv(argv[0], (char *const *)argv);
    _exit(127);
}

pid_t start_program(const struct launch *launch, const char *const *args)
{
    FILE *input = fopen(stream_path("stdin"), "wb");
    pid_t pid;

    assert_non_null(input);
    fputs(launch->input ? launch->input : "", input);
    fclose(input);
    fclose(fopen(stream_path("stdout"), "wb"));
    fclose(fopen(stream_path("stderr"), "wb"));
    fflush(NULL);
    pid = fork();
    if (pid == 0)
        become_program(launch, args);
    assert_true(pid > 0);
    return pid;
}

struct output finish_program(pid_t pid)
{
    struct output o = {0};
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    o.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    o.out = test_read_file(stream_path("stdout"), &o.n_out);
    o.err = test_read_file(stream_path("stderr"), NULL);
    if (o.status == 127 || o.status == 126)
        fail_msg("cannot run %s", program_path());
    return o;
}

struct output run_program(const struct launch *launch, const char *const *args)
{
    return finish_program(start_program(launch, args));
}

void output_free(struct output *o)
{
    free(o->out);
    free(o->err);
    *o = (struct output){0};
}
