/* Which cards there are, and which one to take. */
#include "backend/cuda/cuda_internal.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CC_MIN = 52 }; /* the PTX is for compute_52 */

struct card {
    m40llm_device_info info;
    CUdevice device;
    int ordinal;
    bool is_usable; /* otherwise info.why says why not */
};

static int card_cc(const struct card *card)
{
    return card->info.cc_major * 10 + card->info.cc_minor;
}

static double card_gib(const struct card *card)
{
    return (double)card->info.memory_total_bytes / 0x1p30;
}

/* Where the card sits: what other tools know it by, whatever the driver numbers it as. */
static void find_pci(struct m40_cuda_driver *driver, struct card *card)
{
    int domain, bus, device;

    if (driver->DeviceGetAttribute(&domain, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, card->device) == CUDA_SUCCESS &&
        driver->DeviceGetAttribute(&bus, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, card->device) == CUDA_SUCCESS &&
        driver->DeviceGetAttribute(&device, CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, card->device) == CUDA_SUCCESS)
        snprintf(card->info.pci, sizeof card->info.pci, "%04x:%02x:%02x.0", (unsigned)domain & 0xffff, (unsigned)bus & 0xff, (unsigned)device & 0xff);
}

static m40llm_status describe_card(struct m40_cuda_driver *driver, int ordinal, bool require_sm52, struct card *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_device_info *info = &out->info;
    size_t n_bytes = 0;

    memset(out, 0, sizeof *out);
    out->ordinal = ordinal;
    snprintf(info->spec, sizeof info->spec, "cuda:%u", (uint16_t)ordinal);
    snprintf(info->driver, sizeof info->driver, "%d.%d", driver->version / 1000, driver->version % 1000 / 10);
    M40_CUDA_TRY(driver, driver->DeviceGet(&out->device, ordinal), "device %d", ordinal);
    M40_CUDA_TRY(driver, driver->DeviceGetName(info->name, sizeof info->name, out->device), "name of device %d", ordinal);
    M40_CUDA_TRY(driver, driver->DeviceGetAttribute(&info->cc_major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, out->device),
                 "compute capability of device %d", ordinal);
    M40_CUDA_TRY(driver, driver->DeviceGetAttribute(&info->cc_minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, out->device),
                 "compute capability of device %d", ordinal);
    M40_CUDA_TRY(driver, driver->DeviceTotalMem(&n_bytes, out->device), "memory of device %d", ordinal);
    info->memory_total_bytes = n_bytes;
    find_pci(driver, out);
    if (card_cc(out) < CC_MIN)
        snprintf(info->why, sizeof info->why, "cannot be used: compute capability %d.%d is below 5.2", info->cc_major, info->cc_minor);
    else if (require_sm52 && card_cc(out) != CC_MIN)
        snprintf(info->why, sizeof info->why, "refused: compute capability %d.%d, and 5.2 is required", info->cc_major, info->cc_minor);
    else
        out->is_usable = true;
fail:
    return status;
}

/* Usable ones first, then compute capability 5.2, then the most memory, then the driver's order. */
static int compare_cards(const void *a, const void *b)
{
    const struct card *left = a, *right = b;

    if (left->is_usable != right->is_usable)
        return left->is_usable ? -1 : 1;
    if ((card_cc(left) == CC_MIN) != (card_cc(right) == CC_MIN))
        return card_cc(left) == CC_MIN ? -1 : 1;
    if (left->info.memory_total_bytes != right->info.memory_total_bytes)
        return left->info.memory_total_bytes > right->info.memory_total_bytes ? -1 : 1;
    return left->ordinal - right->ordinal;
}

static void explain_order(struct card *cards, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        m40llm_device_info *info = &cards[i].info;
        const char *rank = n == 1 ? "the only card" : i == 0 ? "the best card" : "not the best card";

        if (cards[i].is_usable)
            snprintf(info->why, sizeof info->why, "%s: compute capability %d.%d, %.1f GiB", rank, info->cc_major, info->cc_minor,
                     card_gib(&cards[i]));
    }
}

/* All cards, best first; *out is to be freed with m40_free. No card at all is NO_DEVICE. */
static m40llm_status list_cards(struct m40_cuda_driver *driver, const m40llm_device_options *options, struct card **out, size_t *n_out,
                                m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct card *cards = NULL;
    int n = 0;

    *out = NULL;
    *n_out = 0;
    M40_CUDA_TRY(driver, driver->DeviceGetCount(&n), "counting CUDA devices");
    M40_FAIL_IF(n <= 0, M40LLM_NO_DEVICE, "the CUDA driver sees no card");
    cards = m40_calloc((size_t)n, sizeof *cards);
    M40_FAIL_IF(!cards, M40LLM_NO_MEMORY, "list of %d cards", n);
    for (int i = 0; i < n; i++)
        M40_TRY(describe_card(driver, i, options->require_sm52, &cards[i], err));
    qsort(cards, (size_t)n, sizeof *cards, compare_cards);
    explain_order(cards, (size_t)n);
    *out = cards;
    *n_out = (size_t)n;
    return M40LLM_OK;
fail:
    m40_free(cards);
    return status;
}

/* The card that spec asks for by number, or the first, which is the best. */
static m40llm_status pick(const char *spec, struct card *cards, size_t n, struct card **out, m40llm_error *err)
{
    *out = &cards[0];
    if (!spec || strncmp(spec, "cuda:", 5) != 0)
        return M40LLM_OK;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(cards[i].info.spec, spec) == 0) {
            *out = &cards[i];
            if (cards[i].is_usable)
                snprintf(cards[i].info.why, sizeof cards[i].info.why, "asked for");
            return M40LLM_OK;
        }
    }
    return m40_fail(err, M40LLM_NO_DEVICE, "there is no %s: the driver sees %zu %s", spec, n, n == 1 ? "card, cuda:0" : "cards");
}

m40llm_status m40_cuda_choose(struct m40_cuda_driver *driver, const m40llm_device_options *options, CUdevice *out_device, m40llm_device_info *out,
                              m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct card *cards = NULL, *card = NULL;
    size_t n = 0;

    M40_TRY(list_cards(driver, options, &cards, &n, err));
    M40_TRY(pick(options->spec, cards, n, &card, err));
    M40_FAIL_IF(!card->is_usable, M40LLM_NO_DEVICE, "%s (%s) %s", card->info.spec, card->info.name, card->info.why);
    *out_device = card->device;
    *out = card->info;
fail:
    m40_free(cards);
    return status;
}

static void set_reason(char *reason, const char *text)
{
    if (reason)
        snprintf(reason, 256, "%s", text);
}

m40llm_status m40_cuda_list(const m40llm_device_options *options, m40llm_device_info *out, size_t capacity, size_t *n_out, char *reason,
                            m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_driver *driver = NULL;
    struct card *cards = NULL;
    m40llm_error why = {0};

    *n_out = 0;
    set_reason(reason, "");
    status = m40_cuda_driver_open(&driver, options->cuda_library, &why);
    if (status == M40LLM_OK)
        status = list_cards(driver, options, &cards, n_out, &why);
    M40_FAIL_IF(status == M40LLM_NO_MEMORY, status, "%s", why.text);
    if (status != M40LLM_OK)
        set_reason(reason, why.text);
    else if (!cards[0].is_usable)
        set_reason(reason, "no card can be used");
    status = M40LLM_OK;
    for (size_t i = 0; i < *n_out && i < capacity; i++)
        out[i] = cards[i].info;
fail:
    m40_free(cards);
    m40_cuda_driver_close(&driver);
    return status;
}
