/* Products of packed matrices with quantised rows. Included by each path after rows.inc.h.
 *
 * A tile is EIGHTS eights of rows times up to TILE_TOKENS tokens: its sums stay in registers while
 * the groups go by. Of one group the products are summed exactly, as whole numbers; then the scales
 * come in, and groups are summed from the first to the last. So the result for a row and a token
 * does not depend on which others are computed with it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

/* Which part of a product is wanted: eights of rows, and tokens. */
typedef struct {
    size_t eight, eights, token, tokens; /* First and how many. */
} part;

/* Where the first row and token of a part go; tokens are `stride` apart. With `add` the product is
 * added to what is there. */
typedef struct {
    float *first;
    size_t stride;
    int add;
} target;

/* Asks for the next tile's group while this one is worked on: a tile reads several stretches of
 * memory at once, of which processors lose track. Beyond the end nothing happens. */
INLINE void fetch(const uint8_t *group, size_t apart, const size_t bytes_each) {
    UNROLL for (size_t i = 0; i < bytes_each; i += 64) {
        __builtin_prefetch(group + i);
        if (EIGHTS == 2)
            __builtin_prefetch(group + apart + i);
    }
}

INLINE void tile_q4(const uint8_t *group, size_t apart, const quantised *a, size_t token,
                    wide *total, const int count) {
    size_t groups = a->columns / AYNI_GROUP;
    const int8_t *values = a->values + token * a->columns;
    const float *scales = a->scales + token * groups;
    const float *scaled_sums = a->scaled_sums + token * groups;
    UNROLL for (int i = 0; i < count; i++) total[i] = wide_all(0.0f);
    for (size_t g = 0; g < groups; g++, group += AYNI_Q4_BYTES, values += AYNI_GROUP) {
        fetch(group + EIGHTS * groups * AYNI_Q4_BYTES, apart, AYNI_Q4_BYTES);
        sums4 sums[TILE_TOKENS];
        UNROLL for (int i = 0; i < count; i++) sums[i] = sums4_zero();
        UNROLL for (int c = 0; c < 4; c++) {
            bytes both = bytes_load(group + 32 + 32 * c, apart);
            bytes low = bytes_low(both), high = bytes_high(both);
            UNROLL for (int i = 0; i < count; i++) {
                const int8_t *columns = values + (size_t)i * a->columns + 4 * c;
                sums[i] = sums4_add(sums[i], low, columns);
                sums[i] = sums4_add(sums[i], high, columns + 16);
            }
        }
        wide scale = wide_from_eights(group, apart);
        wide minimum = wide_from_eights(group + 16, apart);
        UNROLL for (int i = 0; i < count; i++) {
            size_t place = (size_t)i * groups + g;
            wide both_scales = wide_mul(scale, wide_all(scales[place]));
            total[i] = wide_fused(sums4_floats(sums[i]), both_scales, total[i]);
            total[i] = wide_fused(minimum, wide_all(scaled_sums[place]), total[i]);
        }
    }
}

INLINE void tile_q8(const uint8_t *group, size_t apart, const quantised *a, size_t token,
                    wide *total, const int count) {
    size_t groups = a->columns / AYNI_GROUP;
    const int8_t *values = a->values + token * a->columns;
    const float *scales = a->scales + token * groups;
    const int32_t *whole_sums = a->sums + token * groups;
    UNROLL for (int i = 0; i < count; i++) total[i] = wide_all(0.0f);
    for (size_t g = 0; g < groups; g++, group += AYNI_Q8_BYTES, values += AYNI_GROUP) {
        fetch(group + EIGHTS * groups * AYNI_Q8_BYTES, apart, AYNI_Q8_BYTES);
        sums8 sums[TILE_TOKENS];
        UNROLL for (int i = 0; i < count; i++)
            sums[i] = sums8_begin(whole_sums[(size_t)i * groups + g]);
        UNROLL for (int c = 0; c < 8; c++) {
            bytes8 weights = bytes8_load(group + 16 + 32 * c, apart);
            UNROLL for (int i = 0; i < count; i++)
                sums[i] = sums8_add(sums[i], weights, values + (size_t)i * a->columns + 4 * c);
        }
        wide scale = wide_from_eights(group, apart);
        UNROLL for (int i = 0; i < count; i++) {
            wide both_scales = wide_mul(scale, wide_all(scales[(size_t)i * groups + g]));
            total[i] = wide_fused(sums8_floats(sums[i]), both_scales, total[i]);
        }
    }
}

