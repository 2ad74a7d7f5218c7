/* The step by AVX-512 with VNNI: 32 registers of sixteen lanes hold larger tiles.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#if defined(__AVX512VNNI__)

#define WIDE
#define DOT(sums, unsigned_bytes, signed_bytes)                                                    \
    _mm512_dpbusd_epi32(sums, unsigned_bytes, signed_bytes)
#define TILE_TOKENS 8
#define TILE_ROWS 8

#include "lanes_x86.h"

#include "step.inc.h"

const path_work ayni_work_avx512_vnni = work;

#else

#include "internal.h"

const path_work ayni_work_avx512_vnni = NULL;

#endif
