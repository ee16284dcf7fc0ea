/* GGUF files on disk: mapped read-only, the parts of a split one joined. A file that is shortened by somebody while it is mapped ends the process with SIGBUS, as with any mapping. */
#define _DEFAULT_SOURCE /* madvise */
#include "base/mem.h"
#include "gguf/gguf.h"
#include "gguf/gguf_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void free_tables(struct m40_gguf *g)
{
    m40_free(g->kvs);
    m40_free(g->tensors);
    m40_free(g->kv_index);
    m40_free(g->tensor_index);
}

void m40_gguf_close(struct m40_gguf **gguf)
{
    struct m40_gguf *g = gguf ? *gguf : NULL;

    if (!g)
        return;
    for (uint32_t i = 0; g->maps && i < g->n_parts; i++)
        munmap(g->maps[i].data, g->maps[i].n_bytes);
    m40_free(g->maps);
    while (g->strings) {
        struct m40_gguf_strings *next = g->strings->next;

        m40_free(g->strings);
        g->strings = next;
    }
    free_tables(g);
    m40_free(g);
    *gguf = NULL;
}

/* O_NONBLOCK: opening a pipe must not wait for its writer. */
static m40llm_status map_file(struct m40_gguf_map *out, const char *path, const char *shown, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info;

    M40_FAIL_IF(fd < 0, M40LLM_IO, "%s: cannot be opened: %s", shown, strerror(errno));
    M40_FAIL_IF(fstat(fd, &info) != 0, M40LLM_IO, "%s: %s", shown, strerror(errno));
    M40_FAIL_IF(!S_ISREG(info.st_mode), M40LLM_IO, "%s: not a regular file", shown);
    M40_FAIL_IF(info.st_size == 0, M40LLM_BAD_FILE, "%s: the file is empty", shown);
    out->n_bytes = (uint64_t)info.st_size;
    out->data = mmap(NULL, out->n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    M40_FAIL_IF(out->data == MAP_FAILED, M40LLM_IO, "%s: cannot be mapped: %s", shown, strerror(errno));
fail:
    if (fd >= 0)
        close(fd);
    return status;
}

/* One file by itself. */
static m40llm_status open_part(struct m40_gguf **out, const char *path, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    char shown[M40_GGUF_SHOWN_BYTES];
    struct m40_gguf_map map = {0};
    struct m40_gguf *g = NULL;
    struct m40_gguf_map *maps;

    *out = NULL;
    M40_TRY(map_file(&map, path, m40_gguf_shown_path(shown, path), err));
    M40_TRY(m40_gguf_parse(&g, map.data, map.n_bytes, path, err));
    maps = m40_calloc(1, sizeof *maps);
    M40_FAIL_IF(!maps, M40LLM_NO_MEMORY, "%s: out of memory", shown);
    maps[0] = map;
    g->maps = maps;
    *out = g;
    return M40LLM_OK;
fail:
    m40_gguf_close(&g);
    if (map.data && map.data != MAP_FAILED)
        munmap(map.data, map.n_bytes);
    return status;
}

void m40_gguf_read_ahead(const struct m40_gguf *g, const struct m40_gguf_tensor *t)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)t->data / page * page;

    for (uint32_t i = 0; g->maps && i < g->n_parts; i++) {
        const uintptr_t map = (uintptr_t)g->maps[i].data;

        if (begin >= map && begin < map + g->maps[i].n_bytes)
            madvise((uint8_t *)g->maps[i].data + (begin - map), (uintptr_t)t->data + t->size_bytes - begin, MADV_WILLNEED); /* a hint: it may fail */
    }
}

/* ---- split files ---- */

#define SPLIT_SUFFIX        "-00001-of-00001.gguf"
#define SPLIT_SUFFIX_FORMAT "-%05" PRIu64 "-of-%05" PRIu64 ".gguf"

/* Whether the text begins with five digits, and their number. */
static bool five_digits(const char *text, uint64_t *out)
{
    *out = 0;
    for (int i = 0; i < 5; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        *out = *out * 10 + (uint64_t)(text[i] - '0');
    }
    return true;
}

/* Which part, counted from 1, of how many a path's end says; false where it has no such end. */
static bool split_of_path(const char *path, uint64_t *no, uint64_t *count)
{
    size_t n = strlen(path);
    const char *suffix;

    *no = *count = 0;
    if (n < strlen(SPLIT_SUFFIX))
        return false;
    suffix = path + n - strlen(SPLIT_SUFFIX);
    return suffix[0] == '-' && five_digits(suffix + 1, no) && memcmp(suffix + 6, "-of-", 4) == 0 && five_digits(suffix + 10, count) &&
           strcmp(suffix + 15, ".gguf") == 0;
}

/* The path of part `no`, counted from 1. */
static m40llm_status part_path(char **out, const char *path, uint64_t no, uint64_t count, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    size_t n = strlen(path);

    *out = m40_strndup(path, n);
    M40_FAIL_IF(!*out, M40LLM_NO_MEMORY, "out of memory (path of part %" PRIu64 ")", no);
    snprintf(*out + n - strlen(SPLIT_SUFFIX), sizeof SPLIT_SUFFIX, SPLIT_SUFFIX_FORMAT, no % 100000, count % 100000);
fail:
    return status;
}

/* A number of the split metadata, or `otherwise` where there is none. */
static m40llm_status split_number(const struct m40_gguf *g, const char *key, uint64_t otherwise, uint64_t *out, const char *shown, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(g, key);

    *out = otherwise;
    M40_FAIL_IF(kv && !m40_gguf_kv_u64(kv, out), M40LLM_BAD_FILE, "%s: %s is not an unsigned number", shown, key);
fail:
    return status;
}

