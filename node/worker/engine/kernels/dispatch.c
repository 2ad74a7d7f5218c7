/* The calls of ayni_kernels.h: which paths there are, how much memory a step wants, and the step.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "internal.h"

#if defined(__x86_64__)

#include <cpuid.h>

#define XMM_YMM_STATE 0x06u  /* Of XCR0: registers that the system keeps when it changes threads. */
#define ZMM_STATE 0xe6u

static uint32_t state_kept(void) {
    uint32_t low, high;
    __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Intel's manual, volume 2, CPUID: leaf 1, and leaf 7 with its subleaf 1. */
static uint32_t paths_of_processor(void) {
    uint32_t a, b, c, d, paths = 1u << AYNI_PORTABLE;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return paths;
    int fma = c >> 12 & 1, xsave = c >> 27 & 1, half = c >> 29 & 1;
    if (!fma || !xsave || !half || (state_kept() & XMM_YMM_STATE) != XMM_YMM_STATE)
        return paths;
    uint32_t b7, c7;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d) || !(b7 >> 5 & 1))
        return paths;
    paths |= 1u << AYNI_AVX2;
    uint32_t subleaves = a;
    if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1))
        paths |= 1u << AYNI_AVX_VNNI;
    int foundation = b7 >> 16 & 1, bytes = b7 >> 30 & 1, lengths = b7 >> 31 & 1;
    int vnni = c7 >> 11 & 1;
    if (foundation && bytes && lengths && vnni && (state_kept() & ZMM_STATE) == ZMM_STATE)
        paths |= 1u << AYNI_AVX512_VNNI;
    return paths;
}

#else

static uint32_t paths_of_processor(void) { return 1u << AYNI_PORTABLE; }

#endif

static path_work path_of(int32_t path) {
    switch (path) {
    case AYNI_PORTABLE: return ayni_work_portable;
    case AYNI_AVX2: return ayni_work_avx2;
    case AYNI_AVX_VNNI: return ayni_work_avx_vnni;
    case AYNI_AVX512_VNNI: return ayni_work_avx512_vnni;
    default: return NULL;
    }
}

/* One row alone goes as fast as the memory on any path, and lanes of half the width read it in one
 * stretch instead of two, which memory likes better. The bits are the same. */
static path_work work_of(int32_t path, uint32_t paths, const ayni_batch *batch) {
    if (path == AYNI_AVX512_VNNI && batch->rows == 1)
        path = paths >> AYNI_AVX_VNNI & 1 ? AYNI_AVX_VNNI : AYNI_AVX2;
    return path_of(path);
}

uint32_t ayni_paths(void) {
    uint32_t paths = paths_of_processor();
    for (int32_t path = AYNI_PORTABLE; path <= AYNI_NEON; path++)
        if (!path_of(path))
            paths &= ~(1u << path);
    return paths;
}

const char *ayni_compiler(void) {
#if defined(__clang__)
    return __VERSION__; /* It begins with "Clang" or the maker's name for it. */
#else
    return "gcc " __VERSION__;
#endif
}

size_t ayni_scratch_bytes(const ayni_model *model, int32_t threads) {
    step s;
    if (threads < 1 || threads > AYNI_THREADS_MAX || check_sizes(model) != AYNI_OK)
        return 0;
    return step_layout(&s, model, (size_t)threads, NULL);
}

int32_t ayni_step(ayni_pool *pool, int32_t path, const ayni_model *model,
                  const ayni_batch *batch) {
    if (!pool || check_model(model) != AYNI_OK || check_batch(model, batch) != AYNI_OK)
        return AYNI_BAD_ARGUMENT;
    if (!pool_usable(pool))
        return AYNI_NO_THREADS;
    uint32_t paths = pool_paths(pool);
    if (path < AYNI_PORTABLE || path > AYNI_NEON || !(paths >> path & 1))
        return AYNI_NO_PATH;
    step s;
    step_layout(&s, model, (size_t)pool_threads(pool), model->scratch);
    step_plan(&s, batch, pool);
    pool_run(pool, work_of(path, paths, batch), &s);
    return AYNI_OK;
}
