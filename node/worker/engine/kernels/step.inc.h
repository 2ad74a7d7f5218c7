/* A whole step: what each thread does, from tokens to logits. Written once over the lanes that a
 * path has; the path's file names the function (AYNI_WORK) and TILE_TOKENS, TILE_ROWS.
 *
 * All threads run `work` side by side. A phase is divided into pieces that whoever is free takes
 * (pool_next), and a barrier stands where the next phase needs what others have computed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "internal.h"

#include <math.h>
#include <string.h>

#if defined(UNROLL_NOTHING) /* Loops over lanes are loops already: more would be code, not speed. */
#define UNROLL
#elif defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

#include "rows.inc.h"

#include "matrix.inc.h"

#include "attention.inc.h"

#define ROWS_EACH 4 /* Rows of a piece of work that goes by rows. */

/* Runs `body` for a thread's turns at rows 0 to count - 1. */
#define EACH_ROW(s, row, count, body)                                                              \
    for (size_t turn_ = 0; (turn_ = pool_next((s)->pool) * ROWS_EACH) < (count);)                  \
        for (size_t row = turn_; row < size_min(turn_ + ROWS_EACH, (count)); row++)                \
            body

static void embed(const step *s, size_t row) {
    const ayni_model *m = s->model;
    size_t token = (size_t)s->batch->token[row], width = (size_t)m->width;
    unpack_row(&m->embedding, token, m->embedding_scale, s->states + row * width);
}

/* Rows after a norm, quantised. Where a norm of the last branch is still to be added, that comes
 * first. Few rows are done by every thread for itself: that is quicker than to wait. */
static const quantised *normed_rows(const step *s, size_t thread, const float *weights,
                                    const float *branch_norm, soon next) {
    size_t rows = (size_t)s->batch->rows, width = (size_t)s->model->width;
    float epsilon = s->model->norm_epsilon;
    if (rows <= ROWS_REPEATED && !branch_norm) {
        quantised own = s->repeated[thread];
        for (size_t row = 0; row < rows; row++)
            norm_quantised(&own, row, s->states + row * width, weights, epsilon);
        return &s->repeated[thread];
    }
    quantised shared = s->normed;
    EACH_ROW(s, row, rows, {
        float *state = s->states + row * width;
        if (branch_norm)
            norm_added(state, s->branch + row * width, branch_norm, width, epsilon);
        norm_quantised(&shared, row, state, weights, epsilon);
    })
    pool_barrier(s->pool, next);
    return &s->normed;
}

/* A product that ends a branch: straight onto the residual stream, or aside where its norm comes
 * first. */
static void end_branch(const step *s, size_t thread, const ayni_matrix *matrix,
                       const quantised *a, const float *branch_norm, soon next) {
    target to = {branch_norm ? s->branch : s->states, (size_t)s->model->width, !branch_norm};
    multiply(s, thread, matrix, a, (size_t)s->batch->rows, to);
    pool_barrier(s->pool, next);
}

/* Norms and rotates the queries and the key of one row and one head of keys, and puts the key and
 * the value into the cache. */
static void prepare_heads(const attention *at, size_t row, size_t key_head) {
    const step *s = at->s;
    const ayni_model *m = s->model;
    const ayni_layer *layer = at->layer;
    size_t width = (size_t)m->head_width, heads = (size_t)m->heads;
    size_t all = (heads + 2 * (size_t)m->key_heads) * width;
    size_t position = (size_t)s->batch->position[row];
    float *base = s->query_key_value + row * all, *key = base + (heads + key_head) * width;
    for (size_t i = 0; i <= at->heads_each; i++) {
        float *head = i < at->heads_each ? base + (key_head * at->heads_each + i) * width : key;
        const float *weights = i < at->heads_each ? layer->query_norm : layer->key_norm;
        if (weights)
            norm(head, head, weights, width, m->norm_epsilon);
        rotate(head, layer->rotations + position * width, width / 2);
    }
    const float *value = key + (size_t)m->key_heads * width;
    size_t block = block_of(s, row, position / AYNI_BLOCK_TOKENS);
    size_t line = position % AYNI_BLOCK_TOKENS;
    size_t place = cache_place(m, block, at->number, key_head);
    for (size_t i = 0; i < width; i += 8) {
        uint16_t halves[8];
        vec_to_halves(halves, vec_load(key + i));
        for (size_t k = 0; k < 8; k++)
            m->keys[place + (i + k) * AYNI_BLOCK_TOKENS + line] = halves[k];
        vec_to_halves(m->values + place + line * width + i, vec_load(value + i));
    }
}