/* What the first file says of itself must agree with its name. */
static m40llm_status check_first_part(const struct m40_gguf *g, const char *path, const char *shown, uint64_t *count, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint64_t no, path_no, path_count;
    bool has_split_name = split_of_path(path, &path_no, &path_count);

    M40_TRY(split_number(g, "split.count", 1, count, shown, err));
    M40_TRY(split_number(g, "split.no", 0, &no, shown, err));
    if (*count == 0)
        *count = 1;
    M40_FAIL_IF(has_split_name && path_count > 1 && path_count != *count, M40LLM_BAD_FILE,
                "%s: the name says that there are %" PRIu64 " parts, split.count that there are %" PRIu64, shown, path_count, *count);
    if (*count == 1)
        return M40LLM_OK;
    M40_FAIL_IF(*count > 99999 || no >= *count, M40LLM_BAD_FILE, "%s: split.no %" PRIu64 " of split.count %" PRIu64 " cannot be", shown, no, *count);
    M40_FAIL_IF(no != 0, M40LLM_BAD_FILE, "%s: this is part %" PRIu64 " of %" PRIu64 ": open the first, whose name ends in " SPLIT_SUFFIX_FORMAT,
                shown, no + 1, *count, (uint64_t)1, *count);
    M40_FAIL_IF(!has_split_name || path_no != 1 || path_count != *count, M40LLM_BAD_FILE,
                "%s: this is part 1 of %" PRIu64 ", but its name does not end in " SPLIT_SUFFIX_FORMAT, shown, *count, (uint64_t)1, *count);
fail:
    return status;
}

/* Moves a part's tensors, names and mapping to the end of g's; what is left of the part is freed by the caller. */
static m40llm_status append_part(struct m40_gguf *g, struct m40_gguf *part, const char *shown, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_gguf_tensor *tensors = m40_realloc_array(g->tensors, g->n_tensors + part->n_tensors, sizeof *tensors);
    struct m40_gguf_map *maps;

    M40_FAIL_IF(!tensors, M40LLM_NO_MEMORY, "%s: out of memory (%zu tensors)", shown, part->n_tensors);
    g->tensors = tensors;
    maps = m40_realloc_array(g->maps, (size_t)g->n_parts + 1, sizeof *maps);
    M40_FAIL_IF(!maps, M40LLM_NO_MEMORY, "%s: out of memory", shown);
    g->maps = maps;
    if (part->n_tensors)
        memcpy(&g->tensors[g->n_tensors], part->tensors, part->n_tensors * sizeof *tensors);
    g->n_tensors += part->n_tensors;
    g->maps[g->n_parts++] = part->maps[0];
    m40_free(part->maps);
    part->maps = NULL;
    part->strings->next = g->strings;
    g->strings = part->strings;
    part->strings = NULL;
    g->size_bytes += part->size_bytes;
fail:
    return status;
}

/* i counts from 0. */
static m40llm_status add_part(struct m40_gguf *g, const char *path, uint64_t i, uint64_t count, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    char shown[M40_GGUF_SHOWN_BYTES];
    struct m40_gguf *part = NULL;
    uint64_t part_no, part_count;

    M40_TRY(open_part(&part, path, err));
    m40_gguf_shown_path(shown, path);
    M40_TRY(split_number(part, "split.no", UINT64_MAX, &part_no, shown, err));
    M40_TRY(split_number(part, "split.count", UINT64_MAX, &part_count, shown, err));
    M40_FAIL_IF(part_no != i || part_count != count, M40LLM_BAD_FILE,
                "%s: its split.no and split.count do not say that it is part %" PRIu64 " of %" PRIu64, shown, i + 1, count);
    M40_TRY(append_part(g, part, shown, err));
fail:
    m40_gguf_close(&part);
    return status;
}

static m40llm_status add_parts(struct m40_gguf *g, const char *path, const char *shown, uint64_t count, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    char *path_of_part = NULL;
    uint64_t n_tensors;

    for (uint64_t i = 1; i < count; i++) {
        m40_free(path_of_part);
        M40_TRY(part_path(&path_of_part, path, i + 1, count, err));
        M40_TRY(add_part(g, path_of_part, i, count, err));
    }
    M40_TRY(split_number(g, "split.tensors.count", g->n_tensors, &n_tensors, shown, err));
    M40_FAIL_IF(n_tensors != g->n_tensors, M40LLM_BAD_FILE, "%s: the parts have %zu tensors, split.tensors.count says %" PRIu64, shown, g->n_tensors,
                n_tensors);
    m40_free(g->tensor_index);
    g->tensor_index = NULL;
    M40_TRY(m40_gguf_index_tensors(g, shown, err));
fail:
    m40_free(path_of_part);
    return status;
}

m40llm_status m40_gguf_open(struct m40_gguf **out, const char *path, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    char shown[M40_GGUF_SHOWN_BYTES];
    struct m40_gguf *g = NULL;
    uint64_t count;

    *out = NULL;
    M40_TRY(open_part(&g, path, err));
    m40_gguf_shown_path(shown, path);
    M40_TRY(check_first_part(g, path, shown, &count, err));
    if (count > 1)
        M40_TRY(add_parts(g, path, shown, count, err));
    *out = g;
    return M40LLM_OK;
fail:
    m40_gguf_close(&g);
    return status;
}
