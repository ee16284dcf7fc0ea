#include "bench/sm52_parse.h"
#include "base/mem.h"
#include "base/status.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LINE 512

/* The opcode before its first dot, to its pipe. Rates: CUDA programming guide, arithmetic instructions of compute capability 5.2, and maxas' MaxAsGrammar. */
static const struct {
    const char *ops;
    enum sm52_pipe pipe;
} pipes[] = {
    {" FFMA FFMA32I FADD FADD32I FMUL FMUL32I FSWZADD IADD IADD32I IADD3 LOP LOP32I LOP3 MOV MOV32I SEL FSEL PRMT XMAD FCMP ICMP VADD ", SM52_ALU},
    {" SHL SHR SHF BFE BFI ISCADD ISCADD32I LEA IMNMX FMNMX ISET FSET ISETP FSETP PSETP PSET CSETP CSET FCHK RRO R2P P2R VMNMX VSHL VSHR ISAD ",
     SM52_HALF},
    {" I2F F2I F2F I2I MUFU POPC FLO ", SM52_QUARTER},
    {" LDS STS SHFL ATOMS ", SM52_SHARED},
    {" LDG STG LD ST LDL STL ATOM RED LDC LDU CCTL CCTLL TEX TEXS TLD TLDS TLD4 SULD SUST ", SM52_GLOBAL},
    {" DFMA DADD DMUL DMNMX DSETP DSET ", SM52_DOUBLE},
    {" BRA BRX JMP JCAL SYNC SSY PBK BRK PCNT CONT PRET RET EXIT CAL NOP BAR DEPBAR MEMBAR S2R CS2R VOTE KIL BPT TEXDEPBAR GETLMEMBASE ISBERD ",
     SM52_CONTROL},
};

struct label {
    char name[32];
    uint32_t index;
};

/* A branch whose label is not known yet. */
struct fixup {
    char label[32];
    uint32_t inst;
};

struct parser {
    struct sm52_listing *listing;
    struct sm52_kernel *kernel; /* the one whose code is read, or NULL */
    struct label *labels;
    struct fixup *fixups;
    size_t n_labels, n_fixups, label_capacity, fixup_capacity;
    uint32_t ssy[16]; /* fixups of the open SSY, for a SYNC that does not say where it goes */
    uint32_t n_ssy;
    size_t line;
};

/* ---- small text helpers ---- */

static const char *skip_space(const char *p)
{
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool is_name_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '.' || c == '$';
}

/* Copies the name at p; false where there is none or it is too long. */
static bool take_name(const char *p, char *name, size_t size)
{
    size_t n = 0;

    while (is_name_char(p[n]))
        n++;
    if (n == 0 || n >= size)
        return false;
    memcpy(name, p, n);
    name[n] = '\0';
    return true;
}

/* One more element of an array that doubles; NULL: no memory. */
static void *grow(void *array, size_t *capacity, size_t n, size_t size)
{
    void *bigger;

    if (n < *capacity)
        return array;
    bigger = m40_realloc_array(array, *capacity ? *capacity * 2 : 64, size);
    if (bigger)
        *capacity = *capacity ? *capacity * 2 : 64;
    return bigger;
}

static enum sm52_pipe pipe_of(const char *op)
{
    char word[24];
    size_t n = strcspn(op, ".");

    if (n > sizeof word - 3)
        return SM52_UNKNOWN;
    word[0] = ' ';
    memcpy(word + 1, op, n);
    strcpy(word + 1 + n, " ");
    for (size_t i = 0; i < sizeof pipes / sizeof pipes[0]; i++)
        if (strstr(pipes[i].ops, word))
            return pipes[i].pipe;
    return SM52_UNKNOWN;
}

/* ---- kernels ---- */

/* The kernel of that name, made where there is none; NULL: no memory. */
static struct sm52_kernel *find_kernel(struct sm52_listing *listing, const char *name)
{
    struct sm52_kernel *kernels;

    for (size_t i = 0; i < listing->n_kernels; i++)
        if (strcmp(listing->kernels[i].name, name) == 0)
            return &listing->kernels[i];
    kernels = m40_realloc_array(listing->kernels, listing->n_kernels + 1, sizeof *kernels);
    if (!kernels)
        return NULL;
    listing->kernels = kernels;
    kernels += listing->n_kernels++;
    memset(kernels, 0, sizeof *kernels);
    snprintf(kernels->name, sizeof kernels->name, "%s", name);
    return kernels;
}

