#include "backend/cuda/emu/emu.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct emu_settings emu_settings;
static uint64_t random_state;

static uint64_t setting(const char *name, uint64_t value)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 0) : value;
}

void emu_settings_read(void)
{
    uint64_t n_devices = setting("M40LLM_EMU_DEVICES", 1);

    emu_settings.seed = setting("M40LLM_EMU_SEED", 1);
    emu_settings.n_devices = n_devices < EMU_MAX_DEVICES ? (int)n_devices : EMU_MAX_DEVICES;
    emu_settings.driver_version = (int)setting("M40LLM_EMU_DRIVER", 12040);
    emu_settings.cc = (int)setting("M40LLM_EMU_CC", 52);
    emu_settings.n_sms = (int)setting("M40LLM_EMU_SMS", 4);
    if (emu_settings.n_sms < 1)
        emu_settings.n_sms = 1;
    emu_settings.memory_bytes = (size_t)setting("M40LLM_EMU_MEMORY", 512) << 20;
    random_state = emu_settings.seed;
    for (int i = 0; i < 4; i++) /* neighbouring seeds part at once */
        random_state = (random_state + 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u ^ random_state >> 29;
    random_state |= 1;
}

/* xorshift64*: cheap, its upper half is good. */
uint64_t emu_random(void)
{
    uint64_t x = random_state;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    random_state = x;
    return x * 0x2545F4914F6CDD1Du;
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

struct emu_order emu_order_draw(uint64_t n)
{
    struct emu_order order = {n, emu_random_below((uint32_t)(n < UINT32_MAX ? n : UINT32_MAX)), 1};

    if (n > 2)
        do
            order.stride = 1 + emu_random_below((uint32_t)(n < UINT32_MAX ? n - 1 : UINT32_MAX));
        while (greatest_common_divisor(order.stride, n) != 1);
    return order;
}

CUresult emu_complain(CUresult result, const char *format, ...)
{
    va_list args;

    fputs("emulated CUDA driver: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return result;
}
