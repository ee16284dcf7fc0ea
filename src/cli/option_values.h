/* The values of options, as text: what a flag's argument may be, whether it comes from the command line or from a chat's /set. */
#ifndef M40_CLI_OPTION_VALUES_H
#define M40_CLI_OPTION_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The values of a flag that may be given several times. */
struct cli_list {
    const char *items[32];
    uint32_t n;
};

/* And the types of their fields: bool, const char *, struct cli_list, uint32_t, uint64_t, float, uint64_t (bytes). */
enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_LIST, CLI_U32, CLI_U64, CLI_REAL, CLI_SIZE };

/* Reads the value of the option of this name into *field; a CLI_TEXT points to text, a CLI_LIST is added to, and a CLI_FLAG is set, whatever the text. false: the field is as it was, and why says what the value must be. */
bool cli_read_value(enum cli_kind kind, const char *name, void *field, const char *text, char *why, size_t capacity);

/* The value in *field as cli_read_value would read it; no text (NULL) is "", of a list its length. */
void cli_write_value(enum cli_kind kind, const void *field, char *text, size_t capacity);

#endif
