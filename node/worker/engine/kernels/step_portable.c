/* The step in plain C, which every machine has.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define UNROLL_NOTHING
#define TILE_TOKENS 4
#define TILE_ROWS 4

#include "lanes_portable.h"

#include "step.inc.h"

const path_work ayni_work_portable = work;
