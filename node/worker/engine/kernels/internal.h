/* What the files of the kernels know of one another: the threads, one step's work, the paths.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef AYNI_INTERNAL_H
#define AYNI_INTERNAL_H

#include "ayni_kernels.h"

#define ROWS_ATTENDING 32     /* Rows of queries that pass over the keys together, at most. */
#define HEAD_WIDTH_MAX 256
#define PART_TOKENS 512       /* Keys whose part of a softmax is summed on its own: this is a rule
                                 of the mode, and lets several threads share one long sequence. */
#define TOKENS_TOGETHER 64    /* Tokens that use a chunk of weights while it is in the cache. */
#define ROWS_REPEATED 4       /* So few rows are normed by every thread, which saves a barrier. */

static inline size_t size_min(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t size_max(size_t a, size_t b) { return a > b ? a : b; }

/* ---- Threads (pool.c) ---- */

typedef void pool_work(void *argument, int thread);

/* Runs the work on all threads and comes back when all have ended. */
void pool_run(ayni_pool *pool, pool_work *work, void *argument);
int pool_threads(const ayni_pool *pool);
/* ayni_paths(), asked once: in a virtual machine the question costs as much as drawing a token. */
uint32_t pool_paths(const ayni_pool *pool);
/* False in a process that was forked from the one with the threads. */
int pool_usable(const ayni_pool *pool);
/* Memory that a thread is going to read after a barrier. */
typedef struct {
    const uint8_t *first;
    size_t bytes;
} soon;
#define NOTHING_SOON ((soon){NULL, 0})
/* Waits for all threads, and sets the count of pool_next back to 0. Who waits has the time to
 * fetch what it needs next. */
void pool_barrier(ayni_pool *pool, soon next);
/* The next piece of work that no thread has: 0, 1, 2 and so on. Whoever is fast takes more, and
 * what a piece computes does not depend on who computes it. */
size_t pool_next(ayni_pool *pool);

/* ---- One step ---- */

/* Rows of numbers, quantised in groups of 32 columns: a number is value * scale. */
typedef struct {
    int8_t *values;    /* [rows][columns], -127 to 127. */
    float *scales;     /* [rows][columns / 32] */
    float *scaled_sums; /* scale * sum: what a matrix with minima needs. */
    int32_t *sums;     /* Of the values of a group. */
    size_t columns;
} quantised;

/* Rows of one sequence that stand together in the batch and attend together. */
typedef struct {
    int32_t first, count;
} tile;

typedef struct {
    const ayni_model *model;
    const ayni_batch *batch;
    ayni_pool *pool;
    size_t threads;
    float *states;              /* [rows][width]: the residual stream. */
    float *branch;              /* [rows][width]: what goes through a norm before it is added. */
    float *query_key_value;     /* [rows][(heads + 2 * key_heads) * head_width] */
    quantised normed, attended, fed;
    quantised repeated[AYNI_THREADS_MAX]; /* Of one thread: ROWS_REPEATED rows. */
    tile *tiles;
    size_t tile_count;
    size_t parts;               /* Above 1: so many parts of a softmax are spread over threads. */
    float *partial;             /* [rows][heads][parts][PARTIAL_HEAD + head_width] */
    int follows;                /* Whether a row of the batch sees another row of the batch. */
} step;

/* The head of a partial softmax: its greatest score, and 8 sums. */
#define PARTIAL_HEAD 16

/* A path is a function that one thread of the pool runs for a step, or NULL where this build has
 * no such path. */
typedef pool_work *path_work;
extern const path_work ayni_work_portable, ayni_work_avx2, ayni_work_avx_vnni,
    ayni_work_avx512_vnni;

/* Lays a step out in scratch memory; with `base` NULL only the size is of use. (scratch.c) */
size_t step_layout(step *s, const ayni_model *model, size_t threads, uint8_t *base);
/* Divides the rows of the batch into tiles. */
void step_plan(step *s, const ayni_batch *batch, ayni_pool *pool);

/* AYNI_OK or AYNI_BAD_ARGUMENT; reads only what it has checked before. (check.c) */
int check_sizes(const ayni_model *model);
int check_model(const ayni_model *model);
int check_batch(const ayni_model *model, const ayni_batch *batch);

#endif
