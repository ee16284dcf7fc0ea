/* Reads sm_52 machine code as nvdisasm -c or cuobjdump -sass print it, and counts what a warp issues.
 *
 * A listing is the text of one or more cubins. For each kernel it also has a line, anywhere,
 *     //sm52 kernel=NAME registers=N shared=BYTES threads=N
 * with what ptxas -v and the PTX say (tools/sm52_listing.sh writes it): registers a thread, static shared memory a block, threads a block.
 *
 * A slot is one issued warp instruction; predicated ones count, whatever their predicate; dual issue is not assumed. */
#ifndef M40_BENCH_SM52_PARSE_H
#define M40_BENCH_SM52_PARSE_H

#include "m40llm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where an instruction executes on GM20x; lanes per clock and SM. */
enum sm52_pipe {
    SM52_ALU,     /* 128: FFMA FADD FMUL IADD LOP3 MOV SEL PRMT XMAD ... */
    SM52_HALF,    /* 64: shifts, bit fields, LEA, minimum, comparisons */
    SM52_QUARTER, /* 32: I2F F2I F2F I2I MUFU POPC FLO */
    SM52_SHARED,  /* 32 words: LDS STS SHFL ATOMS */
    SM52_GLOBAL,  /* LDG STG LDL STL ATOM RED LDC TEX */
    SM52_DOUBLE,  /* 4: FP64 */
    SM52_CONTROL, /* branches, barriers, NOP, S2R: issue slots only */
    SM52_UNKNOWN, /* not in the table; as ALU */
    SM52_N_PIPES,
};

enum sm52_flow {
    SM52_NEXT,   /* the next instruction only */
    SM52_BRANCH, /* target, and the next one where it is predicated */
    SM52_SYNC,   /* the same, at the end of divergent code: where predicated, some lanes go on */
    SM52_END,    /* EXIT, RET */
};

#define SM52_NO_TARGET UINT32_MAX

struct sm52_inst {
    uint32_t address;
    uint32_t target;                  /* index, of a branch or SYNC; SM52_NO_TARGET */
    uint64_t regs[4];                 /* registers that it names, read or written, bit r % 64 of word r / 64 */
    uint64_t dest[4];                 /* registers that a load from memory writes */
    uint16_t load_bytes, store_bytes; /* a thread, from or to the memory of its pipe */
    uint8_t pipe, flow;
    bool is_predicated, is_ffma, is_global_load;
};

struct sm52_kernel {
    char name[96];
    uint32_t n_registers, n_shared_bytes, n_threads; /* a thread, a block, a block */
    bool has_resources, has_code;
    struct sm52_inst *insts;
    uint32_t n_insts, capacity;
    uint32_t n_unknown; /* instructions of SM52_UNKNOWN */
    char unknown[16];   /* the first of them */
};

struct sm52_listing {
    struct sm52_kernel *kernels;
    size_t n_kernels;
};

/* Appends the kernels of one listing's text to *listing (zeroed, or filled by earlier calls). BAD_FILE: the text is no such listing (err names the line or the kernel);
 * NO_MEMORY. On failure *listing is still to be freed. */
m40llm_status sm52_parse(struct sm52_listing *listing, const char *text, size_t n_bytes, m40llm_error *err);
void sm52_listing_free(struct sm52_listing *listing);

/* What a warp issues on some way through the code. */
struct sm52_counts {
    uint32_t slots;
    uint32_t pipe[SM52_N_PIPES];
    uint32_t n_ffma;
    uint32_t n_global_loads, n_shared_loads;
    uint32_t global_load_bytes; /* a thread */
    uint32_t shared_words;      /* 32-bit words a thread loads from and stores to shared memory */
};

void sm52_counts_add(struct sm52_counts *sum, const struct sm52_counts *more, uint32_t times);
/* Instructions first .. end - 1. */
struct sm52_counts sm52_count(const struct sm52_kernel *kernel, uint32_t first, uint32_t end);

#endif
