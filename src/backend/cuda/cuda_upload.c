/* Weights stream from where the file is mapped to the card: cores copy a piece of the rows to pinned memory, the card fetches it as it is and packs it to tiles. There are two slots of pinned
 * memory: while the card fetches one and packs it, the cores fill the other. So the host needs two slots of memory however large the model is, and no core looks at a weight.
 *
 * All of it goes through the backend's one stream. Another stream for every slot would let packing overlap fetching, but a context that has ever had a second stream launches the nodes of a graph more
 * slowly from then on, even when the stream is gone: on an H200 decoding lost 4 % (8B Q4_K) to 10 % (tiny). */
#include "backend/cuda/cuda_upload.h"

#include "backend/cuda/cuda_launch_matmul.h"
#include "backend/cuda/kernels/matmul_args.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum { SLOT_TILE_BYTES = M40_CUDA_UPLOAD_BYTES / M40_TILE_ROWS /* of a slot, a row's part */ };
enum { MAX_COPY_THREADS = 16, COPY_BYTES = 256 << 10 /* that a thread takes at once */ };

struct slot {
    uint8_t *host;   /* pinned */
    CUevent fetched; /* it may be filled again */
};

struct m40_cuda_upload {
    struct slot slots[M40_CUDA_UPLOAD_SLOTS];
    uint32_t next;
    m40_addr rows; /* what was fetched last */
};

/* ---- slots ---- */

static m40llm_status open_slots(struct m40_cuda *c, struct m40_cuda_upload *u, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    for (uint32_t i = 0; i < M40_CUDA_UPLOAD_SLOTS; i++) {
        void *host = NULL;

        M40_TRY(m40_cuda_alloc_pinned(c, M40_CUDA_UPLOAD_BYTES, &host, err));
        u->slots[i].host = host;
        M40_TRY(m40_cuda_check(c, c->driver->EventCreate(&u->slots[i].fetched, CU_EVENT_DISABLE_TIMING), "creating an event", err));
    }
    M40_TRY(m40_cuda_alloc(&c->base, M40_CUDA_UPLOAD_BYTES, &u->rows, err));
fail:
    return status;
}

void m40_cuda_matrix_create_end(struct m40_backend *be)
{
    struct m40_cuda *c = m40_cuda_of(be);
    struct m40_cuda_upload *u = c->upload;

    if (!u)
        return;
    m40_cuda_free(be, u->rows); /* waits for what was sent */
    for (uint32_t i = 0; i < M40_CUDA_UPLOAD_SLOTS; i++) {
        m40_cuda_free_pinned(c, u->slots[i].host);
        if (u->slots[i].fetched)
            c->driver->EventDestroy(u->slots[i].fetched);
    }
    m40_free(u);
    c->upload = NULL;
}

/* Slots, and the format's kernel. */
static m40llm_status prepare(struct m40_cuda *c, const struct m40_format *format, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    CUfunction *repack;
    char name[32];

    M40_TRY(m40_cuda_load_format(c, format, err));
    if (!c->upload) {
        c->upload = m40_calloc(1, sizeof *c->upload);
        M40_FAIL_IF(!c->upload, M40LLM_NO_MEMORY, "upload buffers");
        M40_TRY(open_slots(c, c->upload, err));
    }
    repack = &c->repack[format->type->number];
    if (!*repack) {
        snprintf(name, sizeof name, "repack_%s", format->type->name);
        M40_TRY(m40_cuda_kernel(c, "repack", name, repack, err));
    }
    return M40LLM_OK;
fail:
    if (c->upload && !c->upload->rows)
        m40_cuda_matrix_create_end(&c->base);
    return status;
}

/* ---- pieces ---- */

static int n_copy_threads(void)
{
#ifdef _OPENMP
    return omp_get_max_threads() < MAX_COPY_THREADS ? omp_get_max_threads() : MAX_COPY_THREADS;
#else
    return 1;
#endif
}

/* Several threads, because one does not read as fast as the bus takes it, the less so where the mapping's pages are touched for the first time. */
static void copy_to_host(uint8_t *to, const uint8_t *from, uint64_t n_bytes)
{
#pragma omp parallel for schedule(dynamic) num_threads(n_copy_threads())
    for (uint64_t at = 0; at < n_bytes; at += COPY_BYTES)
        memcpy(to + at, from + at, n_bytes - at < COPY_BYTES ? n_bytes - at : COPY_BYTES);
}