/* `key=123` within [least, most]. */
static m40llm_status read_number(const struct parser *p, const char *line, const char *key, unsigned long least, unsigned long most, uint32_t *out,
                                 m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const char *at = strstr(line, key);
    unsigned long value = 0;

    M40_FAIL_IF(!at || !isdigit((unsigned char)at[strlen(key)]), M40LLM_BAD_FILE, "line %zu: no %s", p->line, key);
    value = strtoul(at + strlen(key), NULL, 10);
    M40_FAIL_IF(value < least || value > most, M40LLM_BAD_FILE, "line %zu: %s%lu is not in %lu..%lu", p->line, key, value, least, most);
    *out = (uint32_t)value;
fail:
    return status;
}

static m40llm_status read_resources(struct parser *p, const char *line, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const char *at = strstr(line, " kernel=");
    struct sm52_kernel *kernel, *open = p->kernel;
    size_t open_index = open ? (size_t)(open - p->listing->kernels) : 0;
    char name[sizeof kernel->name];

    M40_FAIL_IF(!at || !take_name(at + strlen(" kernel="), name, sizeof name), M40LLM_BAD_FILE, "line %zu: no kernel=NAME", p->line);
    kernel = find_kernel(p->listing, name);
    M40_FAIL_IF(!kernel, M40LLM_NO_MEMORY, "kernel %s", name);
    if (open) /* the array may have moved */
        p->kernel = p->listing->kernels + open_index;
    M40_FAIL_IF(kernel->has_resources, M40LLM_BAD_FILE, "line %zu: kernel %s comes twice", p->line, name);
    M40_TRY(read_number(p, line, " registers=", 1, 255, &kernel->n_registers, err));
    M40_TRY(read_number(p, line, " shared=", 0, 48 * 1024, &kernel->n_shared_bytes, err));
    M40_TRY(read_number(p, line, " threads=", 1, 1024, &kernel->n_threads, err));
    kernel->has_resources = true;
fail:
    return status;
}

/* Resolves the branches of the kernel whose code ends here. */
static m40llm_status close_kernel(struct parser *p, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    if (!p->kernel)
        return M40LLM_OK;
    M40_FAIL_IF(p->kernel->n_insts == 0, M40LLM_BAD_FILE, "kernel %s has no instructions", p->kernel->name);
    for (size_t i = 0; i < p->n_fixups; i++) {
        struct sm52_inst *inst = &p->kernel->insts[p->fixups[i].inst];

        for (size_t j = 0; j < p->n_labels && inst->target == SM52_NO_TARGET; j++)
            if (strcmp(p->labels[j].name, p->fixups[i].label) == 0)
                inst->target = p->labels[j].index;
        if (has_prefix(p->fixups[i].label, "0x")) {
            unsigned long address = strtoul(p->fixups[i].label, NULL, 16);

            for (uint32_t j = p->kernel->n_insts; j > 0 && p->kernel->insts[j - 1].address >= address; j--)
                inst->target = j - 1;
        }
        M40_FAIL_IF(inst->target >= p->kernel->n_insts, M40LLM_BAD_FILE, "kernel %s: a branch at %04x to `%s', which is nowhere", p->kernel->name,
                    (unsigned)inst->address, p->fixups[i].label);
    }
    p->kernel->has_code = true;
    p->kernel = NULL;
fail:
    return status;
}

static m40llm_status open_kernel(struct parser *p, const char *name_at, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    char name[sizeof p->kernel->name];

    M40_TRY(close_kernel(p, err));
    M40_FAIL_IF(!take_name(name_at, name, sizeof name), M40LLM_BAD_FILE, "line %zu: a kernel without a name, or with one that is too long", p->line);
    p->kernel = find_kernel(p->listing, name);
    M40_FAIL_IF(!p->kernel, M40LLM_NO_MEMORY, "kernel %s", name);
    M40_FAIL_IF(p->kernel->n_insts, M40LLM_BAD_FILE, "line %zu: the code of %s comes twice", p->line, name);
    p->n_labels = p->n_fixups = 0;
    p->n_ssy = 0;
fail:
    return status;
}