/* Memory of one tile's running softmaxes: of the part at hand, and of those before it joined. */
typedef struct {
    float memory[2][ROWS_ATTENDING * (PARTIAL_HEAD + HEAD_WIDTH_MAX)];
    partial *part[ROWS_ATTENDING], *total[ROWS_ATTENDING];
} softmaxes;

static void attend_whole(const attention *at, softmaxes *own) {
    for (size_t r = 0; r < at->rows; r++) {
        own->part[r] = partial_at(at, own->memory[0], r);
        own->total[r] = partial_at(at, own->memory[1], r);
        memset(own->total[r], 0, at->partial_bytes);
    }
    size_t first = (size_t)at->first[0] / PART_TOKENS;
    size_t last = (size_t)at->last[at->rows - 1] / PART_TOKENS;
    for (size_t number = first; number <= last; number++) {
        attend_part(at, number, own->part);
        for (size_t r = 0; r < at->rows; r++)
            join(at->s->model, own->total[r], own->part[r]);
    }
    attention_end(at, own->total);
}

/* The place in s->partial of a row of the tile and a part. */
static partial *spread_partial(const attention *at, size_t r, size_t number) {
    const step *s = at->s;
    size_t row = (size_t)at->tile->first + r / at->heads_each;
    size_t head = at->key_head * at->heads_each + r % at->heads_each;
    size_t index = (row * (size_t)s->model->heads + head) * s->parts + number;
    return partial_at(at, s->partial, index);
}

/* Few rows, each with many keys: the parts of a softmax are pieces of work of their own. */
static void attend_spread(attention *at, softmaxes *own, soon next) {
    const step *s = at->s;
    size_t key_heads = (size_t)s->model->key_heads, pieces = s->tile_count * key_heads, piece;
    while ((piece = pool_next(s->pool)) < pieces * s->parts) {
        size_t number = piece % s->parts, which = piece / s->parts;
        attention_tile(at, &s->tiles[which / key_heads], which % key_heads);
        for (size_t r = 0; r < at->rows; r++)
            own->part[r] = spread_partial(at, r, number);
        attend_part(at, number, own->part);
    }
    pool_barrier(s->pool, next);
    while ((piece = pool_next(s->pool)) < pieces) {
        attention_tile(at, &s->tiles[piece / key_heads], piece % key_heads);
        for (size_t r = 0; r < at->rows; r++) {
            own->total[r] = partial_at(at, own->memory[1], r);
            memset(own->total[r], 0, at->partial_bytes);
            for (size_t number = 0; number < s->parts; number++)
                join(s->model, own->total[r], spread_partial(at, r, number));
        }
        attention_end(at, own->total);
    }
    pool_barrier(s->pool, next);
}

static void attend(const step *s, const ayni_layer *layer, size_t number, soon next) {
    size_t rows = (size_t)s->batch->rows, key_heads = (size_t)s->model->key_heads, piece;
    attention at;
    softmaxes own;
    attention_begin(&at, s, layer, number);
    int first = s->follows || s->parts > 1; /* All keys must be in the cache before any is read. */
    if (first) {
        EACH_ROW(s, row, rows, {
            for (size_t head = 0; head < key_heads; head++)
                prepare_heads(&at, row, head);
        })
        pool_barrier(s->pool, next);
    }
    if (s->parts > 1) {
        attend_spread(&at, &own, next);
        return;
    }
    size_t pieces = s->tile_count * key_heads;
    while ((piece = pool_next(s->pool)) < pieces) {
        size_t from_end = pieces - 1 - piece; /* The longest first: the rest fills the gaps. */
        const tile *t = &s->tiles[from_end / key_heads];
        if (!first)
            prepare_heads(&at, (size_t)t->first, from_end % key_heads);
        attention_tile(&at, t, from_end % key_heads);
        attend_whole(&at, &own);
    }
    pool_barrier(s->pool, next);
}