/* What the pieces of a matrix have in common. */
struct layout {
    CUfunction repack;
    uint64_t row_bytes, row_tile_bytes; /* of a row in the file; of 32 rows' tiles */
    uint32_t n_chunks;
    uint32_t tile_step; /* as repack_args has it */
};

/* A part's n_rows rows from first_row on, which one slot holds, to the tiles at `tiles`. */
static m40llm_status send_piece(struct m40_cuda *c, const struct layout *l, const struct m40_matrix_part *part, uint64_t first_row, uint32_t n_rows,
                                m40_addr tiles, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_driver *d = c->driver;
    struct slot *slot = &c->upload->slots[c->upload->next];
    const uint8_t *rows = (const uint8_t *)part->rows + first_row * l->row_bytes;
    const uint64_t n_bytes = n_rows * l->row_bytes;
    const uint32_t n_tiles = m40_cuda_div_up(n_rows, M40_TILE_ROWS);
    const struct repack_args args = {m40_cuda_ptr(c->upload->rows), m40_cuda_ptr(tiles), n_rows, (uint32_t)l->row_bytes, l->n_chunks, l->tile_step};

    c->upload->next = (c->upload->next + 1) % M40_CUDA_UPLOAD_SLOTS;
    M40_TRY(m40_cuda_wait_event(c, slot->fetched, err));
    copy_to_host(slot->host, rows, n_bytes);
    if (part->is_file)
        m40_release_file_pages(rows, n_bytes);
    M40_TRY(m40_cuda_check(c, d->MemcpyHtoDAsync(c->upload->rows, slot->host, n_bytes, c->stream), "copying weights to the device", err));
    M40_TRY(m40_cuda_check(c, d->EventRecord(slot->fetched, c->stream), "recording an event", err));
    M40_TRY(m40_cuda_launch(c, l->repack, n_tiles * l->n_chunks, 1, 1, M40_TILE_ROWS, &args, err));
fail:
    return status;
}

/* Pieces of one part: whole row tiles, as even as they can be. */
static m40llm_status send_part(struct m40_cuda *c, const struct layout *l, const struct m40_matrix_part *part, m40_addr tiles, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint32_t n_tiles = m40_cuda_div_up(part->n_rows, M40_TILE_ROWS), n_tiles_most = (uint32_t)(SLOT_TILE_BYTES / l->row_bytes);
    const uint32_t n_pieces = m40_cuda_div_up(n_tiles, n_tiles_most), n_piece_rows = m40_cuda_div_up(n_tiles, n_pieces) * M40_TILE_ROWS;

    for (uint64_t row = 0; row < part->n_rows; row += n_piece_rows) {
        const uint64_t n_left = part->n_rows - row;

        M40_TRY(send_piece(c, l, part, row, n_left < n_piece_rows ? (uint32_t)n_left : n_piece_rows,
                           tiles + row / M40_TILE_ROWS * l->tile_step * l->row_tile_bytes, err));
    }
fail:
    return status;
}

/* ---- matrices ---- */

/* is_of_experts: no launch takes all rows. */
static m40llm_status check_shape(const struct m40_matrix *m, bool is_of_experts, uint64_t *out_row_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_dtype_info *type = m->format->type;

    M40_FAIL_IF(m->n_cols == 0 || m->n_rows > UINT32_MAX || m->n_cols > UINT32_MAX / 128 || m->n_cols % type->block_elems ||
                    !m40_dtype_row_bytes(type, m->n_cols, out_row_bytes),
                M40LLM_UNSUPPORTED, "a %s matrix of %llu x %llu", type->name, (unsigned long long)m->n_rows, (unsigned long long)m->n_cols);
    M40_FAIL_IF(
        !is_of_experts && m->n_cols > (uint64_t)MATMUL_CHUNK * MATMUL_GROUP && m40_cuda_div_up(m->n_rows, M40_TILE_ROWS) > M40_CUDA_N_COUNTERS,
        M40LLM_UNSUPPORTED, "a matrix of %llu rows: at most %u", (unsigned long long)m->n_rows, (unsigned)M40_CUDA_N_COUNTERS * M40_TILE_ROWS);
    M40_FAIL_IF(*out_row_bytes > SLOT_TILE_BYTES, M40LLM_UNSUPPORTED, "a %s matrix of %llu columns: a row may have %d KiB", type->name,
                (unsigned long long)m->n_cols, SLOT_TILE_BYTES >> 10);
fail:
    return status;
}