/* Adds the bias, and what is there already where `add` says so. The last rows of a matrix may be
 * fewer than eight: only they are read and written. */
INLINE void tile_store(const ayni_matrix *matrix, size_t eight, vec total, float *to, int add) {
    size_t rows = size_min((size_t)matrix->rows - eight * AYNI_ROWS, AYNI_ROWS);
    const float *bias = matrix->bias ? matrix->bias + eight * AYNI_ROWS : NULL;
    if (rows == AYNI_ROWS) {
        if (bias)
            total = vec_add(total, vec_load(bias));
        vec_store(to, add ? vec_add(total, vec_load(to)) : total);
        return;
    }
    float lanes[AYNI_ROWS];
    vec_store(lanes, total);
    for (size_t i = 0; i < rows; i++) {
        if (bias)
            lanes[i] += bias[i];
        to[i] = add ? lanes[i] + to[i] : lanes[i];
    }
}

/* Of one eight of rows, all groups. */
static size_t eight_bytes(const ayni_matrix *matrix) {
    size_t bytes = matrix->format == AYNI_Q4 ? AYNI_Q4_BYTES : AYNI_Q8_BYTES;
    return (size_t)matrix->columns / AYNI_GROUP * bytes;
}

/* All eights of rows of a part with `count` tokens of it, a number known when this is compiled. */
INLINE void tiles(const ayni_matrix *matrix, const quantised *a, part p, target to,
                  const int count) {
    size_t bytes_each = eight_bytes(matrix);
    for (size_t e = 0; e < p.eights; e += EIGHTS) {
        wide total[TILE_TOKENS];
        size_t here = size_min(p.eights - e, EIGHTS); /* A last eight alone is computed twice. */
        size_t apart = here == EIGHTS ? bytes_each : 0;
        const uint8_t *group = matrix->data + (p.eight + e) * bytes_each;
        if (matrix->format == AYNI_Q4)
            tile_q4(group, apart, a, p.token, total, count);
        else
            tile_q8(group, apart, a, p.token, total, count);
        UNROLL for (int i = 0; i < count; i++) {
            float *rows = to.first + (size_t)i * to.stride + e * AYNI_ROWS;
            tile_store(matrix, p.eight + e, wide_eight(total[i], 0), rows, to.add);
            if (EIGHTS == 2 && here == 2) {
                vec second = wide_eight(total[i], 1);
                tile_store(matrix, p.eight + e + 1, second, rows + AYNI_ROWS, to.add);
            }
        }
    }
}

#define TILES(n)                                                                                   \
    case n: tiles(matrix, a, p, to, n); break;

static void product(const ayni_matrix *matrix, const quantised *a, part p, target to) {
    size_t end = p.token + p.tokens;
    while (p.token < end) {
        size_t count = size_min(end - p.token, TILE_TOKENS);
        switch (count) {
            TILES(1) TILES(2) TILES(3) TILES(4)
#if TILE_TOKENS > 4
            TILES(5) TILES(6) TILES(7) TILES(8)
#endif
        }
        p.token += count;
        to.first += count * to.stride;
    }
}

static size_t matrix_eights(const ayni_matrix *matrix) {
    return ((size_t)matrix->rows + AYNI_ROWS - 1) / AYNI_ROWS;
}

/* How pieces of work are divided among the threads. Each thread begins with `own` pieces of which
 * it knows before it comes to them, and could fetch their weights while it waited; then whoever is
 * free takes `share` of the rest, so that a slow thread holds nobody up. */
typedef struct {
    size_t count, own, rest, share;
} division;

/* `unit` pieces stay together. One tile's tokens pass over the weights once: then the longer a
 * stretch of weights, the better. With more tokens a share of weights has to stay in the cache. */
static division divided(const step *s, size_t count, size_t unit, size_t tokens, size_t many) {
    size_t share_max = tokens <= TILE_TOKENS ? count : many, threads = s->threads;
    size_t own = size_min(threads == 1 ? count : count * 3 / (threads * 4), share_max);
    own -= own % unit;
    size_t share = size_min((count - own * threads) / (threads * 2), share_max);
    share = size_max(share - share % unit, unit);
    return (division){count, own, own * threads, share};
}

