/* Where a step's memory lies, and how its rows are divided for attention.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "internal.h"

typedef struct {
    uint8_t *base;
    size_t used;
} bump;

/* Pieces start on cache lines of their own, so that no two threads write to one. */
static void *take(bump *b, size_t bytes) {
    void *piece = b->base ? b->base + b->used : NULL;
    b->used += (bytes + 63) / 64 * 64;
    return piece;
}

static quantised take_quantised(bump *b, size_t rows, size_t columns) {
    size_t groups = rows * (columns / AYNI_GROUP);
    quantised q = {.columns = columns};
    q.values = take(b, rows * columns);
    q.scales = take(b, groups * sizeof(float));
    q.scaled_sums = take(b, groups * sizeof(float));
    q.sums = take(b, groups * sizeof(int32_t));
    return q;
}

/* Partial softmaxes that a step may spread over threads: of less than two tiles a thread, one token
 * each, that look back over the whole context. */
static size_t partial_rows_max(const ayni_model *m, size_t threads) {
    return 2 * threads * (size_t)(m->heads / m->key_heads);
}

size_t step_layout(step *s, const ayni_model *m, size_t threads, uint8_t *base) {
    bump b = {base, 0};
    size_t rows = (size_t)m->rows_max, width = (size_t)m->width, heads = (size_t)m->heads;
    size_t head_width = (size_t)m->head_width;
    size_t all = (heads + 2 * (size_t)m->key_heads) * head_width;
    size_t parts = ((size_t)m->context + PART_TOKENS - 1) / PART_TOKENS;
    *s = (step){.model = m, .threads = threads};
    s->states = take(&b, rows * width * sizeof(float));
    s->branch = take(&b, rows * width * sizeof(float));
    s->query_key_value = take(&b, rows * all * sizeof(float));
    s->normed = take_quantised(&b, rows, width);
    s->attended = take_quantised(&b, rows, heads * head_width);
    s->fed = take_quantised(&b, rows, (size_t)m->inner_width);
    for (size_t i = 0; i < threads; i++)
        s->repeated[i] = take_quantised(&b, ROWS_REPEATED, width);
    s->tiles = take(&b, rows * sizeof(tile));
    s->partial = take(&b, partial_rows_max(m, threads) * parts *
                              (PARTIAL_HEAD + head_width) * sizeof(float));
    return b.used;
}

void step_plan(step *s, const ayni_batch *batch, ayni_pool *pool) {
    const ayni_model *m = s->model;
    size_t heads_each = (size_t)(m->heads / m->key_heads), rows = (size_t)batch->rows;
    int32_t tokens_max = (int32_t)(ROWS_ATTENDING / heads_each), position_max = 0;
    if (tokens_max > 8)
        tokens_max = 8; /* More would leave too few tiles to share out. */
    s->batch = batch;
    s->pool = pool;
    for (int32_t row = 0; row < batch->rows; row++) {
        int goes_on = row && batch->sequence[row] == batch->sequence[row - 1];
        s->follows |= goes_on;
        if (goes_on && s->tiles[s->tile_count - 1].count < tokens_max)
            s->tiles[s->tile_count - 1].count++;
        else
            s->tiles[s->tile_count++] = (tile){row, 1};
        if (batch->position[row] > position_max)
            position_max = batch->position[row];
    }
    int few = s->tile_count * (size_t)m->key_heads < 2 * s->threads &&
              rows * (size_t)m->heads <= partial_rows_max(m, s->threads);
    s->parts = few && s->threads > 1 ? (size_t)position_max / PART_TOKENS + 1 : 1;
}
