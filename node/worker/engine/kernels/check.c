/* What a step refuses. Nothing is read before what it depends on has been checked, and nothing at
 * all is written: a bad argument costs an answer, never memory.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "internal.h"

/* Bounds that no model of today comes near, and below which no size in bytes overflows. */
#define WIDTH_MAX (1 << 17)
#define INNER_WIDTH_MAX (1 << 19)
#define HEADS_MAX 1024
#define LAYERS_MAX 1024
#define VOCABULARY_MAX (1 << 22)
#define CONTEXT_MAX (1 << 22)
#define BLOCKS_MAX (1 << 24)

static int within(int64_t value, int64_t least, int64_t most) {
    return value >= least && value <= most;
}

static int aligned(const void *p, size_t bytes) { return p && (uintptr_t)p % bytes == 0; }

static int matrix_is(const ayni_matrix *matrix, int64_t rows, int64_t columns) {
    return aligned(matrix->data, 64) && matrix->rows == rows && matrix->columns == columns &&
           (matrix->format == AYNI_Q4 || matrix->format == AYNI_Q8) &&
           (!matrix->bias || aligned(matrix->bias, sizeof(float)));
}

static int layer_is_good(const ayni_model *m, const ayni_layer *layer) {
    int64_t attended = (int64_t)m->heads * m->head_width;
    int64_t all = ((int64_t)m->heads + 2 * m->key_heads) * m->head_width;
    return matrix_is(&layer->query_key_value, all, m->width) &&
           matrix_is(&layer->attention_out, m->width, attended) &&
           matrix_is(&layer->gate_up, 2 * (int64_t)m->inner_width, m->width) &&
           matrix_is(&layer->down, m->width, m->inner_width) &&
           aligned(layer->attention_norm, sizeof(float)) &&
           aligned(layer->feed_norm, sizeof(float)) &&
           aligned(layer->rotations, sizeof(float)) && layer->window >= 0;
}

static int sizes_are_good(const ayni_model *m) {
    if (!within(m->layers, 1, LAYERS_MAX) || !within(m->width, 32, WIDTH_MAX) ||
        !within(m->inner_width, 32, INNER_WIDTH_MAX) || !within(m->heads, 1, HEADS_MAX) ||
        !within(m->key_heads, 1, m->heads) || !within(m->head_width, 8, HEAD_WIDTH_MAX) ||
        !within(m->vocabulary, 1, VOCABULARY_MAX) || !within(m->context, 1, CONTEXT_MAX) ||
        !within(m->blocks, 1, BLOCKS_MAX) || !within(m->rows_max, 1, AYNI_BATCH_ROWS_MAX))
        return 0;
    if (m->width % AYNI_GROUP || m->inner_width % AYNI_GROUP || m->head_width % 8 ||
        m->heads % m->key_heads)
        return 0;
    int32_t heads_each = m->heads / m->key_heads;
    return heads_each <= ROWS_ATTENDING && heads_each * m->head_width % AYNI_GROUP == 0;
}

int check_sizes(const ayni_model *m) {
    return m && m->abi == AYNI_ABI && sizes_are_good(m) ? AYNI_OK : AYNI_BAD_ARGUMENT;
}

int check_model(const ayni_model *m) {
    if (check_sizes(m) != AYNI_OK || !m->layer)
        return AYNI_BAD_ARGUMENT;
    if (m->activation != AYNI_SILU && m->activation != AYNI_GELU_TANH)
        return AYNI_BAD_ARGUMENT;
    if (!matrix_is(&m->embedding, m->vocabulary, m->width) ||
        !matrix_is(&m->head, m->vocabulary, m->width) || !aligned(m->norm, sizeof(float)))
        return AYNI_BAD_ARGUMENT;
    for (int32_t i = 0; i < m->layers; i++)
        if (!layer_is_good(m, &m->layer[i]))
            return AYNI_BAD_ARGUMENT;
    return AYNI_OK;
}

/* Rows of a sequence stand together, at positions that follow each other: a sequence that comes
 * again after another would be two that write to the same places. */
static int row_is_good(const ayni_model *m, const ayni_batch *b, int32_t row) {
    int32_t sequence = b->sequence[row], position = b->position[row];
    if (!within(b->token[row], 0, m->vocabulary - 1) || !within(sequence, 0, b->sequences - 1) ||
        !within(position, 0, m->context - 1) ||
        position / AYNI_BLOCK_TOKENS >= b->table_width)
        return 0;
    if (row && b->sequence[row - 1] == sequence)
        return b->position[row - 1] + 1 == position;
    for (int32_t before = 0; before < row; before++)
        if (b->sequence[before] == sequence)
            return 0;
    return 1;
}

/* The blocks of a row that is the last one of its sequence in the batch. */
static int blocks_are_good(const ayni_model *m, const ayni_batch *b, int32_t row) {
    const int32_t *blocks = b->table + (size_t)b->sequence[row] * (size_t)b->table_width;
    for (int32_t i = 0; i <= b->position[row] / AYNI_BLOCK_TOKENS; i++)
        if (!within(blocks[i], 0, m->blocks - 1))
            return 0;
    return 1;
}

int check_batch(const ayni_model *m, const ayni_batch *b) {
    if (!b || !within(b->rows, 1, m->rows_max) || !within(b->sequences, 1, AYNI_BATCH_ROWS_MAX) ||
        !within(b->table_width, 1, CONTEXT_MAX) || !within(b->outputs, 0, b->rows))
        return AYNI_BAD_ARGUMENT;
    if (!b->token || !b->sequence || !b->position || !b->table ||
        (b->outputs && (!b->output || !b->hidden)))
        return AYNI_BAD_ARGUMENT;
    if (!aligned(m->keys, sizeof(uint16_t)) || !aligned(m->values, sizeof(uint16_t)) ||
        !aligned(m->scratch, 64))
        return AYNI_BAD_ARGUMENT;
    for (int32_t row = 0; row < b->rows; row++) {
        if (!row_is_good(m, b, row))
            return AYNI_BAD_ARGUMENT;
        int last = row + 1 == b->rows || b->sequence[row + 1] != b->sequence[row];
        if (last && !blocks_are_good(m, b, row))
            return AYNI_BAD_ARGUMENT;
    }
    for (int32_t i = 0; i < b->outputs; i++)
        if (!within(b->output[i], 0, b->rows - 1))
            return AYNI_BAD_ARGUMENT;
    return AYNI_OK;
}
