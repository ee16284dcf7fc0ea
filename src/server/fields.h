/* Fields of a request's JSON object. The first thing that is wrong sticks in f->failure, and what is absent or null leaves *out as it is. */
#ifndef M40_SERVER_FIELDS_H
#define M40_SERVER_FIELDS_H

#include "server_internal.h"

struct fields {
    json_t *object;
    struct failure *failure;
};

/* The body as an object, to be freed with json_decref; NULL: *f says why, and names the field where it went wrong if there is one. */
json_t *fields_parse(const struct m40_buf *body, struct failure *f);

#define ANY_VALUE  "*"
#define ANY_TEXT   "*s"
#define ANY_OBJECT "*o"
/* What an endpoint's field may be. */
struct known_field {
    const char *name;
    unsigned endpoints;  /* bits */
    const char *neutral; /* NULL: it is read. Else it is not supported, but may be there with this value, in JSON; ANY_...: without effect */
};
/* Refuses fields that are not in the table for the endpoint, and those that are not supported. */
void fields_check_known(const struct fields *o, const struct known_field *table, size_t n_table, unsigned endpoint);

void fields_bool(const struct fields *o, const char *name, bool *out);
void fields_whole(const struct fields *o, const char *name, int64_t least, int64_t most, int64_t *out);
void fields_real(const struct fields *o, const char *name, double least, double most, float *out);
/* Into the object, NUL-terminated. */
void fields_text(const struct fields *o, const char *name, const char **out);

/* An array of token ids, each below n_vocab, into *ids (to be freed). param names it. */
bool fields_ids(const json_t *array, const char *param, size_t n_vocab, int32_t **ids, size_t *n_ids, struct failure *f);

#endif
