#include "option_values.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What numbers may be, where it is not all that their type holds. */
static const struct {
    const char *option;
    double least, most;
} ranges[] = {
    {"temp", 0, 1e6},
    {"top-p", 1e-6, 1},
    {"min-p", 0, 1},
    {"repeat-penalty", 1e-3, 1e3},
    {"frequency-penalty", -1e3, 1e3},
    {"presence-penalty", -1e3, 1e3},
    {"port", 0, UINT16_MAX},
    {"max-connections", 1, 65536},
    {"threads", 0, 4096},
};

enum { N_RANGES = sizeof ranges / sizeof *ranges };

static bool check_range(const char *name, double value, char *why, size_t capacity)
{
    for (int i = 0; i < N_RANGES; i++)
        if (strcmp(ranges[i].option, name) == 0 && (value < ranges[i].least || value > ranges[i].most)) {
            snprintf(why, capacity, "must be from %g to %g", ranges[i].least, ranges[i].most);
            return false;
        }
    return true;
}

static bool read_real(const char *name, float *field, const char *text, char *why, size_t capacity)
{
    char *end;
    float value;

    errno = 0;
    value = strtof(text, &end);
    if (end == text || *end || !isfinite(value)) {
        snprintf(why, capacity, "not a number");
        return false;
    }
    if (!check_range(name, (double)value, why, capacity))
        return false;
    *field = value;
    return true;
}

static bool read_whole_number(enum cli_kind kind, const char *name, void *field, const char *text, char *why, size_t capacity)
{
    uint64_t limit = kind == CLI_U32 ? UINT32_MAX / 4 : UINT64_MAX, value;
    char *end;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value > limit) {
        snprintf(why, capacity, "not a whole number from 0 to %" PRIu64, limit);
        return false;
    }
    if (!check_range(name, (double)value, why, capacity))
        return false;
    if (kind == CLI_U32)
        *(uint32_t *)field = (uint32_t)value;
    else
        *(uint64_t *)field = value;
    return true;
}

/* A whole number of bytes, or of KiB, MiB or GiB. */
static bool read_size(uint64_t *field, const char *text, char *why, size_t capacity)
{
    static const char units[] = "KMG";
    uint64_t value, limit = UINT64_MAX;
    const char *unit;
    char *end;

    errno = 0;
    value = strtoull(text, &end, 10);
    unit = *end ? strchr(units, *end) : NULL;
    if (unit) {
        limit = UINT64_MAX >> 10 * (unit - units + 1);
        end++;
    }
    if (*text < '0' || *text > '9' || *end || errno || value > limit) {
        snprintf(why, capacity, "not a number of bytes, as 4096, 900M or 4G");
        return false;
    }
    *field = unit ? value << 10 * (unit - units + 1) : value;
    return true;
}

static bool add_to_list(struct cli_list *list, const char *text, char *why, size_t capacity)
{
    if (!*text) {
        snprintf(why, capacity, "it is empty");
        return false;
    }
    if (list->n == sizeof list->items / sizeof *list->items) {
        snprintf(why, capacity, "more than %u of them", list->n);
        return false;
    }
    list->items[list->n++] = text;
    return true;
}

bool cli_read_value(enum cli_kind kind, const char *name, void *field, const char *text, char *why, size_t capacity)
{
    switch (kind) {
    case CLI_FLAG:
        *(bool *)field = true;
        return true;
    case CLI_TEXT:
        *(const char **)field = text;
        return true;
    case CLI_LIST:
        return add_to_list(field, text, why, capacity);
    case CLI_REAL:
        return read_real(name, field, text, why, capacity);
    case CLI_SIZE:
        return read_size(field, text, why, capacity);
    case CLI_U32:
    case CLI_U64:
        break;
    }
    return read_whole_number(kind, name, field, text, why, capacity);
}

void cli_write_value(enum cli_kind kind, const void *field, char *text, size_t capacity)
{
    switch (kind) {
    case CLI_FLAG:
        snprintf(text, capacity, "%s", *(const bool *)field ? "on" : "off");
        break;
    case CLI_TEXT:
        snprintf(text, capacity, "%s", *(const char *const *)field ? *(const char *const *)field : "");
        break;
    case CLI_LIST:
        snprintf(text, capacity, "%" PRIu32 " of them", ((const struct cli_list *)field)->n);
        break;
    case CLI_U32:
        snprintf(text, capacity, "%" PRIu32, *(const uint32_t *)field);
        break;
    case CLI_U64:
    case CLI_SIZE:
        snprintf(text, capacity, "%" PRIu64, *(const uint64_t *)field);
        break;
    case CLI_REAL:
        snprintf(text, capacity, "%g", (double)*(const float *)field);
        break;
    }
}
