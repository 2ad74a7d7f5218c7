/* Small random models, extreme numbers and spoilt arguments through every path: for a build with
 * sanitizers, without Python. `harness ROUNDS` ends with 0 when all paths agreed and nothing bad
 * was taken.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _POSIX_C_SOURCE 200809L
#include "ayni_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 40
#define SEQUENCES 3
#define TABLE_WIDTH 4
#define BLOCKS (SEQUENCES * TABLE_WIDTH)
#define CONTEXT (TABLE_WIDTH * AYNI_BLOCK_TOKENS)
#define LAYERS 2

static uint64_t state = 0x9e3779b97f4a7c15u;

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016. */
static uint32_t draw(uint32_t below) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1du) >> 33) % below;
}

/* Memory of exactly so many bytes, so that one byte beyond is noticed. */
static void *room(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes ? bytes : 1))
        exit(2);
    memset(memory, 0, bytes);
    return memory;
}

static float *random_floats(size_t count) {
    float *out = room(count * sizeof(float));
    for (size_t i = 0; i < count; i++)
        out[i] = (float)((int)draw(512) - 256) / 128.0f;
    return out;
}

/* Usual scales, and sometimes zeros, the smallest and greatest numbers, infinities and none. */
static uint16_t random_half(int wild) {
    static const uint16_t extremes[] = {0,      0x8000, 1,      0x03ff, 0x7bff,
                                        0xfbff, 0x7c00, 0xfc00, 0x7e00};
    if (wild && draw(8) == 0)
        return extremes[draw(sizeof extremes / sizeof *extremes)];
    return (uint16_t)(0x2000 + draw(0x0800));
}

static ayni_matrix random_matrix(int32_t rows, int32_t columns, int wild) {
    ayni_matrix m = {.format = (int32_t)draw(2), .rows = rows, .columns = columns};
    size_t bytes_each = m.format == AYNI_Q4 ? AYNI_Q4_BYTES : AYNI_Q8_BYTES;
    size_t head = m.format == AYNI_Q4 ? 16 : 8;
    size_t groups = (size_t)(rows + 7) / 8 * (size_t)(columns / AYNI_GROUP);
    uint8_t *data = room(groups * bytes_each);
    for (size_t g = 0; g < groups; g++) {
        uint16_t halves[16];
        for (size_t i = 0; i < head; i++)
            halves[i] = random_half(wild);
        memcpy(data + g * bytes_each, halves, head * 2);
        for (size_t i = head * 2; i < bytes_each; i++) {
            data[g * bytes_each + i] = (uint8_t)draw(256);
            if (m.format == AYNI_Q8 && !wild && data[g * bytes_each + i] == 0x80)
                data[g * bytes_each + i] = 0x81;
        }
    }
    m.data = data;
    if (draw(2))
        m.bias = random_floats((size_t)rows);
    return m;
}

static ayni_layer *random_layers(const ayni_model *m, int wild) {
    ayni_layer *layers = room(LAYERS * sizeof *layers);
    int32_t attended = m->heads * m->head_width;
    int32_t all = attended + 2 * m->key_heads * m->head_width;
    size_t width = (size_t)m->width, head_width = (size_t)m->head_width;
    for (int i = 0; i < LAYERS; i++) {
        ayni_layer *l = &layers[i];
        l->query_key_value = random_matrix(all, m->width, wild);
        l->attention_out = random_matrix(m->width, attended, wild);
        l->gate_up = random_matrix(2 * m->inner_width, m->width, wild);
        l->down = random_matrix(m->width, m->inner_width, wild);
        l->attention_norm = random_floats(width);
        l->feed_norm = random_floats(width);
        l->query_norm = draw(2) ? random_floats(head_width) : NULL;
        l->key_norm = draw(2) ? random_floats(head_width) : NULL;
        l->attention_post_norm = draw(2) ? random_floats(width) : NULL;
        l->feed_post_norm = draw(2) ? random_floats(width) : NULL;
        float *rotations = room(CONTEXT * head_width * sizeof(float));
        ayni_rotations(rotations, CONTEXT, m->head_width / 2, 10000.0, 1.0, NULL);
        l->rotations = rotations;
        l->window = draw(2) ? (int32_t)draw(50) : 0;
    }
    return layers;
}