/* ---- instructions ---- */

static unsigned access_bytes(const char *op)
{
    static const struct {
        const char *suffix;
        unsigned n_bytes;
    } widths[] = {{".128", 16}, {".64", 8}, {".U16", 2}, {".S16", 2}, {".16", 2}, {".U8", 1}, {".S8", 1}};

    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
        if (strstr(op, widths[i].suffix))
            return widths[i].n_bytes;
    return 4;
}

/* Marks register r and the n_bytes that begin there. */
static void mark(uint64_t *regs, unsigned r, unsigned n_bytes)
{
    for (unsigned i = 0; i * 4 < n_bytes && r + i < 255; i++)
        regs[(r + i) / 64] |= (uint64_t)1 << (r + i) % 64;
}

static void read_registers(struct sm52_inst *inst, const char *operands)
{
    bool is_first = true;

    for (const char *p = operands; *p && *p != ';'; p++) {
        char *end;
        unsigned long r;

        if (*p != 'R' || !isdigit((unsigned char)p[1]) || (p > operands && is_name_char(p[-1])))
            continue;
        r = strtoul(p + 1, &end, 10);
        if (r < 255) {
            mark(inst->regs, (unsigned)r, 4);
            if (is_first && inst->load_bytes) {
                mark(inst->dest, (unsigned)r, inst->load_bytes);
                mark(inst->regs, (unsigned)r, inst->load_bytes);
            }
        }
        is_first = false;
        p = end - 1;
    }
}

static void describe(struct sm52_inst *inst, const char *op)
{
    static const char *const loads[] = {"LDG", "LDS", "LDL", "LDC", "LD.", "LDU"};
    static const char *const stores[] = {"STG", "STS", "STL", "ST."};

    inst->pipe = (uint8_t)pipe_of(op);
    inst->is_ffma = has_prefix(op, "FFMA");
    inst->is_global_load = has_prefix(op, "LDG") || has_prefix(op, "LD.");
    inst->target = SM52_NO_TARGET;
    for (size_t i = 0; i < sizeof loads / sizeof loads[0]; i++)
        if (has_prefix(op, loads[i]))
            inst->load_bytes = (uint16_t)access_bytes(op);
    for (size_t i = 0; i < sizeof stores / sizeof stores[0]; i++)
        if (has_prefix(op, stores[i]))
            inst->store_bytes = (uint16_t)access_bytes(op);
    if (strcmp(op, "BRA") == 0 || has_prefix(op, "BRA.") || strcmp(op, "JMP") == 0)
        inst->flow = SM52_BRANCH;
    else if (strcmp(op, "SYNC") == 0 || strcmp(op, "BRK") == 0 || strcmp(op, "CONT") == 0)
        inst->flow = SM52_SYNC;
    else if (strcmp(op, "EXIT") == 0 || strcmp(op, "RET") == 0)
        inst->flow = SM52_END;
}

static m40llm_status add_fixup(struct parser *p, const char *label, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct fixup *fixups = grow(p->fixups, &p->fixup_capacity, p->n_fixups, sizeof *fixups);

    M40_FAIL_IF(!fixups, M40LLM_NO_MEMORY, "branches");
    p->fixups = fixups;
    snprintf(fixups[p->n_fixups].label, sizeof fixups->label, "%s", label);
    fixups[p->n_fixups++].inst = p->kernel->n_insts - 1;
fail:
    return status;
}

/* The label or address that the operands end in: `(.L_x_1), 0x1c8, or (*"BRANCH_TARGETS .L_x_1"*). */
static bool find_target(const char *operands, char *label, size_t size)
{
    const char *at = strstr(operands, ".L_");

    if (!at)
        at = strstr(operands, "0x");
    return at && take_name(at, label, size);
}

