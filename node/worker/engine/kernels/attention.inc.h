/* Attention over the cache of keys and values. Included by each path after rows.inc.h.
 *
 * A tile of rows (a few tokens of one sequence, with all heads that share a head of keys) goes over
 * the sequence's blocks once. The softmax is the running one (Milakov and Gimelshein, "Online
 * normalizer calculation for softmax", 2018; FlashAttention): the greatest score so far, the sum
 * and the weighted values relative to it. Blocks of 32 keys go by in their order, PART_TOKENS keys
 * make a part with a sum of its own, and parts are joined in their order: all by places in the
 * sequence, so neither the batch nor the threads have a say in any bit.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

/* The running softmax of a row; `total` goes on with the weighted values, [head_width]. */
typedef struct {
    float greatest, used, unused[6];
    float sums[8];
    float total[];
} partial;

typedef struct {
    const step *s;
    const ayni_layer *layer;
    size_t number, key_head; /* Of the layer, and of the head of keys. */
    const tile *tile;
    size_t heads_each, rows, partial_bytes;
    const float *query[ROWS_ATTENDING];
    int32_t first[ROWS_ATTENDING], last[ROWS_ATTENDING]; /* Positions that a row sees. */
} attention;

INLINE partial *partial_at(const attention *at, void *base, size_t index) {
    return (partial *)((char *)base + index * at->partial_bytes);
}

/* ---- Products with lines of halves ---- */

#define LINE (4 / EIGHTS) /* 32 lanes. */