/* Makes a matrix of the parts, whose n_rows are set: one after another, or, with tile_step 2, a row tile of each in turn. */
static m40llm_status create(struct m40_cuda *c, struct m40_matrix *matrix, const struct m40_matrix_part *parts, uint32_t n_parts, uint32_t tile_step,
                            m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_format *format = matrix->format;
    struct layout layout = {.n_chunks = m40_cuda_div_up(matrix->n_cols, M40_TILE_COLS), .tile_step = tile_step};
    m40_addr tiles;

    M40_TRY(check_shape(matrix, tile_step > 1, &layout.row_bytes, err));
    M40_FAIL_IF(!m40_format_tiled_bytes(format, matrix->n_rows, matrix->n_cols, &matrix->size_bytes), M40LLM_UNSUPPORTED, "a matrix of %llu x %llu",
                (unsigned long long)matrix->n_rows, (unsigned long long)matrix->n_cols);
    M40_TRY(prepare(c, format, err));
    M40_TRY(m40_cuda_alloc(&c->base, matrix->size_bytes, &matrix->data, err));
    M40_TRY(m40_cuda_check(c, c->driver->MemsetD8Async(matrix->data, 0, matrix->size_bytes, c->stream), "clearing tiles", err));
    tiles = matrix->data;
    layout.repack = c->repack[format->type->number];
    layout.row_tile_bytes = (uint64_t)layout.n_chunks * format->tile_bytes;
    for (uint32_t i = 0; i < n_parts; i++) {
        M40_TRY(send_part(c, &layout, &parts[i], tiles, err));
        tiles += (tile_step > 1 ? 1 : m40_cuda_div_up(parts[i].n_rows, M40_TILE_ROWS)) * layout.row_tile_bytes;
    }
    return M40LLM_OK;
fail:
    m40_cuda_free(&c->base, matrix->data);
    return status;
}

m40llm_status m40_cuda_matrix_create_stacked(struct m40_backend *be, const struct m40_format *format, uint64_t n_cols,
                                             const struct m40_matrix_part *parts, uint32_t n_parts, struct m40_matrix *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_matrix matrix = {.format = format, .n_cols = n_cols};

    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < n_parts; i++) {
        M40_FAIL_IF(parts[i].n_rows == 0, M40LLM_UNSUPPORTED, "a %s matrix of 0 x %llu", format->type->name, (unsigned long long)n_cols);
        M40_FAIL_IF(i + 1 < n_parts && parts[i].n_rows % M40_STACK_ROWS, M40LLM_INVALID_ARGUMENT,
                    "a stack of matrices that do not fit on each other");
        matrix.n_rows += parts[i].n_rows;
    }
    M40_TRY(create(m40_cuda_of(be), &matrix, parts, n_parts, 1, err));
    *out = matrix;
fail:
    return status;
}

m40llm_status m40_cuda_matrix_create_interleaved(struct m40_backend *be, const struct m40_format *format, uint64_t n_cols,
                                                 const struct m40_matrix_part parts[2], struct m40_matrix *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_matrix matrix = {.format = format, .n_cols = n_cols, .n_rows = parts[0].n_rows + parts[1].n_rows};

    memset(out, 0, sizeof *out);
    M40_FAIL_IF(parts[0].n_rows == 0 || parts[0].n_rows % M40_STACK_ROWS || parts[0].n_rows != parts[1].n_rows, M40LLM_UNSUPPORTED,
                "interleaved matrices of %llu and %llu rows", (unsigned long long)parts[0].n_rows, (unsigned long long)parts[1].n_rows);
    M40_TRY(create(m40_cuda_of(be), &matrix, parts, 2, 2, err));
    *out = matrix;
fail:
    return status;
}

m40llm_status m40_cuda_matrix_create(struct m40_backend *be, const struct m40_format *format, uint64_t n_rows, uint64_t n_cols, const void *rows,
                                     struct m40_matrix *out, m40llm_error *err)
{
    return m40_cuda_matrix_create_stacked(be, format, n_cols, &(struct m40_matrix_part){rows, n_rows, false}, 1, out, err);
}

void m40_cuda_matrix_destroy(struct m40_backend *be, struct m40_matrix *matrix)
{
    m40_cuda_free(be, matrix->data);
    memset(matrix, 0, sizeof *matrix);
}
