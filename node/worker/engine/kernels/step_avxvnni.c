/* The step by AVX2 with the sums of products of AVX-VNNI: home processors without AVX-512.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#if defined(__AVXVNNI__)

#define DOT(sums, unsigned_bytes, signed_bytes)                                                    \
    _mm256_dpbusd_avx_epi32(sums, unsigned_bytes, signed_bytes)
#define TILE_TOKENS 4
#define TILE_ROWS 2

#include "lanes_x86.h"

#include "step.inc.h"

const path_work ayni_work_avx_vnni = work;

#else

#include "internal.h"

const path_work ayni_work_avx_vnni = NULL;

#endif