static ayni_model random_model(int wild) {
    static const int32_t head_widths[] = {8, 16, 24, 32, 40, 64, 80, 256};
    ayni_model m = {.abi = AYNI_ABI, .layers = LAYERS, .context = CONTEXT, .blocks = BLOCKS};
    m.width = 32 * (int32_t)(1 + draw(4));
    m.inner_width = 32 * (int32_t)(1 + draw(5));
    m.head_width = head_widths[draw(8)];
    m.key_heads = (int32_t)(1 + draw(3));
    m.heads = m.key_heads * (m.head_width % 32 == 0 ? (int32_t)(1 + draw(3)) : 4);
    m.vocabulary = (int32_t)(1 + draw(90));
    m.activation = (int32_t)draw(2);
    m.rows_max = ROWS;
    m.norm_epsilon = 1e-5f;
    m.attention_scale = 0.2f;
    m.attention_softcap = draw(2) ? 20.0f : 0.0f;
    m.logit_softcap = draw(2) ? 10.0f : 0.0f;
    m.embedding_scale = 1.5f;
    m.layer = random_layers(&m, wild);
    m.embedding = random_matrix(m.vocabulary, m.width, wild);
    m.head = random_matrix(m.vocabulary, m.width, wild);
    m.norm = random_floats((size_t)m.width);
    size_t halves = (size_t)(m.key_heads * m.head_width) * BLOCKS * LAYERS * AYNI_BLOCK_TOKENS;
    m.keys = room(halves * 2);
    m.values = room(halves * 2);
    return m;
}

static void free_matrix(ayni_matrix *m) {
    free((void *)(uintptr_t)m->data);
    free((void *)(uintptr_t)m->bias);
}

static void free_model(ayni_model *m) {
    for (int i = 0; i < LAYERS; i++) {
        ayni_layer l = m->layer[i];
        ayni_matrix *matrices[] = {&l.query_key_value, &l.attention_out, &l.gate_up, &l.down};
        const float *vectors[] = {l.attention_norm, l.feed_norm, l.query_norm, l.key_norm,
                                  l.attention_post_norm, l.feed_post_norm, l.rotations};
        for (size_t k = 0; k < 4; k++)
            free_matrix(matrices[k]);
        for (size_t k = 0; k < 7; k++)
            free((void *)(uintptr_t)vectors[k]);
    }
    free((void *)(uintptr_t)m->layer);
    free_matrix(&m->embedding);
    free_matrix(&m->head);
    free((void *)(uintptr_t)m->norm);
    free(m->keys);
    free(m->values);
}

typedef struct {
    int32_t token[ROWS], sequence[ROWS], position[ROWS], output[ROWS];
    int32_t table[SEQUENCES * TABLE_WIDTH];
} columns;

/* The next rows of each sequence, from where it stands. */
static ayni_batch random_batch(columns *c, const ayni_model *m, int32_t *stands) {
    ayni_batch b = {.sequences = SEQUENCES, .table_width = TABLE_WIDTH};
    for (int32_t s = 0; s < SEQUENCES; s++) {
        int32_t count = (int32_t)draw(ROWS / SEQUENCES + 1);
        for (int32_t i = 0; i < count && stands[s] < CONTEXT; i++, stands[s]++) {
            c->token[b.rows] = (int32_t)draw((uint32_t)m->vocabulary);
            c->sequence[b.rows] = s;
            c->position[b.rows] = stands[s];
            if (draw(2))
                c->output[b.outputs++] = b.rows;
            b.rows++;
        }
    }
    b.token = c->token, b.sequence = c->sequence, b.position = c->position;
    b.table = c->table, b.output = c->output;
    return b;
}

/* Spoils one whole number of the batch, of its columns or of the model. */
static void spoil(ayni_model *m, ayni_batch *b, columns *c) {
    static const int32_t values[] = {-1, 0, 1, 31, 4096, 0x7fffffff, -0x7fffffff - 1};
    int32_t value = values[draw(7)];
    int32_t *sizes[] = {&b->rows, &b->sequences, &b->table_width, &b->outputs, &m->layers,
                        &m->width, &m->inner_width, &m->heads, &m->key_heads, &m->head_width,
                        &m->vocabulary, &m->context, &m->blocks, &m->rows_max, &m->abi};
    switch (draw(4)) {
    case 0: *sizes[draw(4)] = value; break;
    case 1: *sizes[4 + draw(11)] = value; break;
    case 2: c->table[draw(SEQUENCES * TABLE_WIDTH)] = value; break;
    default: {
        int32_t *lists[] = {c->token, c->sequence, c->position, c->output};
        lists[draw(4)][draw(ROWS)] = value;
    }
    }
}