/* Where a branch goes. A SYNC of cuobjdump does not say: it goes to the nearest SSY's target that lies ahead. */
static m40llm_status read_target(struct parser *p, const char *op, const char *operands, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct sm52_inst *inst = &p->kernel->insts[p->kernel->n_insts - 1];
    char label[32];
    bool is_known = find_target(operands, label, sizeof label);

    if (strcmp(op, "SSY") == 0 && is_known) {
        if (p->n_ssy == sizeof p->ssy / sizeof p->ssy[0])
            memmove(p->ssy, p->ssy + 1, --p->n_ssy * sizeof p->ssy[0]);
        if (has_prefix(label, "0x"))
            p->ssy[p->n_ssy++] = (uint32_t)strtoul(label, NULL, 16);
    }
    if (inst->flow == SM52_SYNC && !is_known) {
        while (p->n_ssy && p->ssy[p->n_ssy - 1] <= inst->address)
            p->n_ssy--;
        M40_FAIL_IF(!p->n_ssy, M40LLM_BAD_FILE, "line %zu: a %s that says nowhere to go", p->line, op);
        snprintf(label, sizeof label, "0x%x", (unsigned)p->ssy[p->n_ssy - 1]);
        is_known = true;
    }
    if (inst->flow == SM52_BRANCH || inst->flow == SM52_SYNC) {
        M40_FAIL_IF(!is_known, M40LLM_BAD_FILE, "line %zu: %s without a target", p->line, op);
        M40_TRY(add_fixup(p, label, err));
    }
fail:
    return status;
}

static m40llm_status add_inst(struct parser *p, uint32_t address, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct sm52_kernel *k = p->kernel;
    size_t capacity = k->capacity;
    struct sm52_inst *insts = grow(k->insts, &capacity, k->n_insts, sizeof *insts);

    M40_FAIL_IF(!insts, M40LLM_NO_MEMORY, "instructions of %s", k->name);
    k->insts = insts;
    k->capacity = (uint32_t)capacity;
    M40_FAIL_IF(k->n_insts && insts[k->n_insts - 1].address >= address, M40LLM_BAD_FILE, "line %zu: address %04x does not rise", p->line,
                (unsigned)address);
    memset(&insts[k->n_insts], 0, sizeof *insts);
    insts[k->n_insts++].address = address;
fail:
    return status;
}

/* A line after its address: `{ @!P0 OP.MOD operands ; }`, the braces and the predicate where there are any. */
static m40llm_status read_inst(struct parser *p, uint32_t address, const char *text, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct sm52_inst *inst;
    const char *at = skip_space(text);
    char op[40];

    M40_FAIL_IF(!p->kernel, M40LLM_BAD_FILE, "line %zu: an instruction outside any kernel", p->line);
    M40_TRY(add_inst(p, address, err));
    inst = &p->kernel->insts[p->kernel->n_insts - 1];
    if (*at == '{')
        at = skip_space(at + 1);
    if (*at == '@') {
        inst->is_predicated = true;
        at = skip_space(at + strcspn(at, " \t"));
    }
    M40_FAIL_IF(!isupper((unsigned char)*at) || !take_name(at, op, sizeof op), M40LLM_BAD_FILE, "line %zu: no opcode", p->line);
    at += strlen(op);
    describe(inst, op);
    if (inst->pipe == SM52_UNKNOWN && p->kernel->n_unknown++ == 0)
        snprintf(p->kernel->unknown, sizeof p->kernel->unknown, "%.15s", op);
    read_registers(inst, at);
    M40_TRY(read_target(p, op, at, err));
fail:
    return status;
}

static m40llm_status read_label(struct parser *p, const char *line, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct label *labels;

    if (!p->kernel)
        return M40LLM_OK;
    labels = grow(p->labels, &p->label_capacity, p->n_labels, sizeof *labels);
    M40_FAIL_IF(!labels, M40LLM_NO_MEMORY, "labels");
    p->labels = labels;
    M40_FAIL_IF(!take_name(line, labels[p->n_labels].name, sizeof labels->name), M40LLM_BAD_FILE, "line %zu: a label that is too long", p->line);
    labels[p->n_labels++].index = p->kernel->n_insts;
fail:
    return status;
}

/* ---- lines ---- */

/* `/ *0123* / ...` to its address; false for other comments. */
static bool is_inst_line(const char *line, uint32_t *address, const char **rest)
{
    char *end;

    if (!has_prefix(line, "/*") || !isxdigit((unsigned char)line[2]) || line[3] == 'x')
        return false;
    *address = (uint32_t)strtoul(line + 2, &end, 16);
    *rest = end + 2;
    return has_prefix(end, "*/");
}