/* out[r] (+)= sum over k of a[r][k] * b[k], lines of 32 halves, `stride` apart. */
INLINE void weigh(float *const *out, const float *const *a, const uint16_t *b, size_t stride,
                  size_t count, const int shape) {
    const int rows = shape >> 1, fresh = shape & 1;
    wide sum[TILE_ROWS * LINE];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int l = 0; l < LINE; l++)
            sum[r * LINE + l] = fresh ? wide_all(0.0f) : wide_load(out[r] + 8 * EIGHTS * l);
    for (size_t k = 0; k < count; k++, b += stride) {
        wide line[LINE];
        UNROLL for (int l = 0; l < LINE; l++) line[l] = wide_from_halves(b + 8 * EIGHTS * l);
        UNROLL for (int r = 0; r < rows; r++) {
            wide factor = wide_all(a[r][k]);
            UNROLL for (int l = 0; l < LINE; l++)
                sum[r * LINE + l] = wide_fused(factor, line[l], sum[r * LINE + l]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int l = 0; l < LINE; l++)
            wide_store(out[r] + 8 * EIGHTS * l, sum[r * LINE + l]);
}

#define WEIGH(n, fresh)                                                                            \
    case n: weigh(out, a, b, stride, count, n << 1 | (fresh)); break;
#if TILE_ROWS == 2
#define WEIGH_ROWS(fresh) WEIGH(1, fresh) WEIGH(2, fresh)
#elif TILE_ROWS == 4
#define WEIGH_ROWS(fresh) WEIGH(1, fresh) WEIGH(2, fresh) WEIGH(3, fresh) WEIGH(4, fresh)
#elif TILE_ROWS == 8
#define WEIGH_ROWS(fresh)                                                                          \
    WEIGH(1, fresh) WEIGH(2, fresh) WEIGH(3, fresh) WEIGH(4, fresh)                                \
    WEIGH(5, fresh) WEIGH(6, fresh) WEIGH(7, fresh) WEIGH(8, fresh)
#endif

/* Scores of a block: keys lie [head_width][32], so `count` is head_width. */
static void weigh_keys(float *const *out, const float *const *a, const uint16_t *b, size_t count,
                       size_t rows) {
    const size_t stride = AYNI_BLOCK_TOKENS;
    switch (rows) { WEIGH_ROWS(1) }
}

/* The last lanes of a head that is no multiple of 32 wide. */
static void weigh_eight(float *out, const float *a, const uint16_t *b, size_t stride,
                        size_t count) {
    vec sum = vec_load(out);
    for (size_t k = 0; k < count; k++)
        sum = vec_fused(vec_all(a[k]), vec_from_halves(b + k * stride), sum);
    vec_store(out, sum);
}

/* Adds `count` lines of values, [32][head_width], each times its weight. */
static void weigh_values(float **out, const float *const *a, const uint16_t *b, size_t stride,
                         size_t count, size_t rows) {
    for (size_t left = stride; left >= 32; left -= 32, b += 32) {
        switch (rows) { WEIGH_ROWS(0) }
        for (size_t r = 0; r < rows; r++)
            out[r] += 32;
    }
    for (size_t left = stride % 32; left; left -= 8, b += 8)
        for (size_t r = 0; r < rows; r++) {
            weigh_eight(out[r], a[r], b, stride, count);
            out[r] += 8;
        }
}

/* ---- Softmax ---- */

/* Takes 32 scores into the running softmax and leaves their weights in their place; outside `low`
 * to `high` they do not count. */
static void soften(const ayni_model *model, partial *p, float *scores, size_t low, size_t high) {
    vec v[4], scale = vec_all(model->attention_scale);
    for (size_t i = 0; i < 4; i++) {
        v[i] = vec_mul(vec_load(scores + 8 * i), scale);
        if (model->attention_softcap > 0.0f)
            v[i] = vec_softcap(v[i], model->attention_softcap);
        vec_store(scores + 8 * i, v[i]);
    }
    int whole = low == 0 && high == AYNI_BLOCK_TOKENS - 1;
    if (!whole) {
        for (size_t i = 0; i < AYNI_BLOCK_TOKENS; i++)
            if (i < low || i > high)
                scores[i] = -INFINITY;
        for (size_t i = 0; i < 4; i++)
            v[i] = vec_load(scores + 8 * i);
    }
    float greatest = vec_greatest(vec_greater(vec_greater(v[0], v[1]), vec_greater(v[2], v[3])));
    if (greatest > p->greatest) {
        float lanes[8];
        vec_store(lanes, vec_exp(vec_all(p->greatest - greatest)));
        vec factor = vec_all(lanes[0]);
        vec_store(p->sums, vec_mul(vec_load(p->sums), factor));
        for (size_t i = 0; i < (size_t)model->head_width; i += 8)
            vec_store(p->total + i, vec_mul(vec_load(p->total + i), factor));
        p->greatest = greatest;
    }
    for (size_t i = 0; i < 4; i++) {
        v[i] = vec_exp(vec_sub(v[i], vec_all(p->greatest)));
        vec_store(scores + 8 * i, v[i]);
    }
    if (!whole) {
        for (size_t i = 0; i < AYNI_BLOCK_TOKENS; i++)
            if (i < low || i > high)
                scores[i] = 0.0f;
        for (size_t i = 0; i < 4; i++)
            v[i] = vec_load(scores + 8 * i);
    }
    vec sum = vec_add(vec_add(v[0], v[1]), vec_add(v[2], v[3]));
    vec_store(p->sums, vec_add(vec_load(p->sums), sum));
}

/* ---- Tiles ---- */

/* Where the keys or values of a block, layer and head lie, in halves. */
INLINE size_t cache_place(const ayni_model *m, size_t block, size_t layer, size_t key_head) {
    size_t size = (size_t)m->head_width * AYNI_BLOCK_TOKENS;
    return ((block * (size_t)m->layers + layer) * (size_t)m->key_heads + key_head) * size;
}

INLINE size_t block_of(const step *s, size_t row, size_t index) {
    size_t sequence = (size_t)s->batch->sequence[row];
    return (size_t)s->batch->table[sequence * (size_t)s->batch->table_width + index];
}

static void attention_begin(attention *at, const step *s, const ayni_layer *layer, size_t number) {
    const ayni_model *m = s->model;
    at->s = s;
    at->layer = layer;
    at->number = number;
    at->heads_each = (size_t)(m->heads / m->key_heads);
    at->partial_bytes = sizeof(float) * (PARTIAL_HEAD + (size_t)m->head_width);
}

static void attention_tile(attention *at, const tile *t, size_t key_head) {
    const step *s = at->s;
    const ayni_model *m = s->model;
    size_t width = (size_t)m->head_width;
    size_t all = (size_t)(m->heads + 2 * m->key_heads) * width;
    at->tile = t;
    at->key_head = key_head;
    at->rows = (size_t)t->count * at->heads_each;
    for (size_t r = 0; r < at->rows; r++) {
        size_t row = (size_t)t->first + r / at->heads_each;
        size_t head = key_head * at->heads_each + r % at->heads_each;
        int32_t position = s->batch->position[row], window = at->layer->window;
        at->query[r] = s->query_key_value + row * all + head * width;
        at->last[r] = position;
        at->first[r] = window && position >= window ? position - window + 1 : 0;
    }
}

/* One block of keys and values for the rows that see any of it. */
static void attend_block(const attention *at, size_t index, partial *const *partials) {
    const ayni_model *m = at->s->model;
    size_t place = cache_place(m, block_of(at->s, (size_t)at->tile->first, index), at->number,
                               at->key_head);
    float scores[TILE_ROWS][AYNI_BLOCK_TOKENS];
    int32_t base = (int32_t)index * AYNI_BLOCK_TOKENS, end = base + AYNI_BLOCK_TOKENS - 1;
    for (size_t r = 0; r < at->rows;) {
        if (at->last[r] < base || at->first[r] > end) {
            r++;
            continue;
        }
        /* Neighbours that see the same keys of this block go together. */
        size_t count = 0, low = 0, high = AYNI_BLOCK_TOKENS - 1;
        const float *queries[TILE_ROWS] = {0}, *weights[TILE_ROWS] = {0};
        float *to[TILE_ROWS] = {0};
        for (; count < TILE_ROWS && r + count < at->rows; count++) {
            int32_t first = at->first[r + count], last = at->last[r + count];
            if (last < base || first > end)
                break;
            size_t from = first > base ? (size_t)(first - base) : 0;
            size_t until = last < end ? (size_t)(last - base) : AYNI_BLOCK_TOKENS - 1;
            if (count && (from != low || until != high))
                break;
            low = from, high = until;
            queries[count] = at->query[r + count];
            weights[count] = scores[count] + low;
            to[count] = scores[count];
        }
        weigh_keys(to, queries, m->keys + place, (size_t)m->head_width, count);
        for (size_t i = 0; i < count; i++) {
            soften(m, partials[r + i], scores[i], low, high);
            partials[r + i]->used = 1.0f;
            to[i] = partials[r + i]->total;
        }
        size_t width = (size_t)m->head_width;
        weigh_values(to, weights, m->values + place + low * width, width, high - low + 1, count);
        r += count;
    }
}

/* One part of PART_TOKENS keys, from nothing. */
static void attend_part(const attention *at, size_t number, partial *const *partials) {
    const size_t blocks_each = PART_TOKENS / AYNI_BLOCK_TOKENS;
    int32_t first = at->first[0], last = at->last[at->rows - 1];
    for (size_t r = 0; r < at->rows; r++) {
        memset(partials[r], 0, at->partial_bytes);
        partials[r]->greatest = -INFINITY;
    }
    size_t begin = size_max((size_t)first / AYNI_BLOCK_TOKENS, number * blocks_each);
    size_t end = size_min((size_t)last / AYNI_BLOCK_TOKENS + 1, (number + 1) * blocks_each);
    for (size_t index = begin; index < end; index++)
        attend_block(at, index, partials);
}

/* Joins a part to those before it. */
static void join(const ayni_model *model, partial *to, const partial *from) {
    size_t width = (size_t)model->head_width;
    if (from->used == 0.0f)
        return;
    if (to->used == 0.0f) {
        memcpy(to, from, sizeof(float) * (PARTIAL_HEAD + width));
        return;
    }
    float greatest = from->greatest > to->greatest ? from->greatest : to->greatest, lanes[8];
    vec_store(lanes, vec_exp(vec_all(to->greatest - greatest)));
    vec before = vec_all(lanes[0]);
    vec_store(lanes, vec_exp(vec_all(from->greatest - greatest)));
    vec now = vec_all(lanes[0]);
    vec sums = vec_mul(vec_load(to->sums), before);
    vec_store(to->sums, vec_fused(vec_load(from->sums), now, sums));
    for (size_t i = 0; i < width; i += 8) {
        vec total = vec_mul(vec_load(to->total + i), before);
        vec_store(to->total + i, vec_fused(vec_load(from->total + i), now, total));
    }
    to->greatest = greatest;
}

/* Divides by the sums, and quantises the heads of each token for the next matrix. */
static void attention_end(const attention *at, partial *const *totals) {
    size_t width = (size_t)at->s->model->head_width, columns = at->heads_each * width;
    quantised to = at->s->attended;
    float out[ROWS_ATTENDING * HEAD_WIDTH_MAX];
    for (size_t t = 0; t < (size_t)at->tile->count; t++) {
        for (size_t h = 0; h < at->heads_each; h++) {
            const partial *p = totals[t * at->heads_each + h];
            vec factor = vec_all(1.0f / vec_sum(vec_load(p->sums)));
            for (size_t i = 0; i < width; i += 8)
                vec_store(out + h * width + i, vec_mul(vec_load(p->total + i), factor));
        }
        for (size_t g = 0; g < columns / AYNI_GROUP; g++)
            quantise_group(out + g * AYNI_GROUP, &to, (size_t)at->tile->first + t,
                           at->key_head * columns / AYNI_GROUP + g);
    }
}
