#define _GNU_SOURCE
#include "harness/harness.h"

#include <ftw.h>
#include <unistd.h>

const char *test_data(const char *name)
{
    static char paths[4][512];
    static unsigned turn;
    const char *folder = getenv("M40LLM_TEST_DATA");
    char *path = paths[turn++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", folder ? folder : "tests/data", name);
    return path;
}

char *test_read_file(const char *path, size_t *n_bytes)
{
    FILE *f = fopen(path, "rb");
    char *data;
    long size;

    if (!f)
        fail_msg("cannot open %s", path);
    fseek(f, 0, SEEK_END);
    size = ftell(f);
    rewind(f);
    data = malloc((size_t)size + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)size, f), size);
    data[size] = 0;
    fclose(f);
    if (n_bytes)
        *n_bytes = (size_t)size;
    return data;
}

static char tmp_dir[256];

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

static void remove_tmp_dir(void)
{
    nftw(tmp_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *test_tmp_dir(void)
{
    const char *parent = getenv("TMPDIR");

    if (tmp_dir[0])
        return tmp_dir;
    snprintf(tmp_dir, sizeof tmp_dir, "%s/m40llm-test-XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(tmp_dir))
        fail_msg("cannot make %s", tmp_dir);
    atexit(remove_tmp_dir);
    return tmp_dir;
}

uint64_t test_seed(void)
{
    const char *text = getenv("M40LLM_TEST_SEED");

    return text ? strtoull(text, NULL, 0) : 1;
}