static m40llm_status read_line(struct parser *p, const char *line, m40llm_error *err)
{
    const char *rest, *at = skip_space(line);
    uint32_t address;

    if (has_prefix(at, "//sm52 "))
        return read_resources(p, at, err);
    if (has_prefix(at, ".section ") || has_prefix(at, ".section\t"))
        return (rest = strstr(at, ".text.")) ? open_kernel(p, rest + strlen(".text."), err) : close_kernel(p, err);
    if (has_prefix(at, "Function :"))
        return open_kernel(p, skip_space(at + strlen("Function :")), err);
    if (has_prefix(at, ".L_"))
        return read_label(p, at, err);
    if (is_inst_line(at, &address, &rest))
        return read_inst(p, address, rest, err);
    return M40LLM_OK;
}

static m40llm_status read_lines(struct parser *p, const char *text, size_t n_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    char line[MAX_LINE];

    M40_FAIL_IF(memchr(text, '\0', n_bytes), M40LLM_BAD_FILE, "not text");
    for (size_t pos = 0; pos < n_bytes;) {
        const char *newline = memchr(text + pos, '\n', n_bytes - pos);
        size_t n = newline ? (size_t)(newline - text) - pos : n_bytes - pos;

        p->line++;
        M40_FAIL_IF(n >= sizeof line, M40LLM_BAD_FILE, "line %zu is longer than %zu bytes", p->line, sizeof line - 1);
        memcpy(line, text + pos, n);
        line[n] = '\0';
        M40_TRY(read_line(p, line, err));
        pos += n + 1;
    }
    M40_TRY(close_kernel(p, err));
fail:
    return status;
}

m40llm_status sm52_parse(struct sm52_listing *listing, const char *text, size_t n_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct parser p = {.listing = listing};
    size_t n_before = listing->n_kernels;

    M40_TRY(read_lines(&p, text, n_bytes, err));
    M40_FAIL_IF(listing->n_kernels == n_before, M40LLM_BAD_FILE, "no kernels");
    for (size_t i = 0; i < listing->n_kernels; i++) {
        const struct sm52_kernel *k = &listing->kernels[i];

        M40_FAIL_IF(!k->has_code, M40LLM_BAD_FILE, "kernel %s has no code", k->name);
        M40_FAIL_IF(!k->has_resources, M40LLM_BAD_FILE, "kernel %s has no //sm52 line with its registers", k->name);
    }
fail:
    m40_free(p.labels);
    m40_free(p.fixups);
    return status;
}

void sm52_listing_free(struct sm52_listing *listing)
{
    for (size_t i = 0; i < listing->n_kernels; i++)
        m40_free(listing->kernels[i].insts);
    m40_free(listing->kernels);
    memset(listing, 0, sizeof *listing);
}

/* ---- counting ---- */

void sm52_counts_add(struct sm52_counts *sum, const struct sm52_counts *more, uint32_t times)
{
    sum->slots += more->slots * times;
    for (int i = 0; i < SM52_N_PIPES; i++)
        sum->pipe[i] += more->pipe[i] * times;
    sum->n_ffma += more->n_ffma * times;
    sum->n_global_loads += more->n_global_loads * times;
    sum->n_shared_loads += more->n_shared_loads * times;
    sum->global_load_bytes += more->global_load_bytes * times;
    sum->shared_words += more->shared_words * times;
}

struct sm52_counts sm52_count(const struct sm52_kernel *kernel, uint32_t first, uint32_t end)
{
    struct sm52_counts counts = {0};

    for (uint32_t i = first; i < end; i++) {
        const struct sm52_inst *inst = &kernel->insts[i];

        counts.slots++;
        counts.pipe[inst->pipe]++;
        counts.n_ffma += inst->is_ffma;
        if (inst->is_global_load) {
            counts.n_global_loads++;
            counts.global_load_bytes += inst->load_bytes;
        }
        if (inst->pipe == SM52_SHARED) {
            counts.n_shared_loads += inst->load_bytes != 0;
            counts.shared_words += (uint32_t)(inst->load_bytes + inst->store_bytes + 3) / 4;
        }
    }
    return counts;
}
