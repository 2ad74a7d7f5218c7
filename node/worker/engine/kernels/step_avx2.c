/* The step by AVX2, FMA and F16C: x86-64 processors since 2013 to 2015.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#if defined(__AVX2__)

#define TILE_TOKENS 4
#define TILE_ROWS 2

#include "lanes_x86.h"

#include "step.inc.h"

const path_work ayni_work_avx2 = work;

#else

#include "internal.h"

const path_work ayni_work_avx2 = NULL;

#endif