/* Whether spoilt sizes are still within what was allocated: a smaller table is a fair wish. */
static int fits(const ayni_model *m, const ayni_model *good, const ayni_batch *b) {
    return m->layers <= LAYERS && m->context <= CONTEXT && m->blocks <= BLOCKS &&
           m->rows_max <= ROWS && b->sequences <= SEQUENCES && b->table_width <= TABLE_WIDTH &&
           b->outputs <= ROWS && m->vocabulary == good->vocabulary && b->rows <= ROWS;
}

static int refused;

static void try_spoilt(ayni_pool *pool, const ayni_model *good, ayni_batch batch, columns c,
                       int32_t threads) {
    ayni_model m = *good;
    batch.token = c.token, batch.sequence = c.sequence, batch.position = c.position;
    batch.table = c.table, batch.output = c.output;
    spoil(&m, &batch, &c);
    if (!fits(&m, good, &batch))
        return; /* A caller who lies about what he allocated cannot be found out. */
    m.scratch = room(ayni_scratch_bytes(&m, threads));
    batch.hidden = room(ROWS * (size_t)good->width * sizeof(float));
    batch.logits = room(ROWS * (size_t)good->vocabulary * sizeof(float));
    refused += ayni_step(pool, AYNI_PORTABLE, &m, &batch) != AYNI_OK;
    free(m.scratch);
    free(batch.hidden);
    free(batch.logits);
}

static int same(const float *a, const float *b, size_t count) {
    for (size_t i = 0; i < count; i++) /* What is no number has no bits that matter. */
        if (memcmp(&a[i], &b[i], sizeof *a) && (a[i] == a[i] || b[i] == b[i]))
            return 0;
    return 1;
}

/* One batch on every path from the same cache. Returns how many paths gave other bits. */
static int one_batch(ayni_pool *pool, ayni_model *m, ayni_batch *b) {
    size_t width = (size_t)m->width, vocabulary = (size_t)m->vocabulary;
    size_t outputs = (size_t)b->outputs;
    float *expected[2] = {NULL, NULL};
    int differ = 0;
    for (int32_t path = AYNI_PORTABLE; path <= AYNI_NEON; path++) {
        if (!(ayni_paths() >> path & 1))
            continue;
        b->hidden = room(outputs * width * sizeof(float));
        b->logits = room(outputs * vocabulary * sizeof(float));
        if (ayni_step(pool, path, m, b) != AYNI_OK)
            exit(3);
        if (path == AYNI_PORTABLE) {
            expected[0] = b->hidden, expected[1] = b->logits;
            continue;
        }
        differ += !same(expected[0], b->hidden, outputs * width) ||
                  !same(expected[1], b->logits, outputs * vocabulary);
        free(b->hidden);
        free(b->logits);
    }
    b->hidden = expected[0], b->logits = expected[1];
    return differ;
}

static int one_round(int wild) {
    ayni_model m = random_model(wild);
    int32_t threads = (int32_t)(1 + draw(4)), stands[SEQUENCES] = {0};
    ayni_pool *pool = ayni_pool_open(threads);
    columns c = {0};
    int differ = 0;
    m.scratch = room(ayni_scratch_bytes(&m, threads));
    for (int32_t i = 0; i < BLOCKS; i++)
        c.table[i] = BLOCKS - 1 - i;
    for (int batch = 0; batch < 4; batch++) {
        ayni_batch b = random_batch(&c, &m, stands);
        if (!b.rows)
            continue;
        int here = one_batch(pool, &m, &b);
        if (!wild) /* Bytes that a packer never writes (-128) may differ; nothing else may. */
            differ += here;
        for (int i = 0; i < 10; i++)
            try_spoilt(pool, &m, b, c, threads);
        free(b.hidden);
        free(b.logits);
    }
    ayni_pool_close(pool);
    free(m.scratch);
    free_model(&m);
    return differ;
}

int main(int count, char **arguments) {
    int rounds = count > 1 ? atoi(arguments[1]) : 20, differ = 0;
    for (int i = 0; i < rounds; i++)
        differ += one_round(i % 2);
    printf("%d rounds of steps, %d that differ, %d refused\n", rounds, differ, refused);
    return differ != 0 || refused == 0;
}