/* A thread's next pieces: `*count` of them, from `*first` on. `*turn` begins at 0. */
static int next_pieces(const step *s, const division *d, size_t thread, size_t *turn,
                       size_t *first, size_t *count) {
    if ((*turn)++ == 0 && d->own) {
        *first = thread * d->own;
        *count = d->own;
        return 1;
    }
    *first = d->rest + pool_next(s->pool) * d->share;
    *count = *first < d->count ? size_min(d->share, d->count - *first) : 0;
    return *count > 0;
}

#define EIGHTS_MANY 16 /* Eights of rows of a share that many tokens pass over. */

static division rows_divided(const step *s, const ayni_matrix *matrix, size_t tokens) {
    return divided(s, matrix_eights(matrix), EIGHTS, tokens, EIGHTS_MANY);
}

/* The weights with which a thread begins a product. */
static soon rows_soon(const step *s, size_t thread, const ayni_matrix *matrix, size_t tokens) {
    size_t bytes = rows_divided(s, matrix, tokens).own * eight_bytes(matrix);
    return (soon){matrix->data + thread * bytes, bytes};
}

/* One thread's turns at to = matrix * rows of `a`. */
static void multiply(const step *s, size_t thread, const ayni_matrix *matrix, const quantised *a,
                     size_t tokens, target to) {
    division d = rows_divided(s, matrix, tokens);
    size_t turn = 0, eight, count;
    while (next_pieces(s, &d, thread, &turn, &eight, &count))
        for (size_t token = 0; token < tokens; token += TOKENS_TOGETHER) {
            part p = {eight, count, token, size_min(TOKENS_TOGETHER, tokens - token)};
            float *first = to.first + token * to.stride + eight * AYNI_ROWS;
            product(matrix, a, p, (target){first, to.stride, to.add});
        }
}

/* ---- The first half of the feed-forward: activation(gate) * up, quantised ---- */

static void feed_group(const step *s, const ayni_layer *layer, const quantised *a, part p) {
    float gate[TOKENS_TOGETHER * AYNI_GROUP], up[TOKENS_TOGETHER * AYNI_GROUP];
    size_t group = p.eight * AYNI_ROWS / AYNI_GROUP;
    product(&layer->gate_up, a, p, (target){gate, AYNI_GROUP, 0});
    p.eight += (size_t)s->model->inner_width / AYNI_ROWS;
    product(&layer->gate_up, a, p, (target){up, AYNI_GROUP, 0});
    quantised fed = s->fed;
    for (size_t t = 0; t < p.tokens; t++) {
        float *g = gate + t * AYNI_GROUP, *u = up + t * AYNI_GROUP;
        for (size_t i = 0; i < AYNI_GROUP; i += 8) {
            vec v = vec_load(g + i);
            v = s->model->activation == AYNI_SILU ? vec_silu(v) : vec_gelu(v);
            vec_store(g + i, vec_mul(v, vec_load(u + i)));
        }
        quantise_group(g, &fed, p.token + t, group);
    }
}

/* Pieces are groups of 32 rows of gate with the same rows of up: what one thread has computed of
 * them is a whole group of the next matrix's columns, and needs no barrier. */
#define EIGHTS_OF_GROUP (AYNI_GROUP / AYNI_ROWS)

static division groups_divided(const step *s, size_t tokens) {
    size_t groups = (size_t)s->model->inner_width / AYNI_GROUP;
    return divided(s, groups, 1, tokens, EIGHTS_MANY / EIGHTS_OF_GROUP);
}

static soon groups_soon(const step *s, size_t thread, const ayni_layer *layer, size_t tokens) {
    size_t eights = groups_divided(s, tokens).own * EIGHTS_OF_GROUP;
    size_t bytes = eights * eight_bytes(&layer->gate_up);
    return (soon){layer->gate_up.data + thread * bytes, bytes};
}

static void feed(const step *s, size_t thread, const ayni_layer *layer, const quantised *a,
                 size_t tokens) {
    division d = groups_divided(s, tokens);
    size_t turn = 0, first, count;
    while (next_pieces(s, &d, thread, &turn, &first, &count))
        for (size_t token = 0; token < tokens; token += TOKENS_TOGETHER)
            for (size_t g = first; g < first + count; g++) {
                part p = {g * EIGHTS_OF_GROUP, EIGHTS_OF_GROUP, token,
                          size_min(TOKENS_TOGETHER, tokens - token)};
                feed_group(s, layer, a, p);
            }
}