/* The last norm of the rows that are wanted, and their logits. */
static void outputs(const step *s, size_t thread, const float *branch_norm) {
    const ayni_model *m = s->model;
    const ayni_batch *b = s->batch;
    size_t count = (size_t)b->outputs, width = (size_t)m->width, rows = (size_t)b->rows;
    quantised normed = s->normed;
    soon next = rows_soon(s, thread, &m->head, count);
    if (branch_norm) {
        EACH_ROW(s, row, rows, {
            norm_added(s->states + row * width, s->branch + row * width, branch_norm, width,
                       m->norm_epsilon);
        })
        pool_barrier(s->pool, next);
    }
    EACH_ROW(s, i, count, {
        const float *state = s->states + (size_t)b->output[i] * width;
        norm(b->hidden + i * width, state, m->norm, width, m->norm_epsilon);
        for (size_t g = 0; g < width / AYNI_GROUP; g++)
            quantise_group(b->hidden + i * width + g * AYNI_GROUP, &normed, i, g);
    })
    if (!b->logits)
        return;
    pool_barrier(s->pool, next);
    size_t vocabulary = (size_t)m->vocabulary;
    multiply(s, thread, &m->head, &s->normed, count, (target){b->logits, vocabulary, 0});
    if (m->logit_softcap <= 0.0f)
        return;
    pool_barrier(s->pool, NOTHING_SOON);
    EACH_ROW(s, i, count, {
        float *logits = b->logits + i * vocabulary;
        for (size_t k = 0; k < vocabulary; k += 8) {
            float lanes[8] = {0};
            size_t some = size_min(vocabulary - k, 8);
            memcpy(lanes, logits + k, some * sizeof(float));
            vec_store(lanes, vec_softcap(vec_load(lanes), m->logit_softcap));
            memcpy(logits + k, lanes, some * sizeof(float));
        }
    })
}

static void work(void *argument, int number_of_thread) {
    const step *s = argument;
    const ayni_model *m = s->model;
    size_t rows = (size_t)s->batch->rows, thread = (size_t)number_of_thread;
    size_t all = (size_t)(m->heads + 2 * m->key_heads) * (size_t)m->head_width;
    const float *branch_norm = NULL; /* Of a branch that is not yet added. */
    soon next = rows_soon(s, thread, &m->layer[0].query_key_value, rows);
    EACH_ROW(s, row, rows, { embed(s, row); })
    pool_barrier(s->pool, next);
    for (size_t number = 0; number < (size_t)m->layers; number++) {
        const ayni_layer *layer = &m->layer[number];
        int last = number + 1 == (size_t)m->layers;
        const quantised *a;
        a = normed_rows(s, thread, layer->attention_norm, branch_norm, next);
        multiply(s, thread, &layer->query_key_value, a, rows,
                 (target){s->query_key_value, all, 0});
        next = rows_soon(s, thread, &layer->attention_out, rows);
        pool_barrier(s->pool, next);
        attend(s, layer, number, next);
        next = groups_soon(s, thread, layer, rows);
        end_branch(s, thread, &layer->attention_out, &s->attended, layer->attention_post_norm,
                   next);
        a = normed_rows(s, thread, layer->feed_norm, layer->attention_post_norm, next);
        feed(s, thread, layer, a, rows);
        next = rows_soon(s, thread, &layer->down, rows);
        pool_barrier(s->pool, next);
        next = last ? rows_soon(s, thread, &m->head, (size_t)s->batch->outputs)
                    : rows_soon(s, thread, &layer[1].query_key_value, rows);
        end_branch(s, thread, &layer->down, &s->fed, layer->feed_post_norm, next);
        branch_norm = layer->feed_post_norm;
    }
    if (s->batch->outputs)
        outputs(s, thread, branch_norm);
}
